"""Results in the forms of other tools: plain JSON, COCO, Hugging Face, supervision.

`result` is an ImageResult, whose methods these are.
"""

from pathlib import PurePath
from typing import Any

import numpy as np

from ..data.formats import rle


def to_dict(result: Any) -> dict[str, Any]:
    """Plain JSON types, one line of `rankseg-d2 predict --json`."""
    height, width = result.size
    found: dict[str, Any] = {
        "name": result.name,
        "path": result.path,
        "height": height,
        "width": width,
        "classes": share_rows(result),
    }
    if result.panoptic is not None:
        found["segments"] = [
            {**named(result, s["category_id"]), "id": s["id"], "isthing": bool(s["isthing"]),
             "score": _score(s)}
            for s in result.panoptic.segments
        ]  # fmt: skip
    if result.instances is not None:
        found["instances"] = to_coco_instances(result)
    if result.categories:
        found["categories"] = category_rows(result)
    return found | {
        "excluded": list(result.excluded),
        "likely_excluded": list(result.likely_excluded),
        "speed": dict(result.speed),
    }


def share_rows(result: Any) -> list[dict]:
    """The classes that some pixel has, the largest first."""
    names, ids = result.classes.names, result.classes.ids
    return [{"name": names[n], "id": ids[n], "share": x} for n, x in result.shares().items()]


def category_rows(result: Any) -> list[dict]:
    return [
        {
            **named(result, one.number),
            "probability": one.probability,
            "kept": one.kept,
            "present": one.present,
        }
        for one in result.categories
    ]


def named(result: Any, number: int) -> dict[str, Any]:
    return {"name": result.classes.names[number], "category_id": result.classes.ids[number]}


def to_coco(result: Any, image_id: int | str) -> list[dict]:
    """Entries of COCO's results files: image_id, category_id, segmentation, score, bbox.

    Persons of human parsing have `parts` too.
    """
    entries = to_coco_segments(result) if result.instances is None else to_coco_instances(result)
    kept = ("category_id", "segmentation", "score", "bbox", "parts")
    return [
        {"image_id": image_id, **{key: entry[key] for key in kept if key in entry}}
        for entry in entries
    ]


def to_coco_instances(result: Any) -> list[dict]:
    found = result.instances
    columns = found.scores, found.categories, found.boxes, found.rles
    entries = []
    for i, (score, number, (x0, y0, x1, y1), mask) in enumerate(zip(*columns, strict=True)):
        box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
        entry = {"segmentation": rle.as_text(mask), "score": float(score), "bbox": box}
        if found.part_map is not None:
            entry["parts"] = _part_rows(result, i)
        entries.append({**named(result, int(number)), **entry})
    return entries


def _part_rows(result: Any, i: int) -> list[dict]:
    """The parts of person i: name, category_id, score, segmentation."""
    return [
        {**named(result, part.number), "score": part.score,
         "segmentation": rle.as_text(rle.encode(part.mask))}
        for part in result.instances.parts(i)
    ]  # fmt: skip


def to_coco_segments(result: Any) -> list[dict]:
    """The segments, or with score 1 the classes of a label map, as masks."""
    entries = []
    for number, mask, score in _masks(result):
        entry = rle.as_text(rle.encode(mask))
        entries.append(
            {**named(result, number), "segmentation": entry, "score": score, "bbox": rle.box(entry)}
        )
    return entries


def _masks(result: Any) -> list[tuple[int, np.ndarray, float]]:
    """(class number, mask, score) of each segment, or of each class of the label map."""
    if result.panoptic is not None:
        ids = result.panoptic.ids
        return [(s["category_id"], ids == s["id"], _score(s)) for s in result.panoptic.segments]
    labels = result.labels()
    return [(number, labels == number, 1.0) for number in result.shares()]


def _score(segment: dict) -> float:
    """1 for segments of a model that gives no scores."""
    return segment.get("score", 1.0)


