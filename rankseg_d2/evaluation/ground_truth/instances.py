"""Ground-truth instances of a data set in the form of COCO's json."""

from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ...data.formats import rle
from ...data.formats.coco_instances import read_instances
from ...data.formats.json_checks import check_ids, entries
from ...data.formats.mask_checks import check_masks


class InstanceGroundTruth(NamedTuple):
    """What COCOeval compares predictions with."""

    content: dict  # images, annotations, categories, as in COCO's json
    dataset_ids: dict[int, int]  # contiguous category id -> id in `content`
    num_classes: int  # contiguous ids that a model may predict, stuff included


def load_instances(dataset_name: str) -> InstanceGroundTruth:
    """The instances of the metadata's `json_file` or, without one, of the records."""
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file"):
        content = _read_json(str(metadata.json_file))
        own = sorted(category["id"] for category in content["categories"])
        known = {dataset_id: i for i, dataset_id in enumerate(own)}
        ids = metadata.get("thing_dataset_id_to_contiguous_id", known)
        dataset_ids = {ids[dataset_id]: dataset_id for dataset_id in own if dataset_id in ids}
    else:
        content = _content_of_records(dataset_name, metadata)
        dataset_ids = {category["id"]: category["id"] for category in content["categories"]}
    for number, annotation in enumerate(content["annotations"], 1):
        annotation["id"] = number  # COCOeval takes the id 0 for "not matched"
    counts = [len(metadata.get(key, ())) for key in ("stuff_classes", "thing_classes")]
    return InstanceGroundTruth(content, dataset_ids, max(*counts, len(dataset_ids)))


def _read_json(path: str) -> dict:
    content = read_instances(path, is_exact=True)
    categories = entries(content, "categories", {"id", "name"}, path)
    check_ids((category["id"] for category in categories), "categories", path)
    for annotation in content["annotations"]:
        if lacks := {"area", "iscrowd"} - annotation.keys():
            raise ValueError(f"{path}: annotation {annotation['id']} has no {min(lacks)}, which AP "
                             "needs; add it")
    return content


def _content_of_records(dataset_name: str, metadata) -> dict:
    """The annotations of the records, which have contiguous category ids."""
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    things = range(len(metadata.thing_classes)) if ids is None else sorted(ids.values())
    all_names = metadata.get("stuff_classes", metadata.thing_classes)
    names = metadata.thing_classes if max(things) < len(metadata.thing_classes) else all_names
    images, annotations = [], []
    for record in DatasetCatalog.get(dataset_name):
        size = {"height": record["height"], "width": record["width"]}
        images.append({"id": record["image_id"]} | size)
        found = record.get("annotations", ())
        check_masks(found, (record["height"], record["width"]), str(record["image_id"]))
        annotations += [coco_annotation(annotation, record) for annotation in found]
    categories = [{"id": thing, "name": names[thing]} for thing in things]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_annotation(annotation: dict, record: dict) -> dict:
    """A record's annotation in COCO's format; without an `area`, its pixels are counted."""
    mask = rle.to_rle(annotation["segmentation"], record["height"], record["width"])
    box = rle.box(mask)
    if "bbox" in annotation:
        box = BoxMode.convert(
            list(map(float, annotation["bbox"])), annotation["bbox_mode"], BoxMode.XYWH_ABS
        )
    return {
        "image_id": record["image_id"],
        "category_id": annotation["category_id"],
        "segmentation": mask,
        "bbox": box,
        "area": float(annotation.get("area", rle.areas([mask])[0])),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
