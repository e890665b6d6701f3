"""Convert ADE20K's label and instance maps to label maps, panoptic segments and instance masks."""

import functools
from pathlib import Path

import numpy as np

from ...files import write_image
from ..classes import load_classes
from ..formats import rle
from ..formats.coco_panoptic import ids_to_colors, regions
from ..formats.image_files import read_labels
from ..formats.label_images import present_values, read_values
from .job import Job, map_values

IGNORE = 255
_ID_STEP = 0x1D0713  # between segment ids of a class: their colours differ visibly


def convert_labels(job: Job) -> None:
    """Write the label map: raw 1 to 150 become 0 to 149, 0 becomes IGNORE."""
    (source,) = job.sources
    table = np.append(IGNORE, np.arange(150))
    write_image(job.target, table[_read_semantic(source)].astype(np.uint8))


def convert_panoptic(job: Job) -> dict:
    """Write the panoptic PNG, instances over stuff; returns the image and annotation for the json.

    As in the published json, `area` and `bbox` of stuff include what instances hide, and a segment
    that they hide completely stays in the json. With `visible_area` only visible pixels count.
    """
    (semantic_file, instance_file), (visible_area,) = job.sources, job.args
    classes = _classes_by_id()
    semantic = _read_semantic(semantic_file)
    instances, category_of = _read_instances(instance_file)  # (H, W); {instance: category}
    if semantic.shape != instances.shape:
        raise ValueError(
            f"{semantic_file} has the size {semantic.shape} (height, width), but {instance_file} "
            f"has {instances.shape}; download both again"
        )
    present = present_values(semantic).tolist()
    category_of_value = {v: v - 1 for v in present if v and not classes[v - 1]["isthing"]}
    id_map, segments, taken = np.zeros(semantic.shape, np.int32), [], {0}
    for values, categories in ((semantic, category_of_value), (instances, category_of)):
        measured = regions(values)
        table = np.zeros(values.max() + 1, np.int32)  # value -> segment id
        for value, category in categories.items():
            table[value] = _unused_id(classes[category]["color"], taken)
            facts = {"id": int(table[value]), "category_id": category, "iscrowd": 0}
            segments.append(facts | measured[value])
        id_map = np.where(table[values] > 0, table[values], id_map)
    if visible_area:
        visible = regions(id_map)
        segments = [s | visible[s["id"]] for s in segments if s["id"] in visible]
    write_image(job.target, ids_to_colors(id_map))
    name = job.target.stem
    annotation = {"image_id": name, "file_name": job.target.name, "segments_info": segments}
    return {"image": _image_entry(name, semantic), "annotations": [annotation]}


def convert_instances(job: Job) -> dict:
    """The image and its instances, for the json."""
    (source,) = job.sources
    instances, category_of = _read_instances(source)
    measured = regions(instances)
    annotations = []
    for instance, category in category_of.items():
        facts = {"image_id": source.stem, "category_id": category, "iscrowd": 0}
        facts["segmentation"] = rle.as_text(rle.encode(instances == instance))
        annotations.append(facts | measured[instance])
    return {"image": _image_entry(source.stem, instances), "annotations": annotations}


def _read_semantic(path: Path) -> np.ndarray:
    """The class of each pixel, 1 to 150, 0 for ignored: (H, W)."""
    return map_values(read_values(str(path)), np.arange(151), path, "0 (ignored) to 150")


def _read_instances(path: Path) -> tuple[np.ndarray, dict[int, int]]:
    """The instance of each pixel, 0 for none: (H, W) int32; and the category of each instance."""
    image = read_labels(str(path), "instance map").convert("RGB")
    pixels = np.asarray(image, np.int32)  # (H, W, 3): class, instance, unused
    classes, instances = pixels[..., 0], pixels[..., 1]
    pairs = present_values((256 * instances + classes)[instances > 0]).tolist()
    entries = _classes_by_id().values()
    ids = {entry["instance100_id"]: entry["id"] for entry in entries if entry["isthing"]}
    category_of = {pair // 256: ids.get(pair % 256) for pair in pairs}
    if len(category_of) < len(pairs) or None in category_of.values():
        raise ValueError(
            f"{path} is no instance map of ADE20K: red must be a class, 1 to 100, green an "
            "instance, and each instance has one class; download annotations_instance again"
        )
    return instances, category_of


def _unused_id(color: list[int], taken: set[int]) -> int:
    """A free segment id: the class's colour, or a colour far from it; adds it to `taken`."""
    segment_id = color[0] + 256 * color[1] + 65536 * color[2]
    while segment_id in taken:
        segment_id = (segment_id + _ID_STEP) % 2**24
    taken.add(segment_id)
    return segment_id


def _image_entry(name: str, values: np.ndarray) -> dict:
    height, width = values.shape
    return {"id": name, "file_name": f"{name}.jpg", "height": height, "width": width}


@functools.cache
def _classes_by_id() -> dict[int, dict]:
    return {entry["id"]: entry for entry in load_classes("ade20k_panoptic_150")}
