"""The true instances of a data set as COCO content, from its json or from its records."""

from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ...data.formats import rle
from ...files import read_json


class InstanceTruth(NamedTuple):
    """What pycocotools evaluates against."""

    content: dict  # images, annotations, categories, as in COCO's json
    dataset_ids: dict[int, int]  # contiguous category id -> id in `content`
    num_classes: int  # contiguous ids that a model may predict, stuff included


def load_truth(dataset_name: str) -> InstanceTruth:
    """From the metadata's `json_file`, or else from the records' annotations."""
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("json_file"):
        content = read_json(metadata.json_file, PathManager.open)
        if "annotations" not in content:
            raise ValueError(
                f"{metadata.json_file} has no annotations, so AP cannot be computed; evaluate a "
                "split with public ground truth"
            )
        own = sorted(category["id"] for category in content["categories"])
        known = {dataset_id: i for i, dataset_id in enumerate(own)}
        ids = metadata.get("thing_dataset_id_to_contiguous_id", known)
        dataset_ids = {ids[dataset_id]: dataset_id for dataset_id in own if dataset_id in ids}
    else:
        content = content_of_records(dataset_name, metadata)
        dataset_ids = {category["id"]: category["id"] for category in content["categories"]}
    for number, annotation in enumerate(content["annotations"], 1):
        annotation["id"] = number  # COCOeval takes the id 0 for "not matched"
    counts = [len(metadata.get(key, ())) for key in ("stuff_classes", "thing_classes")]
    return InstanceTruth(content, dataset_ids, max(*counts, len(dataset_ids)))


def content_of_records(dataset_name: str, metadata) -> dict:
    """Records have contiguous category ids; areas are counted in pixels."""
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    things = range(len(metadata.thing_classes)) if ids is None else sorted(ids.values())
    all_names = metadata.get("stuff_classes", metadata.thing_classes)
    names = metadata.thing_classes if max(things) < len(metadata.thing_classes) else all_names
    images, annotations = [], []
    for record in DatasetCatalog.get(dataset_name):
        size = {"height": record["height"], "width": record["width"]}
        images.append({"id": record["image_id"]} | size)
        for annotation in record.get("annotations", ()):
            annotations.append(coco_annotation(annotation, record))
    categories = [{"id": thing, "name": names[thing]} for thing in things]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_annotation(annotation: dict, record: dict) -> dict:
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
