"""A ranking without training: a category's score is the best that any region or pixel gives it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..dtypes import at_least_float

_VALUES = 4_000_000  # logits of an image at a time, which limits the memory
_MOST = -1e-6  # of a log probability, so that its logit is finite


def mask_scores(classify: Callable[[Tensor], Tensor], features: Tensor, num_classes: int) -> Tensor:
    """Logit of the largest probability of each category: features (B, N, D) -> (B, C).

    `classify` gives class logits (B, n, C), or with no-object as the last (B, n, C+1), of n of the
    features. What a feature leaves to no-object counts against all categories, so that regions
    without an object hardly count. No gradient comes back. The logits of all features are never
    held at once: of pixels they would be C maps.
    """
    best = None
    with torch.no_grad():
        for part in features.detach().split(max(1, _VALUES // num_classes), dim=1):
            logs = at_least_float(classify(part)).log_softmax(dim=-1)[..., :num_classes].amax(dim=1)
            best = logs if best is None else torch.maximum(best, logs)
        best = best.clamp(max=_MOST)
        return best - torch.log(-torch.expm1(best))
