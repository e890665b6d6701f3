"""Small models and perfect ones, for whole runs: data on disk to tables of results."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from PIL import Image
from pycocotools import mask as mask_util
from torch import nn

from rankseg_d2.config import get_config
from rankseg_d2.engine import Trainer

TOPK = 12  # more than the categories in one of the images
SMALL = {
    "MODEL.BACKBONE.NAME": "TimmBackbone",
    "MODEL.TIMM.NAME": "resnet10t",
    "MODEL.WEIGHTS": "",
    "MODEL.DEVICE": "cpu",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 64,
    "MODEL.MASK_FORMER.DEC_LAYERS": 4,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 16,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,  # of an untrained model, too
    "MODEL.RANKSEG.TOPK": TOPK,
    "MODEL.RANKSEG.HIDDEN_DIM": 64,
    "INPUT.MIN_SIZE_TRAIN": [48, 64],
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.CROP.SIZE": [64, 64],
    "INPUT.SIZE_DIVISIBILITY": 64,
    "INPUT.IMAGE_SIZE": 64,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 2,
    "TEST.EVAL_PERIOD": 0,
    "SEED": 3,
}


def small_config(name, output_dir, **keys):
    """A shipped config or a yaml, with a small model; in `keys`, two underscores are a dot."""
    keys = {key.replace("__", "."): value for key, value in keys.items()}
    keys = SMALL | {"OUTPUT_DIR": str(output_dir)} | keys
    return get_config(name, [word for pair in keys.items() for word in pair])


def train(cfg):
    """Train, and evaluate at the end: the results, as metrics.json has them."""
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    first, *_, last = map(json.loads, Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines())
    assert 0 < first["total_loss"] < math.inf
    return last


class Perfect(nn.Module):
    """Says what the labels of a data set say, in the format of the models' results."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        (name,) = cfg.DATASETS.TEST
        self.metadata = MetadataCatalog.get(name)
        self.records = {record["file_name"]: record for record in DatasetCatalog.get(name)}
        self.test = cfg.MODEL.MASK_FORMER.TEST

    def forward(self, batched_inputs):
        return [self.result(self.records[sample["file_name"]]) for sample in batched_inputs]

    def result(self, record):
        result, present = {}, set()
        if self.test.SEMANTIC_ON:
            labels, void = self.labels(record), self.metadata.ignore_label
            present |= set(np.unique(labels).tolist()) - {void}
            labels[labels == void] = 0  # a model says something everywhere
            result["sem_seg_labels"] = torch.from_numpy(labels)
        if self.test.PANOPTIC_ON:
            ids = read_ids(record["pan_seg_file_name"])
            segments = record["segments_info"]
            result["panoptic_seg"] = torch.from_numpy(ids), segments
        if self.test.INSTANCE_ON or self.test.ENTITY_ON:
            result["instances"] = objects = self.instances(record)
            if not present and "annotations" in record:
                present = {entry["category_id"] for entry in record["annotations"]}
            assert len(objects) <= self.cfg.TEST.DETECTIONS_PER_IMAGE
        if self.test.PARSING_ON:
            result["instances"] = self.persons(record)
            present.add(record["person_labels"].num_parts)
        return result | {"ranking": self.ranking(present)}

    def labels(self, record):
        """Class ids (H, W), and what is void."""
        if "sem_seg_file_name" not in record:
            return panoptic_labels(record, self.metadata.ignore_label)
        values = np.array(Image.open(record["sem_seg_file_name"]), np.int64)
        table = self.metadata.get("label_table")
        return values if table is None else np.asarray(table, np.int64)[values]

    def instances(self, record):
        size = record["height"], record["width"]
        if "annotations" in record:
            objects = [entry for entry in record["annotations"] if not entry["iscrowd"]]
            masks = [decode(entry["segmentation"], *size) for entry in objects]
        else:
            things = set(self.metadata.thing_dataset_id_to_contiguous_id.values())
            segments = record["segments_info"]
            objects = [entry for entry in segments if entry["category_id"] in things]
            objects = [entry for entry in objects if not entry["iscrowd"]]
            ids = read_ids(record["pan_seg_file_name"])
            masks = [ids == entry["id"] for entry in objects]
        masks = np.array(masks, bool).reshape(-1, *size)
        return Instances(
            size,
            pred_masks=torch.from_numpy(masks),
            pred_classes=torch.tensor([entry["category_id"] for entry in objects]),
            scores=torch.ones(len(objects)),
        )

    def persons(self, record):
        parts = torch.from_numpy(record["person_labels"].read())
        return Instances(parts.shape[1:], pred_parts=parts, scores=torch.ones(len(parts)))

    def ranking(self, present):
        """The categories that are there, and as many others as there is room for."""
        scores = torch.zeros(self.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
        scores[list(present)] = 1.0
        return {"scores": scores, "classes": scores.argsort(descending=True)[:TOPK]}


def panoptic_labels(record, ignore):
    """Class ids (H, W) of the segments, crowds too."""
    ids = read_ids(record["pan_seg_file_name"])
    labels = np.full(ids.shape, ignore, np.int64)
    for segment in record["segments_info"]:
        labels[ids == segment["id"]] = segment["category_id"]
    return labels


def read_ids(path):
    colors = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
    return colors @ np.array([1, 256, 65536])


def decode(segmentation, height, width):
    """Polygons or run lengths -> (H, W) bool."""
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    return mask_util.decode(segmentation).astype(bool)
