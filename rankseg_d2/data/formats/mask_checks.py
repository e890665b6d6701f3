"""Check the masks of json files, polygons and run lengths, before a decoder trusts them.

pycocotools draws polygons of any size, which may take all memory or end the process, and makes a
mask of any run lengths.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .image_files import UnreadableError

_FAR = 4  # sizes of the image that a corner may be away from it
_LONGEST_OUTLINE = 2e6  # pixels; one of this length takes 100 MB and a second
_AT_ONCE = 2**20  # characters of run-length codes
_LARGEST = 2**30  # pixels of an image


def check_masks(annotations: Sequence[dict], size: tuple[int, int], where: str) -> None:
    """UnreadableError unless each annotation of an image (height, width) has a mask, a right one.

    `where` names the image. Arrays (H, W) are masks too, empty lists are masks without a pixel.
    """
    shapes = [annotation.get("segmentation") for annotation in annotations]
    arrays = {i: shape.shape for i, shape in enumerate(shapes) if isinstance(shape, np.ndarray)}
    faults = {
        i: f"has the size {list(shape)} (height, width), but its image is {list(size)}"
        for i, shape in arrays.items()
        if shape != tuple(size)
    }
    shapes = [[] if i in arrays else shape for i, shape in enumerate(shapes)]
    faults |= mask_faults(shapes, [size] * len(shapes))
    if faults:
        first = min(faults)
        name = annotations[first].get("id", f"number {first}, counted from 0")
        raise UnreadableError(f"{where}: the mask of annotation {name} {faults[first]}; fix or "
                              "remove it")  # fmt: skip


def mask_faults(shapes: Sequence, sizes: Sequence[tuple[int, int]]) -> dict[int, str]:
    """What is wrong, by the index of the mask; empty if all are right.

    Args:
        shapes: lists of polygons, or RLEs with their counts compressed or not.
        sizes: height and width of each mask's image.
    """
    faults, codes = {}, {}
    for i, (shape, (height, width)) in enumerate(zip(shapes, sizes, strict=True)):
        if isinstance(shape, dict):
            fault = _rle_fault(shape, height, width)
            if fault is None and not isinstance(shape["counts"], list):
                codes[i] = shape["counts"]
        elif isinstance(shape, (list, tuple)):
            found = (_polygon_fault(polygon, max(height, width)) for polygon in shape)
            fault = next((text for text in found if text), None)
        else:
            fault = f"is a {type(shape).__name__}, not a list of polygons and not an RLE"
        if fault:
            faults[i] = fault
    pixels = {i: sizes[i][0] * sizes[i][1] for i in codes}
    return faults | _all_code_faults(codes, pixels)


def _rle_fault(rle: dict, height: int, width: int) -> str | None:
    """What is wrong with an RLE, except with the characters of its code."""
    if not {"size", "counts"} <= rle.keys():
        return "is an RLE without size or counts"
    size, counts = rle["size"], rle["counts"]
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        return (f"has the size {_short(size)} (height, width), but its image is "
                f"{[height, width]}")  # fmt: skip
    if height * width > _LARGEST:
        return f"has {height * width} pixels, more than can be handled ({_LARGEST})"
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            return "has counts that are not numbers of pixels"
        return _total_fault(sum(counts), height * width)
    if not isinstance(counts, (str, bytes)):
        return f"has counts that are a {type(counts).__name__}, not a text or a list of numbers"
    return None


def _polygon_fault(polygon: Any, side: int) -> str | None:
    """What is wrong with a polygon of an image whose longer side is given."""
    if isinstance(polygon, np.ndarray):
        polygon = polygon.ravel().tolist()
    limit = _FAR * side
    try:
        if len(polygon) < 6 or len(polygon) % 2:
            return f"has a polygon of {len(polygon)} numbers; it needs x and y of 3 corners or more"
        low, high, total = min(polygon), max(polygon), sum(polygon)
    except (TypeError, OverflowError):
        return f"has a polygon that is not a list of numbers, but {_short(polygon)}"
    if not (-limit <= low and high <= limit + side and total == total):  # NaN differs from itself
        worst = next(x for x in polygon if not -limit <= x <= limit + side)
        return (f"has a polygon with the coordinate {worst:g}, far outside its image, whose longer "
                f"side is {side}")
    may_be_long = len(polygon) * side > _LONGEST_OUTLINE
    if may_be_long and outline_is_too_long([np.reshape(polygon, (-1, 2))]):
        return f"has a polygon of {len(polygon) // 2} corners whose outline is too long to draw"
    return None


def outline_is_too_long(polygons: Sequence[np.ndarray]) -> bool:
    """Whether polygons (n, 2) would take too much time and memory to draw."""
    steps = (np.abs(polygon - np.roll(polygon, 1, 0)).max(1).sum() for polygon in polygons)
    return sum(steps) > _LONGEST_OUTLINE


def _all_code_faults(codes: dict[int, str | bytes], pixels: dict[int, int]) -> dict[int, str]:
    """The faults of many codes, some at a time, to limit the memory."""
    faults, part, length = {}, [], 0
    for i, code in codes.items():
        part.append(i)
        length += len(code)
        if length > _AT_ONCE:
            faults |= _code_faults(part, codes, pixels)
            part, length = [], 0
    return faults | _code_faults(part, codes, pixels) if part else faults


def _code_faults(
    part: list[int], codes: dict[int, str | bytes], pixels: dict[int, int]
) -> dict[int, str]:
    """The faults of the compressed run lengths with the numbers `part`.

    Characters of 5 bits each, and a 6th that says "goes on", give signed numbers, lowest bits
    first. From the 4th on they are differences to the number before the last one.
    """
    texts = [code.encode(errors="replace") if isinstance(code, str) else code
             for code in (codes[i] for i in part)]  # fmt: skip
    text = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(ord("0"))  # wraps below "0"
    sizes = np.array([len(code) for code in texts])
    code_ends = sizes.cumsum()

    def without(positions, fault):  # of characters
        wrong = np.unique(np.searchsorted(code_ends, positions, "right"))
        faults = dict.fromkeys((part[k] for k in wrong.tolist()), f"has a run-length code {fault}")
        rest = [i for i in part if i not in faults]
        return faults | (_code_faults(rest, codes, pixels) if rest else {})

    if (text > 63).any():
        return without(np.flatnonzero(text > 63), "with a wrong character")
    last = code_ends[sizes > 0] - 1
    if (text[last] & 32).any():
        return without(last[(text[last] & 32) > 0], "that is cut off")
    ends = np.flatnonzero(text < 32)  # the last characters of the numbers
    starts = np.append(-1, ends)[:-1] + 1
    if (ends - starts >= 6).any():
        return without(starts[ends - starts >= 6], "with a number that is too long")
    counts = np.diff(np.searchsorted(ends, code_ends), prepend=0)  # numbers of each code
    runs = _undone(_numbers(text, starts, ends), counts)
    if (runs < 0).any():
        return without(starts[runs < 0], "with a negative length")
    totals = np.diff(np.append(0, runs.cumsum())[counts.cumsum()], prepend=0).tolist()
    found = {i: _total_fault(total, pixels[i]) for i, total in zip(part, totals, strict=True)}
    return {i: fault for i, fault in found.items() if fault}


def _numbers(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The signed numbers whose first and last characters are given; most have one or two."""
    numbers = (text[starts] & 31).astype(np.int64)
    for k in range(1, 6):
        longer = np.flatnonzero(ends - starts >= k)
        numbers[longer] |= (text[starts[longer] + k] & 31).astype(np.int64) << 5 * k
    is_negative = np.flatnonzero(text[ends] & 16)
    numbers[is_negative] -= 1 << 5 * (ends - starts + 1)[is_negative]
    return numbers


def _undone(numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The lengths of runs from their differences; `counts` (N,) belong to each of N codes."""
    first = np.repeat(counts.cumsum() - counts, counts)  # of each number, where its code begins
    index = np.arange(len(numbers)) - first
    runs = numbers.copy()
    for start in (1, 2):  # the number 0 is in no chain: 1, 3, 5, ... and 2, 4, 6, ...
        chain = np.flatnonzero((index >= start) & (index % 2 == start % 2))
        sums = numbers[chain].cumsum()
        is_start = index[chain] == start
        before = (sums - numbers[chain])[is_start]
        runs[chain] = sums - before.repeat(np.diff(np.flatnonzero(is_start), append=len(chain)))
    return runs


def _total_fault(total: int, pixels: int) -> str | None:
    if total == pixels:
        return None
    return f"has runs of {total} pixels together, but its image has {pixels}"


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
