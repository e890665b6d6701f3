"""What a config takes from DATASETS.FILES: data sets, number of classes, the value of void."""

import os

from detectron2.data import MetadataCatalog

from .._yaml import beside
from .custom import register_own_data

NUM_CLASSES, IGNORE_VALUE = "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"


def register_files(cfg) -> list[str]:
    """Register the data sets of DATASETS.FILES, once per process; the names of all splits."""
    files = cfg.DATASETS.get("FILES", ())
    return [name for path in files for name in register_own_data(path)]


def follow_files(cfg, named_by: str, said: set[str], class_list: str) -> None:
    """Register the data sets of DATASETS.FILES, and set the keys that follow from them.

    Args:
        named_by: the config file that sets DATASETS.FILES.
        said: the keys that are set there or later; they stay.
        class_list: what the metadata calls the names of the classes that the model learns.
    """
    cfg.DATASETS.FILES = _find(cfg.DATASETS.FILES, named_by)
    names = register_files(cfg)
    for key, split in (("TRAIN", "_train"), ("TEST", "_val")):
        if f"DATASETS.{key}" not in said:
            cfg.DATASETS[key] = tuple(name for name in names if name.endswith(split))
    used = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in names]
    if not used:
        return
    metadata, head = MetadataCatalog.get(used[0]), cfg.MODEL.SEM_SEG_HEAD
    if NUM_CLASSES not in said:
        head.NUM_CLASSES = len(metadata.get(class_list) or metadata.get("thing_classes"))
        _check_topk(cfg, used[0])
    if IGNORE_VALUE not in said:
        head.IGNORE_VALUE = metadata.ignore_label
    elif metadata.ignore_label != head.IGNORE_VALUE:
        raise ValueError(
            f"{IGNORE_VALUE} is {head.IGNORE_VALUE}, but void in {used[0]} is read as "
            f"{metadata.ignore_label}, whatever it is in the files; leave out the key"
        )


def _check_topk(cfg, dataset: str) -> None:
    ranking, number = cfg.MODEL.RANKSEG, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if (ranking.FLAG or ranking.USE_GT) and number < ranking.TOPK:
        raise ValueError(
            f"MODEL.RANKSEG.TOPK is {ranking.TOPK}, but {NUM_CLASSES} follows the data set "
            f"{dataset}, which has {number} classes; set TOPK to 1 to {number}: `rankseg-d2 "
            "dataset stats FILE` says how many an image needs"
        )


def _find(names, source: str) -> tuple[str, ...]:
    """The absolute paths of the files that a config names: beside it, or in the working folder."""
    found = []
    for name in names:
        places = [beside(str(name), source), os.path.expanduser(str(name))]
        path = next((path for path in places if os.path.isfile(path)), None)
        if path is None:
            raise FileNotFoundError(
                f"{source}: DATASETS.FILES names {name}, which is neither "
                f"{' nor '.join(dict.fromkeys(map(os.path.abspath, places)))}"
            )
        found.append(os.path.abspath(path))
    return tuple(found)
