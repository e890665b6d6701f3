"""Rename the weights of a file to the model's names: one table for each source of files."""

import functools
import re
from collections.abc import Collection

from torch import Tensor

from .sources import find_table

# (pattern, replacement). A name that the model lacks becomes the first replacement that it has.
RENAMED = (
    (r"^sem_seg_head\.(?!predictor\.)", "sem_seg_head.pixel_decoder."),  # MaskFormerHead before 2
    (r"\.static_query\.", ".query_feat."),  # Mask2Former before version 2
    (r"^", "backbone."),  # ImageNet weights: only a backbone
)

# timm's Swin merges patches before a stage, its authors' after the stage before, as here.
_TIMM_SWIN = (
    r"^layers\.([123])\.downsample\.",
    lambda match: f"backbone.layers.{int(match[1]) - 1}.downsample.",
)
_MARK_OF_TIMM = "layers.3.downsample.reduction.weight"

_COUNTER = ".num_batches_tracked"

# From the names of torchvision's ResNets to detectron2's.
_TORCHVISION = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)


def rename(weights: dict[str, Tensor], own: Collection[str]) -> None:
    """Give the weights, in place, the names that they have in the model."""
    if table := find_table(weights):
        renamed = table.to_ours(weights)
        for name in [name for name in renamed if name.endswith(_COUNTER) and name not in own]:
            del renamed[name]  # frozen norms do not count batches
        weights.clear()
        weights.update(renamed)
    moves = (_TIMM_SWIN, *RENAMED) if _MARK_OF_TIMM in weights else RENAMED
    for old in list(weights):
        bare = old.removeprefix("module.")  # added by DistributedDataParallel
        names = [old, bare, *(re.sub(*moved, bare, count=1) for moved in moves)]
        names.append(f"backbone.{functools.reduce(_substitute, _TORCHVISION, bare)}")
        new = next((name for name in names if name in own), old)
        if new not in weights:
            weights[new] = weights.pop(old)


def _substitute(name: str, moved: tuple) -> str:
    return re.sub(*moved, name)
