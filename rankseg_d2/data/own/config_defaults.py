"""What a config takes from its data: data sets, number of classes, the value of void."""

import os

from detectron2.data import MetadataCatalog

from ..._yaml import beside
from .register import register_own_data

NUM_CLASSES, IGNORE_VALUE = "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"


def register_files(cfg) -> list[str]:
    """Register the data sets of DATASETS.FILES, once per process; the names of all splits."""
    files = cfg.DATASETS.get("FILES", ())
    return [name for path in files for name in register_own_data(path)]


def follow_data(cfg, sources: list[tuple[str, set[str]]], class_list: str) -> None:
    """Register the data sets of DATASETS.FILES; set the keys that follow from them or from TRAIN.

    A key that is set by the source that names the data sets, or by a later one, stays.

    Args:
        sources: of the config, later ones win: (what it is called, the keys that it sets).
        class_list: what the metadata calls the names of the classes that the model learns.
    """
    if cfg.DATASETS.FILES:
        named_by, said = _since(sources, "DATASETS.FILES")
        cfg.DATASETS.FILES = _find(cfg.DATASETS.FILES, named_by)
        names = register_files(cfg)
        for key, split in (("TRAIN", "_train"), ("TEST", "_val")):
            if f"DATASETS.{key}" not in said:
                cfg.DATASETS[key] = tuple(name for name in names if name.endswith(split))
        if not (cfg.DATASETS.TRAIN or cfg.DATASETS.TEST):
            raise ValueError(
                f"{named_by}: DATASETS.TRAIN and TEST would be the splits train and val of "
                f"DATASETS.FILES, but there are only {', '.join(names)}; name the splits so, or "
                "set the two keys"
            )
        used = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in names]
    else:
        _, said = _since(sources, "DATASETS.TRAIN")
        used = [name for name in cfg.DATASETS.TRAIN if name in MetadataCatalog.list()]
    if used:
        _follow_metadata(cfg, used[0], said, class_list)


def _since(sources: list[tuple[str, set[str]]], key: str) -> tuple[str, set[str]]:
    """The last source that sets a key, and all keys that are set there or later."""
    last = max(place for place, (_, keys) in enumerate(sources) if key in keys)
    return sources[last][0], set().union(*(keys for _, keys in sources[last:]))


def _follow_metadata(cfg, dataset: str, said: set[str], class_list: str) -> None:
    metadata, head = MetadataCatalog.get(dataset), cfg.MODEL.SEM_SEG_HEAD
    names = metadata.get(class_list) or metadata.get("thing_classes")
    if NUM_CLASSES not in said and names:
        head.NUM_CLASSES = len(names)
        _check_topk(cfg, dataset)
    void = metadata.get("ignore_label", head.IGNORE_VALUE)
    if IGNORE_VALUE not in said:
        head.IGNORE_VALUE = void
    elif void != head.IGNORE_VALUE:
        raise ValueError(
            f"{IGNORE_VALUE} is {head.IGNORE_VALUE}, but void in {dataset} is read as {void}, "
            "whatever it is in the files; leave out the key"
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
                f"{source}: DATASETS.FILES names {name}, but there is no "
                f"{' and no '.join(dict.fromkeys(map(os.path.abspath, places)))}"
            )
        found.append(os.path.abspath(path))
    return tuple(found)