def to_coco_panoptic(result: Any) -> tuple[np.ndarray, dict]:
    """COCO's panoptic picture (id = R + 256 G + 65536 B, 0 is void) and the annotation of it."""
    ids = result.panoptic.ids
    picture = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    areas = np.bincount(ids.ravel(), minlength=max(ids.max(initial=0) + 1, 1))
    segments = [
        {"id": s["id"], "category_id": result.classes.ids[s["category_id"]], "iscrowd": 0,
         "area": int(areas[s["id"]])}
        for s in result.panoptic.segments
    ]  # fmt: skip
    file_name = f"{stem(result.name)}_panoptic.png"
    return picture, {"image_id": result.name, "file_name": file_name, "segments_info": segments}


def stem(name: str) -> str:
    """a/b for a result of the name a/b.jpg, below the folder that its files are written to."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts:
        path = PurePath(path.name)
    return path.with_suffix("").as_posix() if path.name else "result"


def to_hf(result: Any) -> Any:
    """post_process_panoptic_segmentation's dict, or instance's; a label map for semantic results.

    Ids of segments start at 1, and a pixel of none is -1, in a label map too. Of the instances
    those with a score of 0.5 or more are taken; the best one lies on top.
    """
    import torch

    if result.panoptic is not None:
        segments = [
            {"id": s["id"], "label_id": s["category_id"], "was_fused": not s["isthing"],
             "score": _score(s)}
            for s in result.panoptic.segments
        ]  # fmt: skip
        ids = result.panoptic.ids
        return {
            "segmentation": torch.from_numpy(np.where(ids > 0, ids, -1).astype(np.int32)),
            "segments_info": segments,
        }
    if result.instances is not None:
        ids, found = np.full(result.size, -1, np.int32), result.instances
        likely = found.likely()
        for i in reversed(likely):  # best first, so their numbers are 0, 1, …
            ids[rle.decode(found.rles[i])] = i + 1
        segments = [
            {"id": i + 1, "label_id": int(found.categories[i]), "was_fused": False,
             "score": float(found.scores[i])}
            for i in likely
        ]  # fmt: skip
        return {"segmentation": torch.from_numpy(ids), "segments_info": segments}
    labels = result.labels().astype(np.int32)
    return torch.from_numpy(np.where(labels < len(result.classes), labels, -1).astype(np.int32))


def to_supervision(result: Any) -> Any:
    """supervision.Detections of the instances, else of the segments or classes.

    `data` has class_name, segment_id, is_thing, rank (-1 without a ranking) and image_score (NaN).
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError("to_supervision needs: pip install supervision") from error
    if result.instances is None:
        found = _masks(result)
        numbers = np.array([number for number, _, _ in found], int)
        masks = np.array([mask for _, mask, _ in found], bool).reshape(-1, *result.size)
        scores = np.array([score for _, _, score in found], float)
        ids = [s["id"] for s in result.panoptic.segments] if result.panoptic else numbers + 1
    else:
        numbers, masks = result.instances.categories.astype(int), result.instances.masks
        scores, ids = result.instances.scores.astype(float), np.arange(1, len(numbers) + 1)
    places = {one.number: (rank, one.probability) for rank, one in enumerate(result.categories)}
    ranks = [places.get(int(number), (-1, np.nan)) for number in numbers]
    boxes = np.array([_corners(mask) for mask in masks], float).reshape(-1, 4)
    return Detections(
        xyxy=boxes,
        mask=masks,
        confidence=scores,
        class_id=numbers,
        data={
            "class_name": np.array([result.classes.names[number] for number in numbers], str),
            "segment_id": np.array(ids, int),
            "is_thing": np.array([int(n) in result.classes.things for n in numbers], bool),
            "rank": np.array([rank for rank, _ in ranks], int),
            "image_score": np.array([score for _, score in ranks], float),
        },
    )


def _corners(mask: np.ndarray) -> list[int]:
    """x0, y0, x1, y1 around a mask."""
    x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [int(v) for v in (x[0], y[0], x[-1] + 1, y[-1] + 1)] if len(x) else [0, 0, 0, 0]
