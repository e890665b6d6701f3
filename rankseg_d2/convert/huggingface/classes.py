"""The classes of config.json, and the data set here that has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.data import MetadataCatalog

from ...errors import short
from ...tasks import IMAGE_TYPES, TASKS, VIDEO_TYPES

_SHARE = 0.6  # of the names must be those of a data set; lists of ADE20K have other synonyms


@dataclass(frozen=True)
class Data:
    """The data set that a model was trained on, as far as it is known, and what it predicts."""

    dataset: str | None
    tasks: tuple[str, ...]

    def keys(self) -> dict[str, Any]:
        """Results and data sets."""
        test = "MODEL.MASK_FORMER.TEST"
        keys = {f"{test}.{task.switch}": name in self.tasks for name, task in TASKS.items()}
        datasets = () if self.dataset is None else (self.dataset,)
        return keys | {"DATASETS.TRAIN": datasets, "DATASETS.TEST": ()}


def class_names(config: Mapping[str, Any]) -> list[str]:
    """The names in the order of the model's outputs."""
    labels = config.get("id2label")
    if not labels:
        return [f"LABEL_{i}" for i in range(config.get("num_labels", 2))]
    try:
        by_number = {int(number): str(name).strip() for number, name in labels.items()}
    except (ValueError, AttributeError):
        by_number = {}
    if sorted(by_number) != list(range(len(labels))):
        raise ValueError(
            f"config.json: id2label must name the classes 0 to {len(labels) - 1}, but is "
            f"{short(labels)}"
        )
    return [by_number[number] for number in range(len(by_number))]


def find_data(names: Sequence[str], said: str, is_video: bool) -> Data:
    """The registered data set with these classes; `said` are words such as the model's name.

    Without one, a model predicts the task that its name says, else label maps.
    """
    asked = next((task for task in ("panoptic", "instance", "semantic") if task in said), None)
    types, found = VIDEO_TYPES if is_video else IMAGE_TYPES, []
    # COCO's older splits, which detectron2 has too, have the same classes.
    for dataset in sorted(MetadataCatalog.list(), key=lambda name: "2014" in name):
        metadata = MetadataCatalog.get(dataset)
        tasks = types.get(metadata.get("evaluator_type"), ())
        own = metadata.get("thing_classes" if tasks == ("instance",) else "stuff_classes") or ()
        if "train" in dataset and _same(names, own):
            found.append(Data(dataset, tasks))
    fitting = [data for data in found if asked is None or asked in data.tasks]
    if asked == "semantic":
        fitting = [data for data in fitting if data.tasks == ("semantic",)] or fitting
    unknown = Data(None, IMAGE_TYPES["coco_panoptic_seg"] if asked == "panoptic" else ())
    best = next(iter(fitting or found), unknown)
    if asked in (None, "panoptic"):
        return Data(best.dataset, best.tasks or ("semantic",))
    return Data(best.dataset, (asked,))


def _same(names: Sequence[str], own: Sequence[str]) -> bool:
    """Whether two lists are of the same classes, of which some have another name in each."""
    if len(names) != len(own):
        return False
    pairs = zip(names, own, strict=True)
    return sum(_plain(a) == _plain(b) for a, b in pairs) >= _SHARE * len(own)


def _plain(name: str) -> str:
    """The first of a class's synonyms, without signs."""
    first = name.replace(";", ",").partition(",")[0].casefold()
    return "".join(letter for letter in first if letter.isalnum())
