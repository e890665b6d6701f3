"""What every transformer decoder returns."""

from dataclasses import dataclass

from torch import Tensor

from ...ranking import Ranking


@dataclass(frozen=True)
class Predictions:
    """L predictions of one forward pass, the last of which is the result.

    Decoders give no class logits: the meta-architecture computes them from `queries`, once it
    knows which categories are worth it.
    """

    queries: Tensor  # (L, B, Q, D), after the decoder's norm: what the classifier sees
    masks: list[Tensor]  # L times (B, Q, T, h, w), logits
    layers: list[Tensor]  # per decoder layer (B, Q, D), before the norm: what a ranking head sees
    ranking: Ranking | None = None  # which categories the class logits' columns mean; None: all
    logits: Tensor | None = None  # (B, Q, K+1), of the last prediction's classes
