"""The loss of pixels that are classified one by one."""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(
    logits: Tensor, targets: Tensor, ignore_value: int, average_all: bool = False
) -> Tensor:
    """Mean over the pixels that are not ignored, 0 if all are; or the same sum over all pixels."""
    height, width = targets.shape[-2:]
    logits = logits[..., :height, :width].movedim(1, -1).flatten(0, -2)  # without the padding
    losses = F.cross_entropy(logits, targets.flatten(), ignore_index=ignore_value, reduction="sum")
    count = targets.numel() if average_all else (targets != ignore_value).sum().clamp(min=1)
    return losses / count
