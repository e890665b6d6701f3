"""`shapes`: scenes that are drawn on first use, with 10 to 2,000 categories.

Names are shapes[N][_hard]_{panoptic,sem_seg,instance,video_sem_seg,video_instance}_{train,val},
where N is the number of categories, 100 by default: `shapes_panoptic_train`,
`shapes1000_panoptic_train`. Hard scenes have smaller things, noise, and colours that vary more.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ...files import read_json
from ..formats.youtube_vis import load_video_instances
from ..shapes.build import SPLITS, Spec, coco_categories, ensure_split, ignore_label
from ..shapes.videos import ClipSpec, ensure_clips, label_table
from ..shapes.vocabulary import check_num_categories
from .common import Command, data_root, register_dataset
from .vspw import load_videos

_NUM_CATEGORIES = 100
NUM_IMAGES = {"train": 4000, "val": 400}
_NUM_VIDEOS = {"train": 240, "val": 40}
NAME = re.compile(
    r"shapes(\d{0,9})(_hard)?_(panoptic|(video_)?(sem_seg|instance))_(train|val)"
)


def register_shapes(
    num_categories: int = _NUM_CATEGORIES,
    *,
    hard: bool = False,
    root: str | None = None,
    num_images: dict[str, int] | None = None,
    num_videos: dict[str, int] | None = None,
) -> None:
    """Register the data sets of a number of categories; each is drawn when it is first loaded.

    A later call with another root, or other numbers of images or videos, replaces the former.

    Args:
        hard: the scenes that are hard to read.
        root: the folder that gets `shapes/<num_categories>`; by default `data_root()`.
        num_images, num_videos: of the splits "train" and "val".
    """
    check_num_categories(num_categories)
    suffix = "_hard" if hard else ""
    folder = Path(root or data_root()) / "shapes" / f"{num_categories}{suffix}"
    prefix = f"shapes{'' if num_categories == _NUM_CATEGORIES else num_categories}{suffix}"
    for split in SPLITS:
        spec = Spec(num_categories, split, (num_images or NUM_IMAGES)[split], hard)
        for task, (load, facts_of) in TASKS.items():
            name = f"{prefix}_{task}_{split}"
            target = folder / split
            register_dataset(
                name,
                functools.partial(_make_and_load, load, target, spec),
                functools.partial(facts_of, target, num_categories),
                image_root=target / "images",
            )
        target = folder / f"video_{split}"
        clip_spec = ClipSpec(num_categories, split, (num_videos or _NUM_VIDEOS)[split], hard)
        for task, (load, facts_of) in _VIDEO_TASKS.items():
            register_dataset(
                f"{prefix}_video_{task}_{split}",
                functools.partial(_make_and_load, load, target, clip_spec),
                functools.partial(facts_of, target, num_categories),
                image_root=target / "data",
            )


def register_named(names: Iterable[str]) -> None:
    """Register each of `names` that is a data set of shapes and not registered yet."""
    for name in names:
        match = NAME.fullmatch(name)
        if match and name not in DatasetCatalog.list():
            register_shapes(int(match[1] or _NUM_CATEGORIES), hard=bool(match[2]))


def _make_and_load(load, folder: Path, spec: Spec | ClipSpec) -> list[dict]:
    if isinstance(spec, ClipSpec):
        ensure_clips(folder, spec)
        return load(folder, spec)
    ensure_split(folder, spec)
    return load(folder)


def _load_label_videos(folder: Path, spec: ClipSpec) -> list[dict]:
    return load_videos(folder, spec.split)


def _load_object_videos(folder: Path, spec: ClipSpec) -> list[dict]:
    facts = _instance_facts(folder, spec.num_categories)
    return load_video_instances(folder / "instances.json", folder / "data", facts)


def _load_panoptic(folder: Path) -> list[dict]:
    content = read_json(folder / "panoptic.json")
    return [
        {
            **_paths(folder, image),
            "pan_seg_file_name": str(folder / "panoptic" / annotation["file_name"]),
            "segments_info": [_contiguous(segment) for segment in annotation["segments_info"]],
        }
        for image, annotation in zip(content["images"], content["annotations"], strict=True)
    ]


def _load_semantic(folder: Path) -> list[dict]:
    content = read_json(folder / "panoptic.json")
    return [_paths(folder, image) for image in content["images"]]


def _load_instances(folder: Path) -> list[dict]:
    content = read_json(folder / "instances.json")
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        facts = {"bbox_mode": BoxMode.XYWH_ABS, "segmentation": annotation["segmentation"]}
        facts |= {key: annotation[key] for key in ("bbox", "area", "iscrowd")}
        facts["category_id"] = annotation["category_id"] - 1
        of_image[annotation["image_id"]].append(facts)
    return [
        {**_paths(folder, image), "annotations": of_image[image["id"]]}
        for image in content["images"]
    ]


def _paths(folder: Path, image: dict) -> dict:
    return {
        "file_name": str(folder / "images" / image["file_name"]),
        "sem_seg_file_name": str(folder / "labels" / Path(image["file_name"]).with_suffix(".png")),
        "image_id": image["id"],
        "height": image["height"],
        "width": image["width"],
    }


def _contiguous(segment: dict) -> dict:
    return {**segment, "category_id": segment["category_id"] - 1}


def _panoptic_facts(folder: Path, num_categories: int) -> dict:
    return (
        _instance_facts(folder, num_categories)
        | _semantic_facts(folder, num_categories)
        | {
            "evaluator_type": "coco_panoptic_seg",
            "panoptic_root": folder / "panoptic",
            "panoptic_json": folder / "panoptic.json",
            "label_divisor": 1000,
        }
    )


def _semantic_facts(folder: Path, num_categories: int) -> dict:
    names, colors, ids = _lists(coco_categories(num_categories))
    return {
        "evaluator_type": "sem_seg",
        "stuff_classes": names,
        "stuff_colors": colors,
        "stuff_dataset_id_to_contiguous_id": ids,
        "sem_seg_root": folder / "labels",
        "ignore_label": ignore_label(num_categories),
    }


def _label_video_facts(folder: Path, num_categories: int) -> dict:
    return _semantic_facts(folder, num_categories) | {
        "evaluator_type": "vspw_sem_seg",
        "sem_seg_root": folder / "data",
        "label_table": label_table(num_categories),
    }


def _object_video_facts(folder: Path, num_categories: int) -> dict:
    return _instance_facts(folder, num_categories) | {"evaluator_type": "ytvis"}


def _instance_facts(folder: Path, num_categories: int) -> dict:
    categories = coco_categories(num_categories)
    names, colors, ids = _lists([category for category in categories if category["isthing"]])
    return {
        "evaluator_type": "coco",
        "thing_classes": names,
        "thing_colors": colors,
        "thing_dataset_id_to_contiguous_id": ids,
        "json_file": folder / "instances.json",
    }


def _lists(categories: list[dict]) -> tuple[list[str], list[list[int]], dict[int, int]]:
    """Names, colours, and a map from the file's ids to contiguous ids."""
    names = [category["name"] for category in categories]
    colors = [category["color"] for category in categories]
    return names, colors, {category["id"]: i for i, category in enumerate(categories)}


TASKS = {
    "panoptic": (_load_panoptic, _panoptic_facts),
    "sem_seg": (_load_semantic, _semantic_facts),
    "instance": (_load_instances, _instance_facts),
}
_VIDEO_TASKS = {
    "sem_seg": (_load_label_videos, _label_video_facts),
    "instance": (_load_object_videos, _object_video_facts),
}


def register(root: Path) -> None:
    """Register the data sets of the default size."""
    register_shapes(root=root)


def prepare(root: Path, split: str, workers: int) -> None:
    """Draw a split of the default size: images and videos."""
    folder = Path(root, "shapes", str(_NUM_CATEGORIES))
    ensure_split(folder / split, Spec(_NUM_CATEGORIES, split, NUM_IMAGES[split]), workers)
    spec = ClipSpec(_NUM_CATEGORIES, split, _NUM_VIDEOS[split])
    ensure_clips(folder / f"video_{split}", spec, workers)


COMMANDS = {"shapes": Command(prepare, SPLITS, "draw the built-in data set, 100 categories")}
