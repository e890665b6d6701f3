"""MHP (Multi-Human Parsing), v1 with 19 classes and v2 with 59: a part map of each person."""

import functools
from dataclasses import dataclass
from pathlib import Path

from ...files import write_image
from ..formats.file_lists import check_pairs, find, read_stems
from ..formats.person_labels import PersonLabels
from ..prepare.job import Job, Preparation, make_files
from . import common
from .common import Command
from .persons import existing, parsing_metadata, part_metadata

NUM_TRAIN = 3_000  # of v1's list of train and val
OWN_LIST = "val_list.txt"  # not in all copies of v1


@dataclass(frozen=True)
class Version:
    """What is where in one version; {} in a pattern is the split."""

    folder: str
    class_list: str
    num_parts: int  # with background
    splits: tuple[str, ...]  # with labels
    images: str
    persons: str
    lists: dict[str, str]
    first_channel: bool  # of the part maps

    def pattern(self, kind: str, split: str) -> str:
        return f"{self.folder}/{getattr(self, kind).format(split)}"


VERSIONS = {
    "mhpv1": Version(
        "LV-MHP-v1", "mhpv1_19", 19, ("train", "val", "test"),
        "images/*.jpg", "annotations/*.png",
        {"train": "train_list.txt", "val": "train_list.txt", "test": "test_list.txt"}, False,
    ),
    "mhpv2": Version(
        "LV-MHP-v2", "mhpv2_59", 59, ("train", "val"),
        "{}/images/*.jpg", "{}/parsing_annos/*.png",
        {"train": "list/train.txt", "val": "list/val.txt"}, True,
    ),
}  # fmt: skip


def register(root: Path) -> None:
    """`mhp{v1,v2}_{sem_seg,parsing}_{train,val,test}`; the labels of v2's test are not public."""
    for name, version in VERSIONS.items():
        for split in ("train", "val", "test"):
            has_labels = split in version.splits
            common.register_dataset(
                f"{name}_sem_seg_{split}",
                functools.partial(load_semantic, name, root, split),
                functools.partial(part_metadata, version.class_list),
                evaluator_type="sem_seg",
                ignore_label=255,
                has_labels=has_labels,
            )
            common.register_dataset(
                f"{name}_parsing_{split}",
                functools.partial(load_persons, name, root, split),
                functools.partial(parsing_metadata, version.class_list),
                evaluator_type="human_parsing",
                ignore_label=255,
                has_labels=has_labels,
            )


def load_semantic(name: str, root: Path, split: str) -> list[dict]:
    version = VERSIONS[name]
    if split not in version.splits:
        return _load_test(version, root, split)
    preparation(name, root, split).require()
    return common.semantic_records(
        find(root, version.pattern("images", split)),
        find(root, f"{version.folder}/semantic_detectron2/{split}/*.png"),
        f"{name}_sem_seg_{split}",
        _names(version, root, split),
    )


def load_persons(name: str, root: Path, split: str) -> list[dict]:
    """The same, with the persons of each image."""
    version, records = VERSIONS[name], load_semantic(name, root, split)
    if split not in version.splits:
        return records
    persons = _persons(version, root, split)
    names = [record["image_id"] for record in records]
    where = str(root / version.pattern("persons", split))
    check_pairs(names, dict.fromkeys(names), persons, where)
    return [
        record | {"person_labels": _labels(version, persons[record["image_id"]])}
        for record in records
    ]


def _load_test(version: Version, root: Path, split: str) -> list[dict]:
    folder = existing(root, [version.pattern("images", split).rpartition("/")[0]])
    list_file = root / version.folder / "list" / f"{split}.txt"
    return common.image_records(find(root, f"{folder}/*.jpg"), str(root / folder), list_file)


def _names(version: Version, root: Path, split: str) -> list[str]:
    """The names of a split, without endings.

    v1 has one list of train and val, whose first 3,000 are train; a val_list.txt is used instead.
    """
    names = read_stems(root / version.folder / version.lists[split])
    if not _is_shared(version, split):
        return names
    own = _own_list(version, root, split)
    if own is not None:
        val = read_stems(own)
        return val if split == "val" else [name for name in names if name not in set(val)]
    return names[:NUM_TRAIN] if split == "train" else names[NUM_TRAIN:]


def _is_shared(version: Version, split: str) -> bool:
    """Whether train and val have one list."""
    return split in ("train", "val") and version.lists["train"] == version.lists["val"]


def _own_list(version: Version, root: Path, split: str) -> Path | None:
    """v1's list of val alone, where it exists; it changes train too."""
    path = root / version.folder / OWN_LIST
    return path if _is_shared(version, split) and path.is_file() else None


def _persons(version: Version, root: Path, split: str) -> dict[str, list[Path]]:
    """The part maps of each image, sorted; `<image>_<persons>_<person>.png`."""
    found: dict[str, list[Path]] = {}
    for key, path in find(root, version.pattern("persons", split)).items():
        found.setdefault(key.rsplit("_", 2)[0], []).append(path)
    return found


def _labels(version: Version, paths: list[Path]) -> PersonLabels:
    return PersonLabels(
        tuple(map(str, paths)), version.num_parts, first_channel=version.first_channel
    )


def prepare(name: str, root: Path, split: str, workers: int) -> None:
    """The part maps of persons -> one label map per image (0 is background)."""
    version = VERSIONS[name]
    with preparation(name, root, split).making() as not_before:
        names, persons = _names(version, root, split), _persons(version, root, split)
        images = find(root, version.pattern("images", split))
        check_pairs(names, images, persons, str(root / version.folder / version.lists[split]))
        target = root / version.folder / "semantic_detectron2" / split
        jobs = [Job(target / f"{one}.png", tuple(persons[one]), (name,)) for one in names]
        make_files(convert, jobs, f"{name} {split}", workers, not_before)


def convert(job: Job) -> None:
    """Merge the persons; where they overlap, the first file in sorted order stays."""
    (name,) = job.args
    write_image(job.target, _labels(VERSIONS[name], list(job.sources)).merged())


def preparation(name: str, root: Path, split: str) -> Preparation:
    version = VERSIONS[name]
    lists = [version.lists[split]]
    if _own_list(version, root, split) is not None:
        lists.append(OWN_LIST)
    return Preparation(
        name,
        root,
        f"{version.folder}/prepared_{split}.json",
        outputs=(f"{version.folder}/semantic_detectron2/{split}/*.png",),
        sources=(
            *(f"{version.folder}/{name}" for name in lists),
            version.pattern("persons", split),
        ),
    )


COMMANDS = {
    name: Command(
        functools.partial(prepare, name),
        version.splits,
        f"MHP {name[-2:]}, {version.num_parts} classes, semantic and parsing",
    )
    for name, version in VERSIONS.items()
}
