"""Label images: one integer per pixel, read to contiguous class ids or to segment ids."""

import logging
from collections.abc import Sequence

import cv2
import numpy as np

from .drawn_labels import DrawnLabels
from .image_files import UnreadableError, check_exact, check_png, opened, read_labels
from .label_colors import (
    COLOR,
    classes_of_colors,
    color_values,
    likely_cause,
    shares_text,
    value_text,
)

logger = logging.getLogger(__name__)
# Keys of a data set's metadata by which label files are read
READING_KEYS = ("ignore_label", "label_table", "label_colors", "resize_labels")
_NO_METADATA = {}
_warned_of: set[str] = set()  # data sets with pixels of unknown values


def read_label_map(
    path: str | DrawnLabels, metadata, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Contiguous class ids, or `ignore_label`, of an 8- or 16-bit label image: (H, W).

    Args:
        path: of the label image, or labels that are drawn now.
        metadata: of the data set. `label_table` maps each raw value to its class id, to
            `ignore_label`, or to -1 if it must not occur; without it the values are class ids.
            With `unknown_is_ignored`, values that must not occur are ignored, with one warning.
            `label_colors` does the same for label images with colours: rows of red, green, blue,
            and class id or `ignore_label`. With `grey_labels`, RGB images with equal channels are
            read as one channel.
        size: height and width of the image; with `resize_labels` in the metadata, the label image
            is resized to them.
    """
    return to_classes(read_values(path, metadata, size), path, metadata)


def to_classes(values: np.ndarray, path: str | DrawnLabels, metadata) -> np.ndarray:
    """The contiguous class ids of the raw values of a label image; see `read_label_map`."""
    if values.size and values.flat[0] >= COLOR:
        return _colors_to_classes(values, path, metadata)
    table = metadata.get("label_table")
    if table is not None:
        table = np.asarray(table)
        if metadata.get("unknown_is_ignored", False):
            table, values = _ignore_unknown(table, values, path, metadata)
        is_wrong = (values < 0) | (values >= len(table))
        _raise_if_any(is_wrong, values, path, _ranges(table), metadata)
        _raise_if_any((table < 0)[values], values, path, _ranges(table), metadata)
        return _smallest_integers(table)[values]
    classes, ignore = metadata.get("stuff_classes"), metadata.get("ignore_label", 255)
    if classes is not None:
        is_wrong = (values < 0) | (values >= len(classes)) & (values != ignore)
        allowed = f"0 to {len(classes) - 1}, or {ignore} for ignored pixels"
        _raise_if_any(is_wrong, values, path, allowed, metadata)
    return values


def read_values(
    path: str | DrawnLabels, metadata=_NO_METADATA, size: tuple[int, int] | None = None
) -> np.ndarray:
    """The raw values of a label image: (H, W); see `read_label_map`, and label_colors.py."""
    if isinstance(path, DrawnLabels):
        return path.draw()
    image = read_labels(path, "label image")
    values = np.asarray(image)
    if image.mode in ("RGB", "RGBA"):
        has_colors = metadata.get("label_colors") is not None
        values = color_values(values) if has_colors else _grey(values, path, metadata)
    elif values.ndim != 2 or values.dtype.kind == "f":
        what = f"{values.shape[2]} channels" if values.ndim == 3 else f"values of {values.dtype}"
        raise UnreadableError(
            f"the label image {path} has {what}; a label image has one channel of integers, 8 or "
            "16 bits, or a palette, or RGB colours"
        )
    values = values.astype(np.uint8) if values.dtype == bool else values
    if size is not None and metadata.get("resize_labels", False):
        return _resized(values, size, path)
    return values


def _grey(pixels: np.ndarray, path: str, metadata) -> np.ndarray:
    """The raw values of an RGB or RGBA image whose channels are equal."""
    if metadata.get("grey_labels", False) and (pixels[..., :1] == pixels[..., 1:3]).all():
        return pixels[..., 0]
    values, counts = np.unique(color_values(pixels), return_counts=True)
    raise UnreadableError(
        f"the label image {path} has {pixels.shape[2]} channels, with {len(values)} colours: "
        f"{shares_text(values, counts)}; give each class of its data set a `color`, or save label "
        "images of one channel"
    )


def _colors_to_classes(values: np.ndarray, path: str, metadata) -> np.ndarray:
    colors, flat = metadata.get("label_colors"), values.ravel()
    starts = run_starts(flat)
    found, lengths = flat[starts], np.diff(starts, append=len(flat))
    classes = classes_of_colors(found, colors)
    is_unknown = classes < 0
    if is_unknown.any():
        unknown = np.unique(found[is_unknown])
        cause = likely_cause(unknown.tolist(), colors)
        raise ValueError(
            f"the label image {path} has {lengths[is_unknown].sum()} pixels of {len(unknown)} "
            f"colours that are not the `color` of a class: {_listed(unknown)}; {cause}. Fix the "
            "file, the `color` of a class, or `ignore`; `rankseg-d2 dataset check` lists all files"
        )
    return _smallest_integers(classes).repeat(lengths).reshape(values.shape)


def have_same_shape(size: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes (height, width) differ by a scale only, or by a pixel from rounding."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def _resized(values: np.ndarray, size: tuple[int, int], path: str) -> np.ndarray:
    """The nearest value for each pixel of `size`."""
    (h, w), (height, width) = values.shape, size
    if not have_same_shape(values.shape, size):
        raise ValueError(
            f"the label image {path} is {w} x {h} (width x height), which is not the shape of its "
            f"image of {width} x {height}; `resize_labels` scales, and does not crop, stretch or "
            "turn"
        )
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in ((height, h), (width, w))
    )
    return values[rows[:, None], columns]


def read_segment_ids(path: str) -> np.ndarray:
    """The segment ids R + 256 G + 65536 B of a COCO panoptic PNG, with or without alpha: (H, W)."""
    from PIL import Image

    with opened(path, "panoptic image") as file:
        head = Image.open(file)  # refuses sizes that would fill the memory
        check_exact(head, path, "panoptic image")
        file.seek(0)
        data = file.read()
        check_png(data, *head.size)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise OSError("it is damaged")
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels not in (3, 4) or image.dtype != np.uint8:
        raise UnreadableError(
            f"the panoptic image {path} has {channels} channels of {image.dtype}; segment ids are "
            "stored in three of 8 bits, R + 256 G + 65536 B"
        )
    to_rgba = cv2.COLOR_BGR2RGBA if channels == 3 else cv2.COLOR_BGRA2RGBA
    rgba = cv2.cvtColor(image, to_rgba)  # (H, W, 4): the bytes of one integer
    return rgba.view("<u4")[..., 0] & 0xFFFFFF


def positions_of_ids(ids: np.ndarray, wanted) -> np.ndarray:
    """The index of each pixel's id in `wanted`, from 1; 0 for other ids: the shape of `ids`."""
    keys = np.array([-1, *wanted])  # -1 is no id, so index 0 is free
    order = keys.argsort()
    flat = ids.ravel()
    starts = run_starts(flat)
    values = flat[starts].astype(keys.dtype)
    index = order[np.searchsorted(keys, values, sorter=order).clip(max=len(wanted))]
    index[keys[index] != values] = 0
    lengths = np.diff(starts, append=len(flat))
    return index.astype(np.min_scalar_type(len(wanted))).repeat(lengths).reshape(ids.shape)


def present_values(labels: np.ndarray) -> np.ndarray:
    """Sorted values of a label map, each once; faster than np.unique because labels form runs."""
    flat = labels.ravel()
    return np.unique(flat[run_starts(flat)])


def run_starts(flat: np.ndarray) -> np.ndarray:
    """The indices at which a value differs from the one before it; 0 is one of them."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.concatenate([np.zeros(min(len(flat), 1), changes.dtype), changes])


def _smallest_integers(values: np.ndarray) -> np.ndarray:
    """The values, none of them negative, in the smallest unsigned type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def size_advice(
    image_path: str, image_size: Sequence[int], label_size: Sequence[int], can_resize: bool
) -> str:
    """What to do if a label has another size (height, width) than its image; "" if unknown."""
    if tuple(label_size) == tuple(image_size)[::-1] == _stored_size(image_path):
        return (
            "the label has the size of the photo before its EXIF rotation: turn the label as the "
            "photo is turned, or save the photo upright without the EXIF entry, and label that"
        )
    if can_resize:
        return (
            "`resize_labels: true` in the data set's yaml scales label images to their images"
        )
    return ""


def _stored_size(path: str) -> tuple[int, int]:
    """Height and width of an image file before its EXIF rotation."""
    from PIL import Image

    with opened(path, "image") as file, Image.open(file) as image:
        return image.size[::-1]


def _ignore_unknown(table: np.ndarray, values: np.ndarray, path: str, metadata):
    """The table with unknown values mapped to `ignore_label`, and values clipped to its end."""
    inside = np.minimum(values.astype(np.int32), len(table))
    table = np.append(table, -1)
    is_unknown = (table < 0)[inside]
    if is_unknown.any():
        _warn_once(values[is_unknown], path, metadata.get("name", "this data set"))
    return np.where(table < 0, metadata.get("ignore_label", 255), table), inside


def _warn_once(unknown: np.ndarray, path: str, dataset: str) -> None:
    """Warn about the first file of a data set that has pixels of `unknown` values."""
    if dataset not in _warned_of:
        _warned_of.add(dataset)
        logger.warning(
            "%d pixels in %s have no class of %s (values %s) and are ignored, here and in all "
            "files; `rankseg-d2 dataset check %s` counts them",
            len(unknown),
            path,
            dataset,
            _listed(unknown),
            dataset,
        )


def _listed(values: np.ndarray) -> str:
    """A few of the values, each once."""
    values = np.unique(values)
    return ", ".join(map(value_text, values[:5].tolist())) + (", ..." if len(values) > 5 else "")


def _raise_if_any(is_wrong: np.ndarray, values: np.ndarray, path: str, allowed: str, metadata):
    if not is_wrong.any():
        return
    raise ValueError(
        f"the label image {path} has the value {_listed(values[is_wrong])}, which is no class; "
        f"allowed are {allowed}. Fix the file, or the classes, values or label_offset of its data "
        f"set; for this file, {suggest_fix(values, metadata)}; `rankseg-d2 dataset check` says "
        "what fits all files"
    )


def suggest_fix(values: np.ndarray, metadata) -> str:
    """The keys of a data set's yaml with which all these raw values are classes or ignored."""
    ignore, table = metadata.get("ignore_label", 255), metadata.get("label_table")
    names = metadata.get("stuff_classes")
    offset, ignored = 0, {ignore}
    if table is not None:
        table = np.asarray(table)
        offset = int(np.flatnonzero(table == 0).max(initial=0))
        ignored = set(np.flatnonzero(table == ignore).tolist())
        if offset and table[0] >= 0:  # background is a class
            ignored.add(0)
    num_classes = len(names) if names else int(table[table != ignore].max()) + 1
    if table is not None:
        part = table[offset : offset + num_classes]
        if not np.array_equal(part, np.arange(num_classes)):  # no offset, but a table of values
            return f"add {_listed(values[meanings(values, table) < 0])} to `values`"
    return suggest_keys(set(np.unique(values).tolist()) - ignored, num_classes, offset)


def meanings(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The table's entry of each value; -1 for values outside of it."""
    inside = (values >= 0) & (values < len(table))
    return np.where(inside, table[np.where(inside, values, 0)], -1)


def suggest_keys(values: set[int], num_classes: int, offset: int) -> str:
    """The `label_offset` nearest to `offset` that makes all values classes.

    If none does, ignoring 255, 0 or both is tried too.
    """
    for ignored in (set(), {255}, {0}, {0, 255}):
        rest = values - ignored
        lowest = max(max(rest, default=0) - num_classes + 1, int(0 in ignored & values), 0)
        if rest and ignored <= values and lowest <= min(rest):
            fitting = min(max(offset, lowest), min(rest))
            keys = [f"label_offset: {fitting}"]
            keys += ["background: ignore"] if 0 in ignored else []
            keys += ["255 in ignore"] if 255 in ignored else []
            return (f"{', '.join(keys)} would fit: the values are {min(rest)} to {max(rest)}, "
                    f"the number of classes is {num_classes}")
    return (f"no label_offset fits {num_classes} classes and {len(values)} values from "
            f"{min(values)} to {max(values)}; fix classes, or add values to ignore")


def _ranges(table: np.ndarray) -> str:
    """The values that a label table allows, such as "1 to 12, 255"."""
    known = np.flatnonzero(table >= 0)
    if not len(known):
        return "none, as label_table maps no value to a class"
    ends = np.flatnonzero(np.diff(known) > 1)
    pairs = zip(known[[0, *(ends + 1)]], known[[*ends, -1]], strict=True)
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in pairs) + " (ignored included)"
