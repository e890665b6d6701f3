"""Records of COCO panoptic annotations."""

import functools
import json
import os

from ...utils.file_io import PathManager
from ..catalog import DatasetCatalog, MetadataCatalog


def load_coco_panoptic_json(json_file, image_dir, gt_dir, meta):
    """One record per image: file_name, image_id, pan_seg_file_name, segments_info.

    `meta` maps ids of the file to contiguous ones: "thing_dataset_id_to_contiguous_id" and
    "stuff_dataset_id_to_contiguous_id"; what the first knows is a thing. Images are *.jpg.
    """
    with PathManager.open(json_file) as f:
        annotations = json.load(f)["annotations"]
    if not annotations:
        raise ValueError(f"{json_file} has no annotations")
    records = []
    for annotation in annotations:
        name = annotation["file_name"]
        record = {
            "file_name": os.path.join(image_dir, os.path.splitext(name)[0] + ".jpg"),
            "image_id": int(annotation["image_id"]),
            "pan_seg_file_name": os.path.join(gt_dir, name),
            "segments_info": [_convert(s, meta, json_file) for s in annotation["segments_info"]],
        }
        records.append(record)
    for key in ("file_name", "pan_seg_file_name"):
        if not PathManager.isfile(records[0][key]):
            raise FileNotFoundError(f"{json_file} names {records[0][key]}, which is not there")
    return records


def _convert(segment, meta, json_file):
    category = segment["category_id"]
    things = meta["thing_dataset_id_to_contiguous_id"]
    known = things if category in things else meta["stuff_dataset_id_to_contiguous_id"]
    if category not in known:
        raise KeyError(f"{json_file}: category_id={category} is in no id map of the metadata")
    return segment | {"category_id": known[category], "isthing": known is things}


def register_coco_panoptic(
    name, metadata, image_root, panoptic_root, panoptic_json, instances_json=None
):
    """Register panoptic annotations in COCO's format; `metadata` holds at least the id maps."""
    roots = (panoptic_json, image_root, panoptic_root)
    DatasetCatalog.register(name, functools.partial(load_coco_panoptic_json, *roots, metadata))
    MetadataCatalog.get(name).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        label_divisor=1000,
        **metadata,
    )
