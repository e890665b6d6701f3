"""Every image and label of a data set, read by several processes and counted."""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from ...tasks import LABEL_KEYS, TASKS, find
from ..formats import rle
from ..formats.label_images import check_depth, read_segment_ids, read_values, run_starts
from ..formats.video_frames import frame_records
from ..own.pairing import Fault, segment_faults
from ..prepare.processes import run_jobs, usable_cpus

UNKNOWN, VOID = -1, -2
WORTH_A_PROCESS = 300  # records: about what is read in the seconds that a process takes to start
NOTHING = np.zeros(0, np.int64)
BY_DETAIL = ("panoptic", "semantic", "instance")  # of a record that has several kinds of labels


class Seen(NamedTuple):
    """What one record's files hold."""

    present: np.ndarray  # classes, ascending
    pixels: np.ndarray  # of each of them
    void: int  # pixels
    values: np.ndarray  # of a label image, as they are on disk
    faults: list[Fault]


class Meaning(NamedTuple):
    """How labels are read: what a worker needs of the metadata."""

    num_classes: int
    ignore_label: int
    table: np.ndarray | None  # value -> class id, ignore_label, or -1

    @classmethod
    def of(cls, metadata) -> "Meaning":
        table = metadata.get("label_table")
        table = None if table is None else np.asarray(table)
        return cls(len(class_names(metadata)), metadata.get("ignore_label", 255), table)

    def classes(self, values: np.ndarray) -> np.ndarray:
        """The class of each value, or VOID, or UNKNOWN."""
        classes = values.astype(np.int64)
        if self.table is not None:
            inside = (classes >= 0) & (classes < len(self.table))
            classes = np.where(inside, self.table[np.where(inside, classes, 0)], UNKNOWN)
        is_void = classes == self.ignore_label
        is_class = (classes >= 0) & (classes < self.num_classes)
        return np.where(is_void, VOID, np.where(is_class, classes, UNKNOWN))


@dataclass
class Tally:
    """The counts of one split."""

    num_classes: int
    records: int = 0
    void: int = 0
    faults: list[Fault] = field(default_factory=list)
    values: set[int] = field(default_factory=set)
    pixels: np.ndarray = field(init=False)  # (C,)
    pairs: np.ndarray = field(init=False)  # (C, C): images with both; the diagonal: with the class
    sizes: np.ndarray = field(init=False)  # (C + 1,): images with so many classes

    def __post_init__(self):
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.pairs = np.zeros((self.num_classes, self.num_classes), np.int64)
        self.sizes = np.zeros(self.num_classes + 1, np.int64)

    @property
    def images(self) -> np.ndarray:
        """In how many images each class is: (C,)."""
        return self.pairs.diagonal()

    def add(self, seen: Seen) -> None:
        self.records += 1
        self.void += seen.void
        self.faults += seen.faults
        self.values.update(seen.values.tolist())
        self.pixels[seen.present] += seen.pixels
        self.pairs[np.ix_(seen.present, seen.present)] += 1
        self.sizes[len(seen.present)] += 1


def class_names(metadata) -> list[str]:
    """All classes of a data set: things and stuff, or the things where it has no others."""
    names = metadata.get("stuff_classes") or metadata.get("thing_classes")
    if not names:
        raise ValueError(
            f"the metadata of {metadata.name} has neither stuff_classes nor thing_classes; "
            f"set them: MetadataCatalog.get({metadata.name!r}).stuff_classes = [names]"
        )
    return list(names)


