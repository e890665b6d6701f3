"""Config keys that follow from the data: data sets, number of classes, ignored label, κ."""

import functools
import logging
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..._yaml import beside
from .register import register_own_data

logger = logging.getLogger(__name__)

_NUM_CLASSES = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
_IGNORE_VALUE = "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"
_TOPK = "MODEL.RANKSEG.TOPK"
_FOLLOWING = {"DATASETS.TRAIN", "DATASETS.TEST", _NUM_CLASSES, _IGNORE_VALUE}


def register_files(cfg: CfgNode) -> list[str]:
    """Register the data sets of DATASETS.FILES, once per process; returns the names of splits."""
    files = cfg.DATASETS.get("FILES", ())
    return [name for path in files for name in register_own_data(path)]


def follow_data(cfg: CfgNode, sources: list[tuple[str, set[str]]], class_list: str) -> None:
    """Register the data sets of DATASETS.FILES; set the keys that follow from them or from TRAIN.

    A key stays if the source that names the data sets sets it, or a later source. Where these set
    all such keys, as a run's config.yaml does, the files may be absent: then they are not read.
    The κ of a base, which cannot know the files, is at most their number of classes.

    Args:
        sources: of the config, later ones win: (name of the source, keys that it sets).
        class_list: the metadata field with the names of the model's classes.
    """
    if cfg.DATASETS.FILES:
        named_by, said = _since(sources, "DATASETS.FILES")
        try:
            cfg.DATASETS.FILES = _find(cfg.DATASETS.FILES, named_by)
            names = register_files(cfg)
        except FileNotFoundError:
            if said >= _FOLLOWING:
                return
            raise
        for key, split in (("TRAIN", "_train"), ("TEST", "_val")):
            if f"DATASETS.{key}" not in said:
                cfg.DATASETS[key] = tuple(name for name in names if name.endswith(split))
        if not (cfg.DATASETS.TRAIN or cfg.DATASETS.TEST):
            raise ValueError(
                f"{named_by}: DATASETS.TRAIN and TEST would be the splits train and val of "
                f"DATASETS.FILES, but these have only {', '.join(names)}; rename the splits, or "
                "set both keys"
            )
        used = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in names]
    else:
        _, said = _since(sources, "DATASETS.TRAIN")
        used = [name for name in cfg.DATASETS.TRAIN if name in MetadataCatalog.list()]
    if used:
        _follow_metadata(cfg, used[0], said, class_list)


def _since(sources: list[tuple[str, set[str]]], key: str) -> tuple[str, set[str]]:
    """The last source that sets a key, and all keys that it or a later source sets."""
    last = max(i for i, (_, keys) in enumerate(sources) if key in keys)
    return sources[last][0], set().union(*(keys for _, keys in sources[last:]))


def _follow_metadata(cfg, dataset: str, said: set[str], class_list: str) -> None:
    metadata, head = MetadataCatalog.get(dataset), cfg.MODEL.SEM_SEG_HEAD
    names = metadata.get(class_list) or metadata.get("thing_classes")
    if _NUM_CLASSES not in said and names:
        head.NUM_CLASSES = len(names)
        _check_topk(cfg, dataset, may_follow=bool(cfg.DATASETS.FILES) and _TOPK not in said)
    ignore = metadata.get("ignore_label", head.IGNORE_VALUE)
    if _IGNORE_VALUE not in said:
        head.IGNORE_VALUE = ignore
    elif ignore != head.IGNORE_VALUE:
        raise ValueError(
            f"{_IGNORE_VALUE} is {head.IGNORE_VALUE}, but {dataset} uses {ignore} for ignored "
            "pixels after loading; remove the key"
        )


def _check_topk(cfg, dataset: str, may_follow: bool) -> None:
    ranking, number = cfg.MODEL.RANKSEG, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if not (ranking.FLAG or ranking.USE_GT) or number >= ranking.TOPK:
        return
    if not may_follow:
        raise ValueError(
            f"{_TOPK} must be in [1, {number}], the number of classes of {dataset}; got "
            f"{ranking.TOPK}. `rankseg-d2 dataset stats` says how many categories an image has"
        )
    _warn_of_topk(dataset, number, ranking.TOPK)
    ranking.TOPK = number


@functools.cache
def _warn_of_topk(dataset: str, number: int, given: int) -> None:
    """Once per process."""
    logger.warning(
        "%s is %d, all classes of %s, and not %d as in the base config; set it to keep fewer "
        "(`rankseg-d2 dataset stats` says how many categories an image has)",
        _TOPK, number, dataset, given,
    )  # fmt: skip


def _find(names, source: str) -> tuple[str, ...]:
    """The absolute paths of the files that a config names: beside it, or in the working folder."""
    found = []
    for name in names:
        paths = [beside(str(name), source), os.path.expanduser(str(name))]
        path = next((path for path in paths if os.path.isfile(path)), None)
        if path is None:
            raise FileNotFoundError(
                f"{source}: DATASETS.FILES names {name}, but no such file exists: neither "
                f"{' nor '.join(dict.fromkeys(map(os.path.abspath, paths)))}"
            )
        found.append(os.path.abspath(path))
    return tuple(found)
