"""A small data set on disk with all kinds of ground truth, and predictions with errors."""

import json

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from rankseg_d2.evaluation.confusion import Confusion
from rankseg_d2.modeling.results.segments import mask_boxes

# Ids of the data set have gaps, and things are not the first contiguous ids.
CATEGORIES = [
    {"id": 4, "name": "sky", "isthing": 0},
    {"id": 7, "name": "cat", "isthing": 1},
    {"id": 9, "name": "grass", "isthing": 0},
    {"id": 12, "name": "dog", "isthing": 1},
    {"id": 20, "name": "sand", "isthing": 0},
    {"id": 21, "name": "unicorn", "isthing": 1},  # in no image
    {"id": 33, "name": "snow", "isthing": 0},  # in no image
]
NAMES = [category["name"] for category in CATEGORIES]
CLASSES = len(NAMES)
CONTIGUOUS = {7: 1, 12: 3}  # things: id in the data set -> contiguous id
IGNORE = 255


def draw(rng, height=60, width=80):
    """Segment ids (H, W) and segments_info with ids of the data set.

    With pixels of no segment, crowds (also two of one category), stuff without a visible pixel, and
    areas that differ from the map.
    """
    ids, infos = np.zeros((height, width), np.int32), []
    numbers = iter(rng.choice(np.arange(1, 70_000), 40, replace=False).tolist())

    def paint(category, region, is_crowd=0):
        number = next(numbers)
        ids[region] = number
        area = int((ids == number).sum())
        infos.append({"id": number, "category_id": category, "iscrowd": is_crowd, "area": area})

    for i, category in enumerate([4, 9, 20]):
        paint(category, np.s_[5 + 15 * i : 20 + 15 * i, 3:])
    for _ in range(rng.integers(1, 9)):
        paint(int(rng.choice([7, 12])), box(rng, height, width), int(rng.random() < 0.3))
    if rng.random() < 0.5:
        ids[box(rng, height, width)] = 0
    return ids, infos


def box(rng, height, width):
    y, x = rng.integers(0, height - 12), rng.integers(0, width - 12)
    return np.s_[y : y + rng.integers(4, 45), x : x + rng.integers(4, 45)]


def predict(rng, ids, infos):
    """A wrong copy of a scene: detectron2's panoptic_seg, with contiguous ids."""
    result, segments = np.zeros_like(ids), []
    contiguous = {category["id"]: i for i, category in enumerate(CATEGORIES)}
    for number, info in enumerate(infos, 1):
        mask, category = ids == info["id"], contiguous[info["category_id"]]
        if rng.random() < 0.15:
            continue  # missed
        if rng.random() < 0.2:
            category = int(rng.integers(len(CATEGORIES)))
        mask = np.roll(mask, rng.integers(-5, 6, 2), (0, 1))
        result[mask] = number
        if rng.random() < 0.2:  # cut in two
            result[mask & (np.arange(mask.shape[1]) % 50 < rng.integers(5, 30))] = number + 100
            segments.append((number + 100, category))
        segments.append((number, category))
    invented = box(rng, *ids.shape)
    result[invented] = 999
    segments.append((999, int(rng.integers(len(CATEGORIES)))))
    segments = [
        {"id": number, "category_id": category, "isthing": bool(CATEGORIES[category]["isthing"])}
        for number, category in segments
        if (result == number).any()
    ]
    return torch.from_numpy(result), segments


def to_labels(ids, infos):
    contiguous = {category["id"]: i for i, category in enumerate(CATEGORIES)}
    labels = np.full(ids.shape, IGNORE, np.uint8)
    for info in infos:
        labels[ids == info["id"]] = contiguous[info["category_id"]]
    return labels


def to_rgb(ids):
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def metadata_of(folder):
    return {
        "stuff_classes": NAMES,
        "thing_classes": [c["name"] for c in CATEGORIES if c["isthing"]],
        "stuff_dataset_id_to_contiguous_id": {c["id"]: i for i, c in enumerate(CATEGORIES)},
        "thing_dataset_id_to_contiguous_id": {
            c["id"]: i for i, c in enumerate(CATEGORIES) if c["isthing"]
        },
        "ignore_label": IGNORE,
        "label_divisor": 1000,
        "panoptic_root": str(folder / "panoptic"),
        "panoptic_json": str(folder / "panoptic.json"),
        "json_file": str(folder / "instances.json"),
        "evaluator_type": "ade20k_panoptic_seg",
    }


def write(folder, count=12, seed=0):
    """Write a data set; its records and metadata."""
    rng = np.random.default_rng(seed)
    for name in ("panoptic", "labels"):
        (folder / name).mkdir(parents=True)
    records, annotations, contiguous = [], [], {c["id"]: i for i, c in enumerate(CATEGORIES)}
    instances = {
        "images": [],
        "annotations": [],
        "categories": [c for c in CATEGORIES if c["isthing"]],
    }
    for i in range(count):
        ids, infos = draw(rng, 60 + i)
        Image.fromarray(to_rgb(ids)).save(folder / f"panoptic/{i}.png")
        Image.fromarray(to_labels(ids, infos)).save(folder / f"labels/{i}.png")
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
        size = {"height": ids.shape[0], "width": ids.shape[1]}
        instances["images"].append(size | {"id": i, "file_name": f"{i}.jpg"})
        instances["annotations"] += instance_annotations(ids, infos, i)
        record = {
            "file_name": f"{i}.jpg",
            "image_id": i,
            "pan_seg_file_name": f"{folder}/panoptic/{i}.png",
        }
        record["sem_seg_file_name"] = f"{folder}/labels/{i}.png"
        record["segments_info"] = [
            info | {"category_id": contiguous[info["category_id"]]} for info in infos
        ]
        records.append(record | size)
    content = {"annotations": annotations, "categories": CATEGORIES, "images": instances["images"]}
    (folder / "panoptic.json").write_text(json.dumps(content))
    (folder / "instances.json").write_text(json.dumps(instances))
    return records, metadata_of(folder)


