"""COCO's instance format, with the contiguous ids of the class lists."""

import logging
from pathlib import Path

from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ...files import inside, read_json
from . import rle
from .coco_panoptic import contiguous_id
from .json_checks import check_facts, check_ids, check_masks_of, check_size, entries, owner, usable

logger = logging.getLogger(__name__)


def instance_metadata(classes: list[dict]) -> dict:
    """Metadata of the things only: their contiguous ids are 0..N-1 in the order of the list."""
    things = [entry for entry in classes if entry["isthing"]]
    return {
        "thing_classes": [entry["name"].strip() for entry in things],
        "thing_colors": [entry["color"] for entry in things],
        "thing_dataset_id_to_contiguous_id": {x["id"]: i for i, x in enumerate(things)},
    }


def load_instances(json_file: Path, image_root: Path, metadata: dict) -> list[dict]:
    """Records of a COCO instance json, by ascending image id, with contiguous category ids.

    As in detectron2, annotations whose polygons all have fewer than 3 corners are left out.
    """
    content = read_instances(json_file)
    known, left_out = metadata["thing_dataset_id_to_contiguous_id"], 0
    records = {}
    for image in sorted(content["images"], key=lambda image: image["id"]):
        where = f"{json_file}: the file_name of image {image['id']}"
        records[image["id"]] = {
            "file_name": str(inside(image_root, image.get("file_name"), where)),
            "height": int(image["height"]),
            "width": int(image["width"]),
            "image_id": image["id"],
            "annotations": [],
        }
    for annotation in content["annotations"]:
        record = owner(annotation, "image_id", records)
        shape = annotation.get("segmentation")
        kept = usable(shape)
        if record is None or (shape and not kept):
            left_out += 1
            continue
        facts = {key: annotation[key] for key in ("iscrowd", "bbox") if key in annotation}
        facts["category_id"] = contiguous_id(annotation["category_id"], known, json_file)
        if shape:
            facts["segmentation"] = rle.compressed(kept) if isinstance(kept, dict) else kept
        record["annotations"].append(facts | {"bbox_mode": BoxMode.XYWH_ABS})
    if left_out:
        text = "%s: left out %d annotations without a valid polygon, or of no image of the file"
        logger.warning(text, json_file, left_out)
    return list(records.values())


def read_instances(json_file: str | Path, is_exact: bool = False) -> dict:
    """The content of a COCO instance json; ValueError, with the entry, if something is wrong.

    is_exact: for an evaluation; it needs annotations, and no polygon of fewer than 3 corners.
    """
    content = read_json(json_file, PathManager.open)
    images = entries(content, "images", {"id", "height", "width"}, json_file)
    if not is_exact:
        content.setdefault("annotations", [])
    annotations = entries(content, "annotations", {"image_id"}, json_file)
    if annotations and "segments_info" in annotations[0]:
        raise ValueError(f"{json_file} is not a COCO instance json, but a panoptic one; in the "
                         "yaml of a data set, write labels: {json: ..., folder: ...}")
    entries(content, "annotations", {"id", "image_id", "category_id"}, json_file)
    check_ids((image["id"] for image in images), "images", json_file)
    if "minival" not in str(json_file):  # COCO's of 2014, in wide use, is known for repeated ids
        check_ids((annotation["id"] for annotation in annotations), "annotations", json_file)
    size_of = {}
    for image in images:
        check_size(image, f"{json_file}: image {image['id']}")
        size_of[image["id"]] = image["height"], image["width"]
    named, sizes = [], []
    for annotation in annotations:
        name = f"annotation {annotation['id']} of image {annotation['image_id']}"
        check_facts(annotation, f"{json_file}: {name}")
        if annotation.get("ignore", 0):
            raise ValueError(f"{json_file}: {name} has 'ignore'; remove it, or mark it as iscrowd")
        shape = annotation.get("segmentation")
        shape = shape if is_exact else usable(shape)
        size = owner(annotation, "image_id", size_of)
        if shape and size:
            named.append((name, shape))
            sizes.append(size)
    check_masks_of(named, sizes, json_file)
    return content
