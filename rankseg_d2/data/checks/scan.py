"""Read every image and label of a data set in several processes, and count pixels and faults."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...pair_counts import PairCounts
from ...tasks import LABEL_KEYS, TASKS, find
from ..formats import rle
from ..formats.image_files import UnreadableError, image_size
from ..formats.label_colors import COLOR, as_color, classes_of_colors, likely_cause
from ..formats.label_images import (
    have_same_shape,
    meanings,
    read_segment_ids,
    read_values,
    run_starts,
    size_advice,
)
from ..formats.mask_checks import mask_faults
from ..formats.video_frames import frame_records
from ..own.pairing import Fault, segment_faults
from ..prepare.processes import run_jobs

UNKNOWN, IGNORED = -1, -2
_NOTHING = np.zeros(0, np.int64)
# the task, if a record has several labels
_BY_DETAIL = ("panoptic", "parsing", "semantic", "instance")

# classes or UNKNOWN or IGNORED, their pixels, raw values, (height, width), faults
Found = tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[int], list[Fault]]


class Counts(NamedTuple):
    """The counts of one record."""

    present: np.ndarray  # classes, ascending
    pixels: np.ndarray  # of each present class
    ignored: int  # pixels
    values: np.ndarray  # of a label image, as they are on disk
    faults: list[Fault]


class Meaning(NamedTuple):
    """The meaning of labels: what a worker needs of the metadata."""

    num_classes: int
    ignore_label: int
    table: np.ndarray | None  # value -> class id, ignore_label, or -1
    colors: np.ndarray | None = None  # rows of red, green, blue, and class id or ignore_label
    has_labels: bool = True
    resizes: bool = False  # label images to the sizes of their images
    accepts_grey: bool = False  # RGB label images with equal channels

    @classmethod
    def of(cls, metadata: Any) -> "Meaning":
        """The meaning of the labels of a data set."""
        table = metadata.get("label_table")
        table = None if table is None else np.asarray(table)
        more = (metadata.get("has_labels", True), metadata.get("resize_labels", False),
                metadata.get("grey_labels", False))
        return cls(len(class_names(metadata)), metadata.get("ignore_label", 255), table,
                   metadata.get("label_colors"), *more)

    def classes(self, values: np.ndarray) -> np.ndarray:
        """The class of each value, or IGNORED, or UNKNOWN."""
        classes = values.astype(np.int64)
        if len(values) and values[0] >= COLOR:
            classes = classes_of_colors(classes, self.colors)
        elif self.table is not None:
            classes = meanings(classes, self.table)
        is_ignored = classes == self.ignore_label
        is_class = (classes >= 0) & (classes < self.num_classes)
        return np.where(is_ignored, IGNORED, np.where(is_class, classes, UNKNOWN))


@dataclass
class Tally:
    """The counts of one split."""

    num_classes: int
    records: int = 0
    ignored: int = 0
    faults: list[Fault] = field(default_factory=list)
    values: set[int] = field(default_factory=set)
    pixels: np.ndarray = field(init=False)  # (C,)
    images: np.ndarray = field(init=False)  # (C,): images with the class
    pairs: PairCounts = field(init=False)  # images with both classes, the first below the second
    sizes: np.ndarray = field(init=False)  # (C + 1,): images with 0 to C classes

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.images = np.zeros(self.num_classes, np.int64)
        self.pairs = PairCounts(self.num_classes)
        self.sizes = np.zeros(self.num_classes + 1, np.int64)

    def add(self, counts: Counts) -> None:
        """Add the counts of one record."""
        self.records += 1
        self.ignored += counts.ignored
        self.faults += counts.faults
        self.values.update(counts.values.tolist())
        self.pixels[counts.present] += counts.pixels
        self.images[counts.present] += 1
        first, second = np.triu_indices(len(counts.present), 1)
        classes = np.sort(counts.present)
        self.pairs.add(classes[first], classes[second], np.ones(len(first), np.int64))
        self.sizes[len(counts.present)] += 1


def class_names(metadata: Any) -> list[str]:
    """All classes of a data set: stuff_classes, which include things, else thing_classes."""
    names = metadata.get("stuff_classes") or metadata.get("thing_classes")
    if not names:
        raise ValueError(
            f"the metadata of {metadata.name} has neither stuff_classes nor thing_classes; "
            f"set them: MetadataCatalog.get({metadata.name!r}).stuff_classes = [names]"
        )
    return list(names)


def scan(
    records: list[dict], metadata: Any, title: str, workers: int | None = None
) -> Tally:
    """The counts of all records; image files are decoded too."""
    meaning = Meaning.of(metadata)
    tally = Tally(meaning.num_classes)
    count = partial(_count, meaning=meaning)
    for _, counts in run_jobs(count, records, len(records), title, workers):
        tally.add(counts)
    return tally


def _count(record: dict, meaning: Meaning) -> Counts:
    """The counts of a record's labels, and the faults of its labels and images."""
    if "file_names" in record:
        return _sum([_count(frame, meaning) for frame in frame_records(record)])
    if not meaning.has_labels:
        return Counts(_NOTHING, _NOTHING, 0, _NOTHING, _image_faults(record))
    task = next((TASKS[name] for name in _BY_DETAIL if TASKS[name].label_key in record), None)
    if task is None:
        raise ValueError(f"{record.get('file_name', 'a record')} has no label to check; its record "
                         f"must have one of {', '.join(sorted(LABEL_KEYS))}")
    key, read = task.label_key, find(task.scan)
    size = None
    try:
        classes, pixels, values, size, faults = read(record, meaning)
    except (ValueError, OSError) as error:
        absent = isinstance(error, FileNotFoundError)
        kind = "missing label" if absent else "unreadable label"
        classes = pixels = values = _NOTHING
        faults = [Fault(kind, str(record[key]), "" if absent else str(error))]
    faults += _image_faults(record, size, meaning.resizes)
    ignored = int(pixels[classes == IGNORED].sum())
    is_class = (classes >= 0) & (classes < meaning.num_classes)
    present, totals = _sum_by_class(classes[is_class], pixels[is_class])
    return Counts(present, totals, ignored, values, faults)


