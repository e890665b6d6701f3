"""What `Predictor.from_checkpoint` and `from_config` do before and after a model is built."""

from collections.abc import Sequence

import torch
from detectron2.data import MetadataCatalog

from ..config_ranges import FLOAT_TYPES
from ..errors import short
from ..modeling.meta_arch import Segmentation
from .classes import Classes

NAME = "rankseg_d2/checkpoint"  # of the metadata of a model that knows its classes by itself


def check_loaded(model: Segmentation, fresh: Sequence[str], weights: str) -> None:
    """ValueError if weights of the model are not in the file: results would be noise."""
    own = dict(model.named_parameters())
    missing = [name for name in fresh if name in own]
    if missing:
        raise ValueError(
            f"{weights} lacks {len(missing)} of the model's {len(own)} weights, such as "
            f"{', '.join(missing[:3])}; give the config that it was trained with"
        )


def device_of(device: str) -> str:
    """"auto" is a GPU where one is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def dtype_name(dtype: str | torch.dtype) -> str:
    """The name of a type of inference."""
    for name in FLOAT_TYPES:
        if dtype in (name, getattr(torch, name)):
            return name
    raise ValueError(f"dtype must be {', '.join(FLOAT_TYPES)}, not {short(dtype)}")


def describe_classes(classes: Classes) -> None:
    """Metadata under a name of its own, from which the model learns which classes are things."""
    metadata = MetadataCatalog.get(NAME)
    MetadataCatalog.pop(NAME)
    metadata = MetadataCatalog.get(NAME)
    names = list(classes.names)
    metadata.set(
        stuff_classes=names,
        thing_classes=names if len(classes.things) in (0, len(names))
        else [names[i] for i in sorted(classes.things)],
        thing_dataset_id_to_contiguous_id={i: i for i in sorted(classes.things)},
        flip_pairs=classes.flip_pairs,
    )  # fmt: skip
