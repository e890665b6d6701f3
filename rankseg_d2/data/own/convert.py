"""`rankseg-d2 dataset convert`: label images, or a COCO instance json, of any own data set."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...files import inside, write_bytes, write_image, write_json
from ..formats import rle
from ..formats.image_files import image_size
from ..formats.label_images import read_label_map
from ..prepare.processes import run_jobs
from .description import OwnData
from .records import load_split
from .register import metadata_of
from .splits import Split


def convert(data: OwnData, output: Path, workers: int | None = None) -> Path:
    """Write the labels of a data set of images into a new folder; returns the path of its yaml.

    Images stay where they are. The folder must be empty: nothing is overwritten.
    """
    if data.kind not in ("semantic", "drawn", "instances"):
        raise ValueError(f"{data.path}: labels are {data.kind}; only labels of images, and no "
                         "panoptic ones, are converted")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder; name another --output, "
                              "because nothing is overwritten")
    records = {split: load_split(data, split) for split in data.splits}
    root = Path(os.path.commonpath([split.images for split in data.splits]))
    write = _write_objects if data.kind == "instances" else _write_label_maps
    keys = {"name": data.name, "images": _from(output, root)}
    if data.image_suffix:
        keys["image_suffix"] = data.image_suffix
    output.mkdir(parents=True, exist_ok=True)
    keys |= write(data, records, root, output, workers)
    path = output / f"{data.name}.yaml"
    text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_bytes(path, text.encode())
    return path


def _from(output: Path, path: Path) -> str:
    """The path relative to the folder of the new yaml; absolute if on another drive."""
    try:
        return Path(os.path.relpath(path, output)).as_posix()
    except ValueError:
        return path.as_posix()


def _name(record: dict, root: Path, ending: str = "") -> str:
    """The path of a record's image below `root`, without the ending (by default the extension)."""
    name = Path(os.path.relpath(record["file_name"], root)).as_posix()
    return name.removesuffix(ending) if ending else os.path.splitext(name)[0]


def _write_label_maps(
    data: OwnData, records: dict[Split, list[dict]], root: Path, output: Path,
    workers: int | None
) -> dict:
    """Write labels/<image>.png and a list of names per split; returns the keys of the yaml."""
    (output / "labels").mkdir()
    splits = {}
    for split, of_split in records.items():
        images = [_name(record, root, data.image_suffix) for record in of_split]
        if split.labels is None:
            splits[split.name] = {"images": _from(output, split.images), "labels": "none"}
            continue
        paths = [inside(output / "labels", f"{name}.png", str(split.labels)) for name in images]
        write = functools.partial(_write_label_map, metadata=metadata_of(data, split))
        jobs = list(zip(of_split, paths, strict=True))
        for _ in run_jobs(write, jobs, len(jobs), split.name, workers):
            pass
        write_bytes(output / f"{split.name}.txt", "".join(f"{n}\n" for n in images).encode())
        splits[split.name] = f"{split.name}.txt"
    return {"labels": "labels", "classes": _class_list(data), "splits": splits}


def _write_label_map(job: tuple[dict, Path], metadata: dict) -> None:
    record, path = job
    size = image_size(record["file_name"], "image") if metadata.get("resize_labels") else None
    labels = read_label_map(record["sem_seg_file_name"], metadata, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    highest = max(metadata["ignore_label"], len(metadata["stuff_classes"]) - 1)
    write_image(path, labels.astype(np.uint8 if highest < 256 else np.uint16))


def _write_objects(
    data: OwnData, records: dict[Split, list[dict]], root: Path, output: Path,
    workers: int | None
) -> dict:
    """Write one COCO instance json per split; returns the keys of the yaml."""
    splits = {}
    for split, of_split in records.items():
        if split.labels is None:
            splits[split.name] = {"images": _from(output, split.images), "labels": "none"}
            continue
        images, annotations = [], []
        for number, (record, notes) in enumerate(
            run_jobs(_coco_annotations, of_split, len(of_split), split.name, workers), 1
        ):
            name = _name(record, root) + Path(record["file_name"]).suffix
            inside(root, name, str(split.labels))
            images.append({"id": number, "file_name": name, "height": record["height"],
                           "width": record["width"]})
            annotations += [note | {"id": len(annotations) + i, "image_id": number}
                            for i, note in enumerate(notes, 1)]
        categories = [{"id": i, "name": entry.name}
                      | ({"color": list(entry.color)} if entry.color else {})
                      for i, entry in enumerate(data.classes, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(output / f"{split.name}.json", content)
        splits[split.name] = {"labels": f"{split.name}.json"}
    return {"splits": splits}


def _coco_annotations(record: dict) -> list[dict]:
    """The objects of a record in COCO's form, without ids; category ids count from 1."""
    notes = []
    for note in record["annotations"]:
        shape = note.get("segmentation")
        if not shape:
            continue
        mask = rle.to_rle(shape, record["height"], record["width"])
        notes.append({
            "category_id": note["category_id"] + 1,
            "segmentation": shape if isinstance(shape, list) else rle.as_text(mask),
            "bbox": rle.box(mask),
            "area": int(rle.areas([mask])[0]),
            "iscrowd": int(note.get("iscrowd", 0)),
        })
    return notes


def _class_list(data: OwnData) -> Sequence[Any]:
    """The classes as a yaml has them."""
    if data.classes[0].color is None:
        return [entry.name for entry in data.classes]
    return [{"name": entry.name, "color": list(entry.color)} for entry in data.classes]
