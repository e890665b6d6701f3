"""Names and records of the data sets that are drawn on first use, `shapes` and `stickers`.

Names are NAME[N][_hard]_TASK_{train,val}, such as `shapes_panoptic_train` and
`stickers300_sem_seg_val`. N is the number of categories, 100 by default, and TASK one of panoptic,
entity, sem_seg, instance, video_sem_seg and video_instance.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ...files import read_json
from ..drawn.images import ImageSpec, coco_categories, ignore_label
from ..drawn.split import SPLITS, SplitSpec, ensure_split
from ..drawn.videos import VideoSpec, label_table
from ..formats.youtube_vis import load_video_instances
from .common import data_root, register_dataset
from .entities import entity_metadata, entity_records
from .vspw import load_videos

NUM_CATEGORIES = 100  # of the names without a number
_NAME = re.compile(
    r"([a-z]+)(\d{0,9})((?:_hard)?)_(panoptic|entity|(video_)?(sem_seg|instance))_(train|val)"
)


@dataclass(frozen=True)
class DrawnDataset:
    """A data set that is drawn on first use.

    Args:
        make_vocabulary: vocabulary of a number of categories; raises ValueError for a wrong one.
        image_spec, video_spec: folder of a split, num_categories, split, count -> its parameters.
        num_images, num_videos: the default counts of each split.
    """

    name: str
    make_vocabulary: Callable[[int], Any]
    image_spec: Callable[[Path, int, str, int], SplitSpec]
    video_spec: Callable[[Path, int, str, int], SplitSpec]
    num_images: dict[str, int]
    num_videos: dict[str, int]
    variant: str = ""  # follows the number of categories, as in shapes100_hard

    def register(
        self,
        num_categories: int = NUM_CATEGORIES,
        root: str | Path | None = None,
        num_images: dict[str, int] | None = None,
        num_videos: dict[str, int] | None = None,
    ) -> None:
        """Register the names of a number of categories; each is drawn when it is first loaded.

        A later call with another root, or other numbers of images or videos, replaces the former.

        Args:
            root: the folder that gets `<name>/<num_categories><variant>`; by default `data_root()`.
            num_images, num_videos: of the splits "train" and "val".
        """
        if num_categories != NUM_CATEGORIES:  # whose files no import may read
            self.make_vocabulary(num_categories)
        folder = Path(root or data_root(), self.name, f"{num_categories}{self.variant}")
        number = "" if num_categories == NUM_CATEGORIES else num_categories
        prefix = f"{self.name}{number}{self.variant}"
        kinds = [
            ("", "images", _TASKS, self.image_spec, num_images or self.num_images),
            ("video_", "data", _VIDEO_TASKS, self.video_spec, num_videos or self.num_videos),
        ]
        for kind, images, tasks, make_spec, counts in kinds:
            for split in SPLITS:
                target = folder / f"{kind}{split}"
                spec = functools.partial(make_spec, target, num_categories, split, counts[split])
                for task, (load, facts_of) in tasks.items():
                    register_dataset(
                        f"{prefix}_{kind}{task}_{split}",
                        functools.partial(_make_and_load, load, target, spec),
                        functools.partial(self._facts, facts_of, target, num_categories),
                        image_root=target / images,
                    )

    def prepare(self, root: Path, split: str, workers: int) -> None:
        """Draw a split of the default size: images and videos."""
        folder = Path(root, self.name, f"{NUM_CATEGORIES}{self.variant}")
        for target, make_spec, counts in [
            (folder / split, self.image_spec, self.num_images),
            (folder / f"video_{split}", self.video_spec, self.num_videos),
        ]:
            ensure_split(target, make_spec(target, NUM_CATEGORIES, split, counts[split]), workers)

    def _facts(self, facts_of: Callable, folder: Path, num_categories: int) -> dict:
        return facts_of(folder, self.make_vocabulary(num_categories))


def register_named(datasets: Iterable[DrawnDataset], names: Iterable[str]) -> None:
    """Register each of `names` that is one of `datasets` and not registered yet."""
    by_name = {(dataset.name, dataset.variant): dataset for dataset in datasets}
    for name in names:
        match = _NAME.fullmatch(name)
        dataset = by_name.get((match[1], match[3])) if match else None
        if dataset and name not in DatasetCatalog.list():
            dataset.register(int(match[2] or NUM_CATEGORIES))


def _make_and_load(load: Callable, folder: Path, make_spec: Callable) -> list[dict]:
    spec = make_spec()
    ensure_split(folder, spec)
    return load(folder, spec)


def _load_label_videos(folder: Path, spec: VideoSpec) -> list[dict]:
    return load_videos(folder, spec.split)


def _load_object_videos(folder: Path, spec: VideoSpec) -> list[dict]:
    facts = _instance_facts(folder, spec.vocabulary)
    return load_video_instances(folder / "instances.json", folder / "data", facts)


def _load_panoptic(folder: Path, spec: ImageSpec) -> list[dict]:
    content = read_json(folder / "panoptic.json")
    return [
        {
            **_paths(folder, image),
            "pan_seg_file_name": str(folder / "panoptic" / annotation["file_name"]),
            "segments_info": [_contiguous(segment) for segment in annotation["segments_info"]],
        }
        for image, annotation in zip(content["images"], content["annotations"], strict=True)
    ]


def _load_entities(folder: Path, spec: ImageSpec) -> list[dict]:
    return entity_records(_load_panoptic(folder, spec))


def _load_semantic(folder: Path, spec: ImageSpec) -> list[dict]:
    content = read_json(folder / "panoptic.json")
    return [_paths(folder, image) for image in content["images"]]


def _load_instances(folder: Path, spec: ImageSpec) -> list[dict]:
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


def _panoptic_facts(folder: Path, vocabulary: Any) -> dict:
    return (
        _instance_facts(folder, vocabulary)
        | _semantic_facts(folder, vocabulary)
        | {
            "evaluator_type": "coco_panoptic_seg",
            "panoptic_root": folder / "panoptic",
            "panoptic_json": folder / "panoptic.json",
            "label_divisor": 1000,
        }
    )


def _entity_facts(folder: Path, vocabulary: Any) -> dict:
    return entity_metadata()


def _semantic_facts(folder: Path, vocabulary: Any) -> dict:
    names, colors, ids = _lists(coco_categories(vocabulary))
    return {
        "evaluator_type": "sem_seg",
        "stuff_classes": names,
        "stuff_colors": colors,
        "stuff_dataset_id_to_contiguous_id": ids,
        "sem_seg_root": folder / "labels",
        "ignore_label": ignore_label(len(vocabulary.categories)),
    }


def _label_video_facts(folder: Path, vocabulary: Any) -> dict:
    return _semantic_facts(folder, vocabulary) | {
        "evaluator_type": "vspw_sem_seg",
        "sem_seg_root": folder / "data",
        "label_table": label_table(len(vocabulary.categories)),
    }


def _object_video_facts(folder: Path, vocabulary: Any) -> dict:
    return _instance_facts(folder, vocabulary) | {"evaluator_type": "ytvis"}


def _instance_facts(folder: Path, vocabulary: Any) -> dict:
    categories = coco_categories(vocabulary)
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


_TASKS = {
    "panoptic": (_load_panoptic, _panoptic_facts),
    "entity": (_load_entities, _entity_facts),
    "sem_seg": (_load_semantic, _semantic_facts),
    "instance": (_load_instances, _instance_facts),
}
_VIDEO_TASKS = {
    "sem_seg": (_load_label_videos, _label_video_facts),
    "instance": (_load_object_videos, _object_video_facts),
}
