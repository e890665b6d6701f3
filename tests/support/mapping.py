"""Configs of mappers for small images and videos."""

from detectron2.config import get_cfg

from rankseg_d2.config import add_rankseg_config


def mapper_config(dataset, mapper, keys, opts=()):
    """A config that maps `dataset`; `keys` are a dict, `opts` keys and values in turn."""
    cfg = get_cfg()
    add_rankseg_config(cfg)
    keys = {
        "DATASETS.TRAIN": (dataset,),
        "DATASETS.TEST": (dataset,),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.DATASET_MAPPER_NAME": mapper,
        "INPUT.FORMAT": "RGB",
    } | keys
    cfg.merge_from_list([word for item in keys.items() for word in item] + list(opts))
    return cfg