def scan(
    records: list[dict], metadata, title: str, workers: int | None = None, images: bool = True
) -> Tally:
    """The counts of all records; with `images`, the image files are decoded too.

    Without `workers`: one process per CPU, or fewer where so few records are read sooner than it
    starts.
    """
    if workers is None:
        workers = min(usable_cpus(), 1 + len(records) // WORTH_A_PROCESS)
    meaning = Meaning.of(metadata)
    tally = Tally(meaning.num_classes)
    look = partial(look_at, meaning=meaning, images=images)
    for _, seen in run_jobs(look, records, len(records), title, workers):
        tally.add(seen)
    return tally


def look_at(record: dict, meaning: Meaning, images: bool) -> Seen:
    """What the labels of a record hold, and what is wrong with them and with its images."""
    if "file_names" in record:
        return _all_of([look_at(frame, meaning, images) for frame in frame_records(record)])
    task = next((TASKS[name] for name in BY_DETAIL if TASKS[name].label_key in record), None)
    if task is None:
        raise ValueError(f"{record.get('file_name', 'a record')} has no label that can be checked, "
                         f"which is one of {', '.join(sorted(LABEL_KEYS))}")
    key, read = task.label_key, find(task.scan)
    size = None
    try:
        classes, pixels, values, size, faults = read(record, meaning)
    except (ValueError, OSError) as error:
        absent = isinstance(error, FileNotFoundError)
        kind = "missing label" if absent else "unreadable label"
        classes = pixels = values = NOTHING
        faults = [Fault(kind, str(record[key]), "" if absent else str(error))]
    if images:
        faults += _image_faults(record, size)
    void = int(pixels[classes == VOID].sum())
    is_class = (classes >= 0) & (classes < meaning.num_classes)
    present, place = np.unique(classes[is_class], return_inverse=True)
    totals = np.bincount(place, pixels[is_class], len(present)).astype(np.int64)
    return Seen(present, totals, void, values, faults)


def _all_of(frames: list[Seen]) -> Seen:
    """What the frames of a video hold together."""
    present, place = np.unique(np.concatenate([f.present for f in frames]), return_inverse=True)
    pixels = np.bincount(place, np.concatenate([f.pixels for f in frames]), len(present))
    values = np.unique(np.concatenate([f.values for f in frames]))
    faults = [fault for f in frames for fault in f.faults]
    return Seen(present, pixels.astype(np.int64), sum(f.void for f in frames), values, faults)


def scan_label_image(record: dict, meaning: Meaning):
    path = record["sem_seg_file_name"]
    labels = read_values(path)
    values, pixels = count_values(labels)
    classes = meaning.classes(values)
    unknown = values[classes == UNKNOWN]
    shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    shown += f": {pixels[classes == UNKNOWN].sum()} pixels"
    faults = [Fault("unknown value", path, shown)] if len(unknown) else []
    return classes, pixels, values, labels.shape, faults


def scan_segments(record: dict, meaning: Meaning):
    """Crowds are void."""
    ids, pixels = count_values(id_map := read_segment_ids(record["pan_seg_file_name"]))
    class_of = {
        segment["id"]: VOID if segment.get("iscrowd") else segment["category_id"]
        for segment in record["segments_info"]
    }
    classes = np.array([class_of.get(i, VOID) for i in ids.tolist()], np.int64)
    return classes, pixels, NOTHING, id_map.shape, segment_faults(record, ids)


def scan_annotations(record: dict, meaning: Meaning):
    """Pixels of overlapping objects count for each; crowds do not count."""
    size, faults = (record["height"], record["width"]), []
    objects = [note for note in record["annotations"] if not note.get("iscrowd")]
    pixels = []
    bare = sum(not note.get("segmentation") for note in objects)
    if bare:
        faults.append(Fault("annotation without mask", record["file_name"], f"{bare} of them"))
    for note in objects:
        mask = rle.to_rle(note["segmentation"], *size) if note.get("segmentation") else None
        pixels.append(0 if mask is None else int(rle.areas([mask])[0]))
        if mask is not None and tuple(mask["size"]) != size:
            text = f"its image is {_text(size)}, a mask is {_text(mask['size'])}"
            faults.append(Fault("size mismatch", record["file_name"], text))
    classes = np.array([note["category_id"] for note in objects], np.int64)
    return classes, np.array(pixels, np.int64), NOTHING, size, faults


def count_values(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted values, and how often each is there; fast where values come in runs."""
    flat = array.ravel()
    starts = run_starts(flat)
    lengths = np.diff(starts, append=len(flat))
    values, place = np.unique(flat[starts], return_inverse=True)
    return values, np.bincount(place, lengths, len(values)).astype(np.int64)


def _image_faults(record: dict, label_size) -> list[Fault]:
    path = record["file_name"]
    try:
        size = _image_size(path)
    except FileNotFoundError:
        return [Fault("missing image", path)]
    except Exception as error:  # decoders raise all sorts; the file cannot be read, whatever it is
        return [Fault("unreadable image", path, str(error))]
    said = (record.get("height", size[0]), record.get("width", size[1]))
    others = {"the label": label_size or size, "the json": said}
    return [
        Fault("size mismatch", path, f"it is {_text(size)}, {name} is {_text(other)}")
        for name, other in others.items() if tuple(other) != size
    ][:1]


def _image_size(path: str) -> tuple[int, int]:
    """Height and width of the upright image, all of which is decoded."""
    from PIL import Image

    with Image.open(path) as image:
        check_depth(image, path)
        width, height = image.size
        image.draft("L", (width // 8, height // 8))  # a JPEG is read whole, but not all computed
        image.load()
        is_turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation
    return (width, height) if is_turned else (height, width)


def _text(size) -> str:
    return f"{size[1]} x {size[0]}"
