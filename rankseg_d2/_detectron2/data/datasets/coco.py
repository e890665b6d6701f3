"""Records of COCO instance annotations, and of folders of images and label maps."""

import functools
import json
import logging
import os
from collections import Counter

from ...structures import BoxMode
from ...utils.file_io import PathManager
from ..catalog import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)


def register_coco_instances(name, metadata, json_file, image_root):
    """Register instances in COCO's json format; `metadata` is a dict of further facts."""
    DatasetCatalog.register(name, functools.partial(load_coco_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


def load_coco_json(json_file, image_root, dataset_name=None, extra_annotation_keys=None):
    """One record per image of a COCO instances json, by ascending image id.

    With a `dataset_name`, category ids become 0..C-1 in ascending order, and that data set's
    metadata gets thing_classes and thing_dataset_id_to_contiguous_id; without, they stay.
    `extra_annotation_keys` are copied from each annotation besides the usual ones. Annotations
    whose polygons are all invalid are left out.
    """
    with PathManager.open(json_file, encoding="utf-8-sig") as f:
        content = json.load(f)
    id_map = None
    if dataset_name is not None:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        id_map = {category["id"]: i for i, category in enumerate(categories)}
        MetadataCatalog.get(dataset_name).set(
            thing_classes=[category["name"] for category in categories],
            thing_dataset_id_to_contiguous_id=id_map,
        )
    counts = Counter(image["id"] for image in content["images"])
    if twice := [number for number, count in counts.items() if count > 1]:
        raise ValueError(f"{json_file}: several images have the id {twice[0]}; make ids unique")
    records = {}
    for image in sorted(content["images"], key=lambda image: image["id"]):
        path = os.path.join(image_root, image["file_name"])
        record = {"file_name": path, "height": image["height"], "width": image["width"]}
        records[image["id"]] = record | {"image_id": image["id"], "annotations": []}
    annotations = content.get("annotations", [])
    # COCO's minival files of 2014, in wide use, are known for ids that occur twice.
    if annotations and "minival" not in str(json_file):
        number, count = Counter(a["id"] for a in annotations).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{json_file}: {count} annotations have id {number}; make ids unique")
    keys = ["iscrowd", "bbox", "category_id", *(extra_annotation_keys or [])]
    for annotation in annotations:
        record = records.get(annotation["image_id"])
        converted = record and _convert_annotation(annotation, keys, id_map, json_file)
        if converted:
            record["annotations"].append(converted)
    if unused := len(annotations) - sum(len(r["annotations"]) for r in records.values()):
        text = "%s: left out %d annotations without a valid polygon, or of no image of the file"
        logger.warning(text, json_file, unused)
    logger.info("loaded %d images in COCO format from %s", len(records), json_file)
    return list(records.values())


def _convert_annotation(annotation, keys, id_map, json_file):
    """The record's form of one annotation; None when it has no valid polygon."""
    where = f"{json_file}: annotation {annotation['id']} of image {annotation['image_id']}"
    if annotation.get("ignore", 0):
        raise ValueError(f"{where} has 'ignore'; remove it, or mark it as 'iscrowd'")
    converted = {key: annotation[key] for key in keys if key in annotation}
    if "bbox" in converted and not converted["bbox"]:
        raise ValueError(f"{where} has an empty 'bbox'; it must be [x, y, width, height]")
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            from pycocotools import mask as mask_util

            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
    elif segmentation:
        segmentation = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
        if not segmentation:
            return None
    if segmentation:
        converted["segmentation"] = segmentation
    converted["bbox_mode"] = BoxMode.XYWH_ABS
    if id_map is not None:
        if (number := converted["category_id"]) not in id_map:
            raise KeyError(f"{where} has category_id={number}, which 'categories' does not name")
        converted["category_id"] = id_map[number]
    return converted


def load_sem_seg(gt_root, image_root, gt_ext="png", image_ext="jpg"):
    """One record per pair of image and label map: {file_name, sem_seg_file_name}.

    Files pair up in the order of their names without extension. If one folder has more than the
    other, only the names that both have are taken.
    """
    images, labels = _files_by_name(image_root, image_ext), _files_by_name(gt_root, gt_ext)
    if not labels:
        raise FileNotFoundError(f"no label map *{gt_ext} is in {gt_root}; is it prepared?")
    if len(images) != len(labels):
        both = sorted(images.keys() & labels.keys())
        text = "%s has %d files, %s has %d: the %d names in both are taken"
        logger.warning(text, image_root, len(images), gt_root, len(labels), len(both))
        images, labels = ({name: files[name] for name in both} for files in (images, labels))
    pairs = zip(images.values(), labels.values(), strict=True)
    records = [{"file_name": image, "sem_seg_file_name": label} for image, label in pairs]
    logger.info("loaded %d images with label maps from %s", len(records), image_root)
    return records


def _files_by_name(root, extension):
    """Name without extension -> path, by ascending name."""
    files = [name for name in PathManager.ls(root) if name.endswith(extension)]
    return dict(sorted((os.path.splitext(name)[0], os.path.join(root, name)) for name in files))
