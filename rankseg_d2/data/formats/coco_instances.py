"""COCO's instance format, with the contiguous ids of the class lists."""

from pathlib import Path

from detectron2.data.datasets import load_coco_json

from .coco_panoptic import contiguous_id


def instance_metadata(classes: list[dict]) -> dict:
    """Metadata of the things only: their contiguous ids are 0..N-1 in the order of the list."""
    things = [entry for entry in classes if entry["isthing"]]
    return {
        "thing_classes": [entry["name"].strip() for entry in things],
        "thing_colors": [entry["color"] for entry in things],
        "thing_dataset_id_to_contiguous_id": {x["id"]: i for i, x in enumerate(things)},
    }


def load_instances(json_file: Path, image_root: Path, metadata: dict) -> list[dict]:
    """Records of a COCO instance json, with contiguous category ids."""
    if not json_file.is_file():
        raise FileNotFoundError(
            f"{json_file} does not exist; datasets/README.md says where to get it"
        )
    records = load_coco_json(str(json_file), str(image_root))  # category ids are the json's
    known = metadata["thing_dataset_id_to_contiguous_id"]
    for record in records:
        for annotation in record["annotations"]:
            annotation["category_id"] = contiguous_id(annotation["category_id"], known, json_file)
    return records