def instance_annotations(ids, infos, image_id):
    """COCO annotations of the things; the first has the id 0, which COCOeval takes for no match."""
    from pycocotools import mask as mask_util

    annotations = []
    for info in infos:
        mask = ids == info["id"]
        if info["category_id"] not in (7, 12) or not mask.any():
            continue
        rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
        extent = mask_util.toBbox(rle).tolist()
        rle["counts"] = rle["counts"].decode()
        facts = {key: info[key] for key in ("category_id", "iscrowd")}
        facts |= {"id": 1000 * image_id + len(annotations), "image_id": image_id}
        annotations.append(facts | {"segmentation": rle, "bbox": extent, "area": int(mask.sum())})
    return annotations


def register(name, records, metadata):
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)


def unregister(name):
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def registered(name, folder):
    """Write and register a data set; yields its records, and unregisters it afterwards."""
    records, metadata = write(folder)
    register(name, records, metadata)
    yield records
    unregister(name)


def run_evaluator(evaluator, records, outputs, batch=5):
    """The results of an evaluator that gets the images in batches."""
    evaluator.reset()
    for i in range(0, len(records), batch):
        evaluator.process(records[i : i + batch], outputs[i : i + batch])
    return evaluator.evaluate()


def read_scene(record):
    """The segment ids and infos (ids of the data set) of a record."""
    rgb = np.asarray(Image.open(record["pan_seg_file_name"])).astype(np.int32)
    infos = [
        info | {"category_id": CATEGORIES[info["category_id"]]["id"]}
        for info in record["segments_info"]
    ]
    return rgb @ [1, 256, 65536], infos


def panoptic_outputs(records, seed=1):
    rng = np.random.default_rng(seed)
    return [{"panoptic_seg": predict(rng, *read_scene(record))} for record in records]


def ground_truth_as_prediction(record):
    """A prediction equal to the ground truth, crowds included."""
    ids, infos = read_scene(record)
    contiguous = {category["id"]: i for i, category in enumerate(CATEGORIES)}
    segments = [
        {"id": info["id"], "category_id": contiguous[info["category_id"]]}
        for info in infos
        if (ids == info["id"]).any()
    ]
    return {"panoptic_seg": (torch.from_numpy(ids), segments)}


def enlarged_output(ids, categories):
    """A prediction, 10 x 10 pixels for each id; `categories` (contiguous) by id."""
    ids = torch.tensor(ids).repeat_interleave(10, 0).repeat_interleave(10, 1)
    segments = [{"id": i, "category_id": category} for i, category in categories.items()]
    return {"panoptic_seg": (ids, segments)}


def instance_outputs(records, seed=0):
    """Shifted copies of the true masks, some of another class, some twice, and random masks."""
    rng, outputs = np.random.default_rng(seed), []
    for record in records:
        ids, infos = read_scene(record)
        masks, classes = [rng.random(ids.shape) < 0.01], [3]
        for info in infos:
            if info["category_id"] in CONTIGUOUS:
                for _ in range(rng.integers(0, 3)):
                    shift = rng.integers(-2, 3, 2)
                    masks.append(np.roll(ids == info["id"], shift, (0, 1)))
                    wrong = rng.random() < 0.1
                    classes.append(1 if wrong else CONTIGUOUS[info["category_id"]])
        masks = torch.from_numpy(np.stack(masks))
        scores = torch.from_numpy(rng.random(len(masks))).float()
        outputs.append({"instances": to_instances(masks, scores, torch.tensor(classes))})
    return outputs


def to_instances(masks, scores, classes):
    order = scores.argsort(descending=True)
    boxes = Boxes(mask_boxes(masks[order]))
    return Instances(
        tuple(masks.shape[1:]),
        pred_masks=masks[order],
        pred_boxes=boxes,
        scores=scores[order],
        pred_classes=classes[order],
    )


def ranking_outputs(count, seed=0):
    """Random scores, and a different number of kept categories in each image."""
    random = torch.Generator().manual_seed(seed)
    outputs = []
    for i in range(count):
        scores = torch.randn(CLASSES, generator=random)
        kept = scores.argsort(descending=True)[: 1 + i % 4]
        outputs.append({"ranking": {"scores": scores, "classes": kept}})
    return outputs


def labels_of(record):
    return np.asarray(Image.open(record["sem_seg_file_name"])).astype(int)


def score_maps(records, seed=0):
    """Scores (C, H, W) near the ground truth; unicorns are predicted, but no image has one."""
    random = torch.Generator().manual_seed(seed)
    outputs = []
    for record in records:
        labels = torch.from_numpy(labels_of(record))
        one_hot = torch.nn.functional.one_hot(labels.where(labels < CLASSES, 0), CLASSES)
        scores = one_hot.permute(2, 0, 1) + 0.7 * torch.randn(
            CLASSES, *labels.shape, generator=random
        )
        outputs.append({"sem_seg": scores})
    return outputs


def confusion_of(matrix):
    """That of a table (C, C + 1) of pixels."""
    found = Confusion(len(matrix))
    found.add(*matrix.nonzero(), matrix[matrix.nonzero()])
    return found
