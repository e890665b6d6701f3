"""A training batch with its labels drawn, as the model sees it: wrong labels show at once."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..drawing import INK, Row, Segment, beside, draw_list, draw_overlay, hatch, sheet
from ..drawing.text import draw_text, fitting, line_height

SIDE = 400  # pixels, the longest side of each image
MOST_IMAGES, MOST_FRAMES = 16, 6
_TEXT = 13


@dataclass(frozen=True)
class ClassTable:
    """Of each class: name, colour (C, 3), and whether its objects get tints of their own."""

    names: Sequence[str]
    colors: np.ndarray
    things: Sequence[bool]


def draw_batch(
    samples: Sequence[dict],
    classes: ClassTable,
    *,
    is_bgr: bool = False,
    marks_unlabelled: bool = True,
) -> np.ndarray:
    """The images of a batch with masks and names, and a legend of its classes: (H, W, 3) RGB.

    A clip is a row of its frames. Of many images and frames, the first ones are shown.

    Args:
        samples: of a mapper: `image` uint8 (3, H, W), and `instances` or else `sem_seg`; of a
            clip, lists over its frames.
        is_bgr: the order of the channels of `image`.
        marks_unlabelled: hatch the pixels without a label. Not for instances alone, where these
            are the background.
    """
    rows, pictures, seen = [], [], Counter()
    for sample in samples[:MOST_IMAGES]:
        is_clip = isinstance(sample["image"], list)
        frames = _frames(sample) if is_clip else [sample]
        drawn = [_draw(frame, classes, is_bgr, marks_unlabelled, seen) for frame in frames]
        if is_clip:
            rows.append(drawn)
        else:
            pictures += drawn
    columns = max(math.ceil(math.sqrt(len(pictures))), 1)
    rows += [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    grid = _grid(rows)
    return beside(grid, _legend(seen, classes, len(grid)))


def _frames(sample: dict) -> list[dict[str, Any]]:
    """The frames of a clip, each as a sample of its own."""
    keys = {"image": "image", "instances": "instances", "sem_seg": "sem_seg",
            "file_names": "file_name"}  # fmt: skip
    keys = {key: own for key, own in keys.items() if isinstance(sample.get(key), list | tuple)}
    count = min(len(sample["image"]), MOST_FRAMES)
    return [{own: sample[key][i] for key, own in keys.items()} for i in range(count)]


def _draw(
    sample: dict, classes: ClassTable, is_bgr: bool, marks_unlabelled: bool, seen: Counter
) -> np.ndarray:
    """An image with its labels, below its name; the pixels of its classes are added to `seen`."""
    image = sample["image"].permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)
    if image.dtype != np.uint8:
        image = image.clip(0, 255).astype(np.uint8)
    image = _resized(image[..., ::-1] if is_bgr else image)
    labels = list(_masks_of(sample, image.shape, len(classes.names)))
    covered = np.zeros(image.shape[:2], bool)
    for category, mask in labels:
        covered |= mask
        seen[category] += np.count_nonzero(mask)
    if marks_unlabelled:
        hatch(image, ~covered)
    segments = [
        Segment(category, mask=mask, is_thing=classes.things[category]) for category, mask in labels
    ]
    picture = draw_overlay(image, segments=segments, names=classes.names, colors=classes.colors)
    return _with_caption(picture, sample.get("file_name"))


def _resized(image: np.ndarray) -> np.ndarray:
    """A copy whose longest side is SIDE; small images keep their pixels, as squares."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    height, width = max(round(height * scale), 1), max(round(width * scale), 1)
    if scale >= 1:
        return _sampled(image, (height, width))
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)


def _masks_of(
    sample: dict, shape: Sequence[int], count: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(class, mask) of each object or class of a sample, the masks in the size of `shape`."""
    if sample.get("instances") is not None:
        instances = sample["instances"]
        for category, mask in zip(instances.gt_classes.tolist(), instances.gt_masks, strict=True):
            yield category, _sampled(mask.cpu().numpy(), shape)
    elif sample.get("sem_seg") is not None:
        labels = _sampled(sample["sem_seg"].cpu().numpy(), shape)
        for category in np.unique(labels[(labels >= 0) & (labels < count)]).tolist():
            yield category, labels == category


def _sampled(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The nearest pixels of a map (H, W) or image (H, W, 3) in another size."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(shape[:2], values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]


def _with_caption(picture: np.ndarray, file_name: str | None) -> np.ndarray:
    """The picture below the name of its file."""
    line = line_height(_TEXT)
    paper = np.full((line + picture.shape[0], picture.shape[1], 3), 255, np.uint8)
    paper[line:] = picture
    name = fitting(os.path.basename(str(file_name or "")), _TEXT, picture.shape[1])
    draw_text(paper, name, (0, 0), _TEXT, INK)
    return paper


def _grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The pictures in cells of the size of the largest one, none of them scaled."""
    sizes = [picture.shape[:2] for row in rows for picture in row]
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    cells = [[np.full((height, width, 3), 255, np.uint8) for _ in row] for row in rows]
    for row, pictures in zip(cells, rows, strict=True):
        for cell, picture in zip(row, pictures, strict=True):
            cell[: picture.shape[0], : picture.shape[1]] = picture
    return sheet(cells, cell=(height, width))


def _legend(seen: Counter, classes: ClassTable, height: int) -> np.ndarray:
    """The classes of the batch, the largest first."""
    rows = [
        Row(classes.names[category], color=classes.colors[category])
        for category, pixels in seen.most_common()
        if pixels
    ]
    return draw_list(rows, title=f"classes in the batch: {len(rows)}", height=height, size=_TEXT)
