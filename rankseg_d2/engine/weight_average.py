"""SOLVER.EMA: a moving average of the weights, which evaluations and checkpoints take."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of the parameters that are trained; with a decay of 0, none.

    The first update takes the weights as they are. The one of iteration t keeps
    min(decay, (1 + t) / (10 + t)) of the average, which so forgets the first weights soon.
    Buffers, such as the statistics of BatchNorm, are not averaged: they stay the model's.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model = model
        self._own = {name: x for name, x in model.named_parameters() if x.requires_grad}
        # The average; while that is in the model, the weights that are trained. Nothing before the
        # first update.
        self._others: dict[str, Tensor] = {}
        self._is_inside = False

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take in the weights after the step of an iteration, which count from 0."""
        if self.decay and not self._others:
            self._others = self._copies()
        elif self.decay:
            share = 1 - min(self.decay, (1 + iteration) / (10 + iteration))
            own = [self._own[name] for name in self._others]
            torch._foreach_lerp_(list(self._others.values()), own, share)

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Within, the model has the average."""
        was_inside = self._is_inside
        self.put(True)
        try:
            yield
        finally:
            self.put(was_inside)

    @torch.no_grad()
    def put(self, inside: bool) -> None:
        """Give the model the average, or else the weights that are trained."""
        if inside != self._is_inside:
            for name, other in self._others.items():  # in place: a compiled model knows its memory
                before = other.clone()
                other.copy_(self._own[name])
                self._own[name].copy_(before)
            self._is_inside = inside

    def trained(self) -> dict[str, Tensor]:
        """By name the weights that the training goes on from; empty without an average."""
        return self._others if self._is_inside else {name: self._own[name] for name in self._others}

    @torch.no_grad()
    def restore(self, trained: Mapping[str, Tensor]) -> None:
        """The model's weights become the average, and the model goes on with those of `trained`.

        Without any (of a training without an average), the next update begins a new average.
        """
        own = dict(self._model.named_parameters())
        wrong = [
            name for name, x in trained.items() if name not in own or own[name].shape != x.shape
        ]
        if wrong:
            raise ValueError(f"the weights in training, such as {wrong[0]}, are not this model's")
        self._is_inside = False
        self._others = self._copies() if self.decay and trained else {}
        for name, value in trained.items():
            own[name].copy_(value)

    def _copies(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._own.items()}
