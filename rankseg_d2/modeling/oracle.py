"""The categories that are present in a sample, read from its labels at their native size."""

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from ..data.formats.label_images import READING_KEYS

_HOW_TO_FIX = (
    "MODEL.RANKSEG.USE_GT ranks by the labels: give samples with one of `present_classes`, "
    "`instances`, `sem_seg` or `sem_seg_file_name`, or set the key False"
)


def present_labels(sample: dict, label_metadata: Any = None) -> Tensor:
    """Ids of the categories in the sample, from labels at their native size if these are known.

    Small categories vanish when a label map shrinks, which lowers the oracle's results. So the
    dataset mappers of rankseg_d2 add `present_classes`. A label map in the sample has class ids
    already; the file of one is read by the metadata of its data set (label_table, ignore_label).
    """
    if "present_classes" in sample:
        return sample["present_classes"]
    if "sem_seg" in sample:
        return sample["sem_seg"].unique()
    if "sem_seg_file_name" in sample:
        return _read_labels(sample["sem_seg_file_name"], label_metadata)
    if "instances" in sample:
        frames = sample["instances"]
        frames = frames if isinstance(frames, list) else [frames]
        return torch.cat([frame.gt_classes.flatten() for frame in frames]).unique()
    files = sample.get("file_names") or [sample.get("file_name", "a sample")]
    name = files[0] if len(files) == 1 else f"the clip {files[0]} to {files[-1]}"
    raise RuntimeError(f"{name} has no labels. {_HOW_TO_FIX}")


def label_metadata(cfg: CfgNode) -> Any:
    """The metadata by which label files are read: of the data sets of DATASETS.TEST, or of TRAIN.

    ValueError if they read them differently.
    """
    names = [name for name in cfg.DATASETS.TEST or cfg.DATASETS.TRAIN if name in MetadataCatalog]
    found = [MetadataCatalog.get(name) for name in names]
    for key in READING_KEYS:
        for name, metadata in zip(names, found, strict=True):
            if not np.array_equal(metadata.get(key), found[0].get(key)):
                raise ValueError(
                    f"MODEL.RANKSEG.USE_GT ranks by label files, which {names[0]} and {name} read "
                    f"differently ({key} of their metadata); evaluate one at a time"
                )
    return found[0] if found else None


def _read_labels(path: str, label_metadata: Any) -> Tensor:
    """The classes of an 8- or 16-bit label image, `ignore_label` left out."""
    from ..data.formats.label_images import present_values, read_label_map

    metadata = {} if label_metadata is None else label_metadata
    labels = present_values(read_label_map(path, metadata)).astype(np.int64)
    return torch.from_numpy(labels[labels != metadata.get("ignore_label", 255)])
