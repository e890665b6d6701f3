"""What all registrations use: the folder of the data sets, metadata, and records of label maps."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from ..formats.file_lists import check_pairs, read_stems

# Modules of loaders that `register_dataset` may replace: detectron2's, and ours for another root.
_REPLACEABLE = ("detectron2.data.datasets.", "rankseg_d2.data.datasets.")


@dataclass(frozen=True)
class Command:
    """What `rankseg-d2 dataset prepare` runs: `prepare(root, split, workers, **options)`."""

    prepare: Callable[..., None]
    splits: tuple[str, ...]
    help: str
    options: dict[str, str] = field(default_factory=dict)  # name of a flag -> its help
    values: dict[str, str] = field(default_factory=dict)  # name of an option -> its help


def data_root() -> Path:
    """The folder of all data sets: DETECTRON2_DATASETS, else ./datasets, as in detectron2."""
    return Path(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))


class LazyMetadata(Metadata):
    """Metadata of which a part is read from files when it is first asked for."""

    def __init__(self, read: Callable[[], dict] | None = None, **facts: Any) -> None:
        super().__init__(**facts)
        self.__dict__["_read"] = read

    def _complete(self) -> None:
        read = self.__dict__.pop("_read", None)
        if read is not None:
            self.set(**_as_text(read()))

    def __getattr__(self, key: str) -> Any:  # of attributes that are not set
        if "_read" not in self.__dict__:
            return super().__getattr__(key)
        self._complete()
        return getattr(self, key)

    def __setattr__(self, key: str, value: Any) -> None:
        self._complete()
        super().__setattr__(key, value)

    def __delattr__(self, key: str) -> None:
        self._complete()
        super().__delattr__(key)

    def as_dict(self) -> dict:
        self._complete()
        return super().as_dict()

    def __reduce__(self) -> tuple:
        self._complete()
        return super().__reduce__()


def _as_text(facts: dict) -> dict:
    return {key: str(x) if isinstance(x, Path) else x for key, x in facts.items()}


def register_dataset(
    name: str, load: Callable[[], list[dict]], read: Callable[[], dict] = dict, **metadata
) -> None:
    """Register a data set; its files are read when it is loaded.

    Args:
        read: gives the metadata that come from files, such as the names of classes.

    A registration by the real detectron2 is replaced, so that records and metadata are the same
    with both engines. A registration by other code is kept.
    """
    if name in DatasetCatalog.list():
        loader = DatasetCatalog[name]
        if not getattr(loader, "func", loader).__module__.startswith(_REPLACEABLE):
            return
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog[name] = LazyMetadata(read, name=name, **_as_text(metadata))


def semantic_metadata(classes: list[dict]) -> dict:
    """Names, colours and ids of all classes, including things."""
    metadata = {
        "stuff_classes": [entry["name"].strip() for entry in classes],
        "stuff_dataset_id_to_contiguous_id": {x["id"]: x["train_id"] for x in classes},
    }
    if "color" in classes[0]:
        metadata["stuff_colors"] = [entry["color"] for entry in classes]
    return metadata


def panoptic_metadata(classes: list[dict]) -> dict:
    """Names, colours and ids of all classes, and of the things with the same contiguous ids."""
    things = [entry for entry in classes if entry["isthing"]]
    of_things = semantic_metadata(things).items()
    return semantic_metadata(classes) | {key.replace("stuff", "thing"): x for key, x in of_things}


def semantic_records(
    images: dict[str, Path], labels: dict[str, Path], where: str, names: Iterable[str] | None = None
) -> list[dict]:
    """One record for each of `names`; each must have an image and a label map.

    Without `names`, each image must have a label map and each label map an image. `where` names
    the data set in errors.
    """
    names = sorted(images.keys() | labels.keys()) if names is None else list(names)
    check_pairs(names, images, labels, where)
    return [
        {
            "file_name": str(images[name]),
            "sem_seg_file_name": str(labels[name]),
            "image_id": name,
        }
        for name in names
    ]


def image_records(images: dict[str, Path], where: str, list_file: Path) -> list[dict]:
    """One record for each image of a split without labels, or of its list where that exists."""
    names = read_stems(list_file) if list_file.is_file() else sorted(images)
    absent = [name for name in names if name not in images]
    if absent or not names:
        lacks = f"{absent[0]}.jpg, which {list_file} names" if absent else "images"
        raise FileNotFoundError(f"{where} has no {lacks}; unpack the data set there again")
    return [{"file_name": str(images[name]), "image_id": name} for name in names]
