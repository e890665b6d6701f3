"""A result on its image: colours, outlines, names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ..errors import short
from .colors import PAPER, class_colors, mixed, spread_colors, tint
from .labels import place_labels
from .painting import check_map, edges_of, paint_by, positions, rgb, smallest_type
from .text import blend, draw_text

_PILL, _OPACITY = (22, 24, 28), 170  # behind names; of 255


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of a result: its pixels are a mask, or those of an id in the map of ids.

    Attributes:
        category: the class, from 0.
        name: what is written on it; by default the name of the class.
        id: its value in `ids`.
        mask: (H, W) bool.
        is_thing: then it gets a tint of its own.
    """

    category: int
    name: str | None = None
    id: int | None = None
    mask: np.ndarray | None = None
    score: float | None = None
    is_thing: bool = True


def draw_overlay(
    image: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    ids: np.ndarray | None = None,
    segments: Sequence[Segment] | None = None,
    names: Sequence[str],
    colors: np.ndarray | Sequence | None = None,
    alpha: float = 0.5,
    outlines: bool = True,
    text: bool = True,
    boxes: bool = False,
    scores: bool = False,
) -> np.ndarray:
    """The image with a result on it: (H, W, 3) uint8 RGB; the image stays as it is.

    Args:
        image: (H, W), or (H, W, 3) in RGB, of uint8.
        labels: a semantic result, (H, W) class ids; all other values mean nothing.
        ids: a panoptic result, (H, W), together with `segments`.
        segments: with `ids`, what they are; alone, masks that may overlap. Small ones lie on top.
        colors: (C, 3) of the classes; by default from their names.
        alpha: the share of the colours, from 0 to 1.
        boxes: also the boxes around the segments that are things.
        scores: after the names.
    """
    image = rgb(image)
    colors = class_colors(names, colors)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {short(alpha)}")
    if (labels is None) == (segments is None) or (ids is not None and segments is None):
        raise ValueError("draw_overlay takes labels, or segments, or ids together with segments")
    if labels is not None:
        check_map(labels, image.shape, "labels")
        index, masks, table = positions(labels, range(len(names))), {}, colors
    else:
        _check_categories(segments, names)
        index, masks = _index_of(segments, ids, image.shape)
        table = _table(segments, colors)
    picture = _blended(image, index, table, alpha)
    if outlines:
        _draw_outlines(picture, index, masks)
    if boxes and segments is not None:
        _draw_boxes(picture, index, masks, segments, table)
    if text:

        def texts_of(number: int) -> list[str]:
            segment = Segment(number - 1) if segments is None else segments[number - 1]
            return _texts(segment, names, scores)

        _write_names(picture, index, texts_of)
    return picture


def _check_categories(segments: Sequence[Segment], names: Sequence[str]) -> None:
    for segment in segments:
        if not 0 <= segment.category < len(names):
            raise ValueError(
                f"a segment has category {short(segment.category)}, but there are {len(names)} "
                "names"
            )


Masks = dict[int, tuple[tuple[slice, slice], np.ndarray]]  # number -> (its box, the mask)


def _index_of(
    segments: Sequence[Segment], ids: np.ndarray | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, Masks]:
    """The number of the topmost segment of each pixel (H, W), from 1, and the masks in boxes."""
    if ids is not None:
        check_map(ids, shape, "ids")
        if any(segment.id is None for segment in segments):
            raise ValueError("a segment has no id; with a map of ids, each needs its id")
        return positions(ids, [segment.id for segment in segments]), {}
    masks = {}
    for number, segment in enumerate(segments, 1):
        if segment.mask is None:
            raise ValueError("a segment has no mask; without a map of ids, each needs its mask")
        check_map(segment.mask, shape, "a mask")
        mask = segment.mask.astype(bool, copy=False)
        columns = np.flatnonzero(mask.any(0))  # several times faster than OpenCV's boundingRect
        if len(columns):
            x = slice(int(columns[0]), int(columns[-1]) + 1)
            rows = np.flatnonzero(mask[:, x].any(1))
            masks[number] = (slice(int(rows[0]), int(rows[-1]) + 1), x), mask
    index = np.zeros(shape[:2], smallest_type(len(segments)))
    inside = {number: mask[box].view(np.uint8) for number, (box, mask) in masks.items()}
    areas = {number: cv2.countNonZero(mask) for number, mask in inside.items()}
    for number in sorted(areas, key=areas.get, reverse=True):
        part = index[masks[number][0]]
        cv2.copyTo(np.full_like(part, number), inside[number], part)
    return index, masks


