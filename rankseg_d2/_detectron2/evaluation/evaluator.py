"""The loop that feeds a model's outputs to evaluators, and the evaluators' interface."""

import datetime
import logging
import time
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from ..utils.comm import get_world_size, is_main_process
from ..utils.logger import log_every_n_seconds


class DatasetEvaluator:
    """Collects from each batch what it needs, and makes metrics of it at the end."""

    def reset(self):
        """Forget everything: a new round begins."""

    def process(self, inputs, outputs):
        """Take in one batch: the model's inputs and, in the same order, its outputs."""

    def evaluate(self):
        """The metrics, {task: {metric: number}}; None where another rank returns them."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one; their tasks must differ."""

    def __init__(self, evaluators):
        self._evaluators = evaluators

    def reset(self):
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs, outputs):
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self):
        results = {}
        for evaluator in self._evaluators:
            result = evaluator.evaluate()  # on every rank: it may gather
            if result is None or not is_main_process():
                continue
            if twice := sorted(results.keys() & result.keys()):
                raise ValueError(
                    f"two evaluators return results for {', '.join(map(repr, twice))}; "
                    "leave one of them out, or rename its task"
                )
            results.update(result)
        return results


def inference_on_dataset(model, data_loader, evaluator, callbacks=None):
    """The evaluator's metrics of `model` over `data_loader`, {} on ranks that have none.

    `evaluator` may be a list of them, or None. A module runs in eval mode and is put back into its
    mode afterwards. `callbacks` may hold functions without arguments: on_start, before_inference,
    after_inference, on_end.
    """
    logger = logging.getLogger(__name__)
    if evaluator is None or isinstance(evaluator, (list, tuple)):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()

    def call(name):
        if callbacks and name in callbacks:
            callbacks[name]()

    logger.info("Start inference on %d batches", len(data_loader))
    context = inference_context(model) if isinstance(model, nn.Module) else nullcontext()
    with context, torch.no_grad():
        call("on_start")
        timer = _Timer(len(data_loader))
        for inputs in data_loader:
            timer.lap("data")
            call("before_inference")
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            call("after_inference")
            timer.lap("compute")
            evaluator.process(inputs, outputs)
            timer.lap("eval")
            if progress := timer.end_of_batch():
                log_every_n_seconds(logging.INFO, progress, n=5, name=__name__)
        call("on_end")
    logger.info(timer.summary("time", *timer.seconds))
    logger.info(timer.summary("pure compute time", "compute"))
    return evaluator.evaluate() or {}


@contextmanager
def inference_context(model):
    """The model in eval mode, and back in the mode that it came in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _Timer:
    """Seconds per phase of a batch, after a warm-up of at most 5 batches."""

    def __init__(self, total):
        self.total, self.done, self.warmup = total, 0, max(0, min(5, total - 1))
        self.seconds = {"data": 0.0, "compute": 0.0, "eval": 0.0}
        self._last = time.perf_counter()

    def lap(self, phase):
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now

    def end_of_batch(self):
        """A line that says how far it is, once its numbers mean something; before that None."""
        self.done += 1
        data, compute, evaluation = (self.per_batch(phase) for phase in self.seconds)
        total = data + compute + evaluation
        if self.done == self.warmup:
            self.seconds = dict.fromkeys(self.seconds, 0.0)
        if self.done <= 2 * self.warmup and total < 5:
            return None
        return (
            f"Inference done {self.done}/{self.total}. Dataloading: {data:.4f} s/iter. Inference: "
            f"{compute:.4f} s/iter. Eval: {evaluation:.4f} s/iter. Total: {total:.4f} s/iter. "
            f"ETA={datetime.timedelta(seconds=int(total * (self.total - self.done)))}"
        )

    def per_batch(self, *phases):
        timed = self.done if self.done <= self.warmup else self.done - self.warmup
        return sum(self.seconds[phase] for phase in phases) / max(timed, 1)

    def summary(self, what, *phases):
        total = datetime.timedelta(seconds=round(sum(self.seconds[phase] for phase in phases)))
        per_batch = f"{self.per_batch(*phases):.6f} s / iter per device"
        return f"Total inference {what}: {total} ({per_batch}, on {get_world_size()} devices)"
