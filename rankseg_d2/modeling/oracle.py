"""The categories that are present in a sample, read from its labels at their native size."""

import numpy as np
import torch
from torch import Tensor

_HOW_TO_FIX = (
    "MODEL.RANKSEG.USE_GT ranks by the labels: give samples with one of `present_classes`, "
    "`instances`, `sem_seg` or `sem_seg_file_name`, or set the key False"
)


def present_labels(sample: dict) -> Tensor:
    """Ids of the categories in the sample, from labels at their native size if these are known.

    Small categories vanish when a label map shrinks, which lowers the oracle's results. So the
    dataset mappers of rankseg_d2 add `present_classes`, and the label file is read if it is named.
    """
    if "present_classes" in sample:
        return sample["present_classes"]
    if "sem_seg_file_name" in sample:
        return _read_labels(sample["sem_seg_file_name"])
    if "sem_seg" in sample:
        return sample["sem_seg"].unique()
    if "instances" in sample:
        frames = sample["instances"]
        frames = frames if isinstance(frames, list) else [frames]
        return torch.cat([frame.gt_classes.flatten() for frame in frames]).unique()
    files = sample.get("file_names") or [sample.get("file_name", "a sample")]
    name = files[0] if len(files) == 1 else f"the clip {files[0]} to {files[-1]}"
    raise RuntimeError(f"{name} has no labels. {_HOW_TO_FIX}")


def _read_labels(path: str) -> Tensor:
    """The values in an 8- or 16-bit label image."""
    from ..data.formats.label_images import present_values, read_values

    return torch.from_numpy(present_values(read_values(path)).astype(np.int64))
