"""COCO's panoptic format: a json of segments, and one PNG per image with their ids as colours."""

from pathlib import Path

import numpy as np
from detectron2.utils.file_io import PathManager

from ...files import inside, read_json
from .file_lists import check_pairs, find
from .json_checks import check_facts, check_ids, check_size, entries
from .label_images import positions_of_ids, present_values


def load_panoptic(
    json_file: Path,
    panoptic_root: Path,
    images: dict[str, Path],
    labels: dict[str, Path] | None,
    metadata: dict,
    ending: str = "",
) -> list[dict]:
    """One record per annotation of the json, with contiguous category ids.

    Args:
        images: by key; the key of an annotation is the name of its PNG without `ending`.png.
        labels: semantic label maps by key; None: the records have none.
        metadata: what `panoptic_metadata` returns.
    """
    content = read_segments(json_file, panoptic_root)
    annotations = content["annotations"]
    sizes = {image["id"]: image for image in content["images"]}
    check_pngs(json_file, panoptic_root, [x["file_name"] for x in annotations])
    keys = [Path(x["file_name"]).stem.removesuffix(ending) for x in annotations]
    check_pairs(keys, images, images if labels is None else labels, str(json_file))
    known, things = (metadata[f"{x}_dataset_id_to_contiguous_id"] for x in ("stuff", "thing"))
    records = []
    for key, annotation in zip(keys, annotations, strict=True):
        record = {
            "file_name": str(images[key]),
            "image_id": annotation["image_id"],
            "pan_seg_file_name": str(panoptic_root / annotation["file_name"]),
            "segments_info": [
                segment
                | {
                    "category_id": contiguous_id(segment["category_id"], known, json_file),
                    "isthing": segment["category_id"] in things,
                }
                for segment in annotation["segments_info"]
            ],
        }
        if labels is not None:
            record["sem_seg_file_name"] = str(labels[key])
        if size := sizes.get(annotation["image_id"]):
            record |= {"height": size["height"], "width": size["width"]}
        records.append(record)
    return records


def read_segments(json_file: str | Path, panoptic_root: str | Path) -> dict:
    """The content of a COCO panoptic json; ValueError, with the entry, if something is wrong."""
    content = read_json(json_file, PathManager.open)
    needed = {"image_id", "file_name", "segments_info"}
    annotations = entries(content, "annotations", needed, json_file)
    check_ids((x["image_id"] for x in annotations), "annotations", json_file, "image_id")
    for annotation in annotations:
        _check_segments(annotation, panoptic_root, json_file)
    content.setdefault("images", [])
    images = entries(content, "images", {"id", "height", "width"}, json_file)
    check_ids((image["id"] for image in images), "images", json_file)
    for image in images:
        check_size(image, f"{json_file}: image {image['id']}")
    return content


def _check_segments(annotation: dict, panoptic_root: str | Path, json_file: str | Path) -> None:
    name = f"image {annotation['image_id']}"
    inside(panoptic_root, annotation["file_name"], f"{json_file}: the file_name of {name}")
    where = f"{json_file}: {name}"
    segments = entries(annotation, "segments_info", {"id", "category_id"}, where)
    check_ids((segment["id"] for segment in segments), f"segments of {name}", json_file)
    for segment in segments:
        check_facts(segment, f"{where}: segment {segment['id']}")
        if not isinstance(segment["id"], int) or not 0 < segment["id"] < 2**24:
            raise ValueError(f"{where} has the segment id {segment['id']!r}; ids are 1 to "
                             "16777215, as R + 256 G + 65536 B gives them")


def contiguous_id(category_id: int, known: dict[int, int], json_file: Path) -> int:
    """The contiguous id of a json's category id."""
    if category_id not in known:
        raise ValueError(
            f"{json_file} has category_id={category_id}, which is no class of this data set "
            f"(its ids are {min(known)} to {max(known)}); use the json of this data set"
        )
    return known[category_id]


def check_pngs(json_file: Path, panoptic_root: Path, names: list[str]) -> None:
    """Raise an error if the json names no PNG, or one that its folder does not have."""
    if not names:
        raise ValueError(f"{json_file} has no annotations; download it again")
    found = find(panoptic_root, "*.png")
    missing = [name for name in names if Path(name).stem not in found]
    if missing:
        raise FileNotFoundError(
            f"{panoptic_root} lacks {len(missing)} of the {len(names)} PNG files that {json_file} "
            f"names, such as {missing[0]}; unpack the archive again, or prepare both again"
        )


def ids_to_colors(ids: np.ndarray) -> np.ndarray:
    """(H, W) segment ids -> (H, W, 3) bytes of a panoptic PNG."""
    bytes_of_ids = ids.astype("<u4").view(np.uint8).reshape(*ids.shape, 4)
    return np.ascontiguousarray(bytes_of_ids[..., :3])


def regions(values: np.ndarray) -> dict[int, dict]:
    """`area` and `bbox` [x, y, width, height] of each value above 0 in a (H, W) map."""
    from scipy.ndimage import find_objects

    wanted = [value for value in present_values(values).tolist() if value > 0]
    numbers = positions_of_ids(values, wanted)  # (H, W), from 1
    areas = np.bincount(numbers.ravel(), minlength=len(wanted) + 1)[1:].tolist()
    boxes = [
        [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        for rows, columns in find_objects(numbers)
    ]
    triples = zip(wanted, areas, boxes, strict=True)
    return {value: {"area": area, "bbox": box} for value, area, box in triples}