def _sum(frames: list[Counts]) -> Counts:
    """The counts of all frames of a video."""
    classes, pixels = (np.concatenate([f[i] for f in frames]) for i in (0, 1))
    present, pixels = _sum_by_class(classes, pixels)
    values = np.unique(np.concatenate([f.values for f in frames]))
    faults = [fault for f in frames for fault in f.faults]
    return Counts(present, pixels, sum(f.ignored for f in frames), values, faults)


def _sum_by_class(classes: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each class once, ascending, and the sum of its pixels."""
    present, index = np.unique(classes, return_inverse=True)
    return present, np.bincount(index, pixels, len(present)).astype(np.int64)


def scan_label_image(record: dict, meaning: Meaning) -> Found:
    """The pixels of each value of a label image; unknown values are a fault."""
    path = record["sem_seg_file_name"]
    reading = {"label_colors": meaning.colors, "grey_labels": meaning.accepts_grey}
    labels = read_values(path, reading)
    values, pixels = _count_values(labels)
    classes = meaning.classes(values)
    faults = _unknown_values(str(path), values, pixels, meaning)
    return classes, pixels, values, labels.shape, faults


def _unknown_values(
    path: str, values: np.ndarray, pixels: np.ndarray, meaning: Meaning
) -> list[Fault]:
    """The fault of values, or colours, without meaning: the most frequent ones and the pixels."""
    is_unknown = meaning.classes(values) == UNKNOWN
    if not is_unknown.any():
        return []
    unknown, pixels = values[is_unknown].tolist(), pixels[is_unknown]
    if unknown[0] < COLOR:
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        return [Fault("unknown value", path, f"{shown}: {pixels.sum()} pixels")]
    order = np.argsort(-pixels, kind="stable")[:5]
    shown = ", ".join(f"{as_color(unknown[i])}: {pixels[i]} pixels" for i in order)
    more = f", ... ({len(unknown)} colours, {pixels.sum()} pixels)" if len(unknown) > 5 else ""
    return [Fault("unknown color", path, f"{shown}{more}; {likely_cause(unknown, meaning.colors)}")]


def scan_segments(record: dict, meaning: Meaning) -> Found:
    """The pixels of each segment of a panoptic PNG; crowds are ignored."""
    ids, pixels = _count_values(id_map := read_segment_ids(record["pan_seg_file_name"]))
    class_of = {
        segment["id"]: IGNORED if segment.get("iscrowd") else segment["category_id"]
        for segment in record["segments_info"]
    }
    classes = np.array([class_of.get(i, IGNORED) for i in ids.tolist()], np.int64)
    return classes, pixels, _NOTHING, id_map.shape, segment_faults(record, ids)


def scan_persons(record: dict, meaning: Meaning) -> Found:
    """The pixels of each part of an image; files of persons are read, and none is a fault."""
    persons = len(record["person_labels"].read())
    found = scan_label_image(record, meaning)
    if persons:
        return found
    return *found[:-1], [*found[-1], Fault("no person", str(record["person_labels"]))]


def scan_annotations(record: dict, meaning: Meaning) -> Found:
    """The pixels of each object, also where objects overlap; crowds are left out."""
    size, path = (record["height"], record["width"]), record["file_name"]
    objects = [note for note in record["annotations"] if not note.get("iscrowd")]
    shapes = [note.get("segmentation") or [] for note in record["annotations"]]
    damaged = mask_faults(shapes, [size] * len(shapes))
    faults = [Fault("damaged mask", path, f"annotation {i} {x}") for i, x in damaged.items()]
    if bare := sum(not note.get("segmentation") for note in objects):
        faults.append(Fault("annotation without mask", path, f"{bare} of them"))
    masks = [rle.to_rle(x, *size) if x and i not in damaged else None for i, x in enumerate(shapes)]
    pixels = [0 if mask is None else int(rle.areas([mask])[0]) for mask in masks]
    is_crowd = [bool(note.get("iscrowd")) for note in record["annotations"]]
    classes = np.array([note["category_id"] for note in record["annotations"]], np.int64)
    keep = ~np.array(is_crowd, bool)
    return classes[keep], np.array(pixels, np.int64)[keep], _NOTHING, size, faults


def _count_values(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted values and their counts; fast because labels form runs."""
    flat = array.ravel()
    starts = run_starts(flat)
    lengths = np.diff(starts, append=len(flat))
    return _sum_by_class(flat[starts], lengths)


def _image_faults(record: dict, label_size=None, resizes: bool = False) -> list[Fault]:
    """The faults of an image file, and of its size compared with labels (height, width)."""
    path = record["file_name"]
    try:
        size = image_size(path, "image", decode=True)
    except FileNotFoundError:
        return [Fault("missing image", path)]
    except UnreadableError as error:
        return [Fault("unreadable image", path, str(error))]
    in_json = (record.get("height", size[0]), record.get("width", size[1]))
    is_file = isinstance(record.get("sem_seg_file_name"), str)
    if label_size is None or (resizes and have_same_shape(label_size, size)):
        label_size = size
    others = {"the label": label_size, "the json": in_json}
    for name, other in others.items():
        if tuple(other) != size:
            advice = size_advice(path, size, other, is_file and not resizes)
            text = f"it is {_text(size)}, {name} is {_text(other)}" + (advice and f"; {advice}")
            return [Fault("size mismatch", path, text)]
    return []


def _text(size) -> str:
    return f"{size[1]} x {size[0]}"