def _table(segments: Sequence[Segment], colors: np.ndarray) -> np.ndarray:
    """The colour of each segment (N, 3): tints of its class, in the order of the segments.

    Things of the only class, such as entities, get other hues, since many tints look alike.
    """
    spread = spread_colors(len(segments)) if len(colors) == 1 else None
    table, counts = np.zeros((len(segments), 3), np.uint8), {}
    for number, segment in enumerate(segments):
        color, count = colors[segment.category], counts.get(segment.category, 0)
        own = tint(color, count) if spread is None else spread[count]
        table[number] = own if segment.is_thing else color
        counts[segment.category] = count + segment.is_thing
    return table


def _blended(image: np.ndarray, index: np.ndarray, table: np.ndarray, alpha: float) -> np.ndarray:
    layer = paint_by(index, np.concatenate([np.zeros((1, 3), np.uint8), table]))
    picture = cv2.addWeighted(image, 1 - alpha, layer, alpha, 0)
    cv2.copyTo(image, (index == 0).view(np.uint8), picture)
    return picture


def _draw_outlines(picture: np.ndarray, index: np.ndarray, masks: Masks) -> None:
    """Thin white lines: faint on small pictures, 2 pixels wide on those of a megapixel."""
    if masks:  # of each mask, also where another one lies on it
        lines = np.zeros(index.shape, np.uint8)
        for (rows, columns), mask in masks.values():
            box = np.s_[max(rows.start - 1, 0) : rows.stop + 1,
                        max(columns.start - 1, 0) : columns.stop + 1]  # fmt: skip
            inside = mask[box].view(np.uint8)
            part = lines[box]
            cv2.bitwise_or(part, inside ^ cv2.erode(inside, None, borderValue=1), part)
    else:
        lines = edges_of(index).view(np.uint8)
    if index.size >= 10**6:
        lines = cv2.dilate(lines, np.ones((2, 2), np.uint8))
    opacity = float(np.clip(0.3 + min(index.shape) / 1000, 0.4, 0.75))
    light = cv2.convertScaleAbs(picture, alpha=1 - opacity, beta=255 * opacity)
    cv2.copyTo(light, lines, picture)


def _draw_boxes(
    picture: np.ndarray,
    index: np.ndarray,
    masks: Masks,
    segments: Sequence[Segment],
    table: np.ndarray,
) -> None:
    width = 1 if min(picture.shape[:2]) < 700 else 2
    for number, segment in enumerate(segments, 1):
        if not segment.is_thing:
            continue
        if number in masks:
            rows, columns = masks[number][0]
            x, y = columns.start, rows.start
            right, bottom = columns.stop, rows.stop
        else:
            x, y, w, h = cv2.boundingRect((index == number).view(np.uint8))
            right, bottom = x + w, y + h
        if right > x:
            color = mixed(table[number - 1], (255, 255, 255), 0.15).tolist()
            cv2.rectangle(picture, (x, y), (right - 1, bottom - 1), color, width)


def _texts(segment: Segment, names: Sequence[str], scores: bool) -> list[str]:
    """The name; where that does not fit, its first word or words before a comma."""
    name = segment.name if segment.name is not None else str(names[segment.category])
    score = f" {segment.score:.2f}" if scores and segment.score is not None else ""
    return [name + score, name.partition(",")[0] + score]


def text_size(shape: Sequence[int]) -> int:
    """The height of letters for a picture: 9 pixels on tiny ones, 20 at 1080p, 26 at the most."""
    return int(np.clip(7 + 0.012 * min(shape[:2]), 9, 26))


def _write_names(
    picture: np.ndarray, index: np.ndarray, texts_of: Callable[[int], Sequence[str]]
) -> None:
    """White on dark, which can be read on any colour."""
    size = text_size(picture.shape)
    for label in place_labels(index, texts_of, size):
        blend(picture, _pill(label.height, label.width), (label.x, label.y), _PILL)
        draw_text(picture, label.text, (label.x + label.width / 2, label.y), size, PAPER, align=0.5)


@lru_cache(1024)
def _pill(height: int, width: int) -> np.ndarray:
    """Coverage of a rectangle with round corners: (height, width) uint8."""
    fine, radius = np.zeros((4 * height, 4 * width), np.uint8), round(0.3 * 4 * height)
    for x in (radius, max(4 * width - 1 - radius, radius)):
        for y in (radius, 4 * height - 1 - radius):
            cv2.circle(fine, (x, y), radius, _OPACITY, -1)
    fine[radius:-radius] = fine[:, radius:-radius] = _OPACITY
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
