"""detectron2.evaluation: the inference loop and what becomes of results."""

import logging
import time
from collections import OrderedDict

import pytest
import torch
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict
from torch import nn

import rankseg_d2

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="better on the embedded engine only"
)


class Double(nn.Module):
    def forward(self, inputs):
        assert not self.training
        assert not torch.is_grad_enabled()
        return [2 * x for x in inputs]


class Total(DatasetEvaluator):
    def __init__(self, task):
        self.task = task

    def reset(self):
        self.total = 0

    def process(self, inputs, outputs):
        assert [2 * x for x in inputs] == outputs
        self.total += sum(outputs)

    def evaluate(self):
        return {self.task: {"total": self.total}}


@pytest.fixture
def messages():
    kept = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("training", [True, False])
def test_inference_feeds_every_batch_and_restores_the_mode(training):
    model = Double().train(training)
    assert inference_on_dataset(model, [[1, 2], [3]], Total("a")) == {"a": {"total": 12}}
    assert model.training == training


def test_inference_resets_between_rounds():
    evaluator = Total("a")
    for _ in range(2):
        assert inference_on_dataset(Double(), [[1]], evaluator) == {"a": {"total": 2}}


def test_inference_takes_several_evaluators_or_none():
    both = inference_on_dataset(Double(), [[1]], [Total("a"), Total("b")])
    assert both == {"a": {"total": 2}, "b": {"total": 2}}
    assert inference_on_dataset(Double(), [[1]], None) == {}
    assert inference_on_dataset(Double(), [], Total("a")) == {"a": {"total": 0}}


def test_inference_takes_any_callable():
    assert inference_on_dataset(lambda x: [2 * i for i in x], [[4]], Total("a")) == {
        "a": {"total": 8}
    }


def test_inference_calls_back_around_each_batch():
    calls = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: calls.append(name) for name in names}
    inference_on_dataset(Double(), [[1], [2]], Total("a"), callbacks=callbacks)
    assert calls == [names[0], names[1], names[2], names[1], names[2], names[3]]


def test_an_evaluator_without_result_gives_an_empty_dict():
    class Elsewhere(Total):
        def evaluate(self):
            return None

    assert inference_on_dataset(Double(), [[1]], Elsewhere("a")) == {}
    assert inference_on_dataset(Double(), [[1]], [Elsewhere("a"), Total("b")]) == {
        "b": {"total": 2}
    }


def test_two_evaluators_of_one_task_are_an_error():
    evaluators = DatasetEvaluators([Total("same"), Total("same")])
    evaluators.reset()
    with pytest.raises((AssertionError, ValueError), match="same"):
        evaluators.evaluate()


def test_inference_logs_its_progress_and_the_time_left(messages, monkeypatch):
    later = time.time() + 1000  # what was logged in earlier tests is long ago
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "monotonic", lambda: later)
    inference_on_dataset(Double(), [[1]] * 30, Total("a"))
    text = "\n".join(messages)
    assert "Start inference on 30 batches" in text
    assert "Inference done 11/30. Dataloading: 0.0" in text
    assert "ETA=0:00:00" in text
    assert "Total inference time: 0:00:00" in text
    assert "Total inference pure compute time: 0:00:00" in text
    assert "s / iter per device, on 1 devices)" in text


def test_inference_counts_no_warm_up_in_its_speed(messages):
    clock = {"now": 0.0}

    class Slow(Double):
        batches = 0

        def forward(self, inputs):
            self.batches += 1
            clock["now"] += 100.0 if self.batches <= 5 else 2.0
            return super().forward(inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: clock["now"])
        inference_on_dataset(Slow(), [[1]] * 9, Total("a"))
    assert messages[-1] == (
        "Total inference pure compute time: 0:00:08 (2.000000 s / iter per device, on 1 devices)"
    )


def test_inference_context_switches_to_eval_and_back():
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).train()
    with inference_context(model):
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())


@embedded_only
def test_inference_context_restores_the_mode_after_an_exception():
    model = nn.Linear(1, 1).train()
    with pytest.raises(KeyError), inference_context(model):
        raise KeyError("x")
    assert model.training


def test_results_flatten_to_any_depth():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten_results_dict(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}


def test_csv_lines_hold_the_main_metrics(messages):
    results = OrderedDict(sem_seg=OrderedDict({"mIoU": 12.34567, "IoU-cat": 1.0, "fwIoU": 2}), n=7)
    print_csv_format(results)
    assert messages == [
        "copypaste: Task: sem_seg",
        "copypaste: mIoU,fwIoU",
        "copypaste: 12.3457,2.0000",
        "copypaste: n=7",
    ]


def test_csv_of_something_else_is_an_error():
    print_csv_format({})
    with pytest.raises((AssertionError, ValueError), match=r"\[1\]"):
        print_csv_format([1])


class _Cfg:
    """As much of a config as verify_results reads."""

    def __init__(self, expected):
        self.TEST = self
        self.EXPECTED_RESULTS = expected


def test_expected_results_pass_within_the_tolerance(messages):
    assert verify_results(_Cfg([]), {})
    assert not messages
    assert verify_results(_Cfg([["bbox", "AP", 38.5, 0.2]]), {"bbox": {"AP": 38.65}})
    assert messages == ["Results verification passed."]


@pytest.mark.parametrize("metrics", [{"AP": 39.0}, {"AP": float("nan")}, {"AP": 38.2}])
def test_unexpected_results_end_the_process(metrics, messages):
    with pytest.raises(SystemExit) as stop:
        verify_results(_Cfg([["bbox", "AP", 38.5, 0.2]]), {"bbox": metrics})
    assert stop.value.code == 1
    assert any("failed" in message for message in messages)


@embedded_only
def test_missing_results_end_the_process_and_bad_expectations_are_named():
    with pytest.raises(SystemExit):
        verify_results(_Cfg([["bbox", "AP", 38.5, 0.2]]), {})
    with pytest.raises(ValueError, match=r"EXPECTED_RESULTS.*tolerance.*38\.5"):
        verify_results(_Cfg([["bbox", "AP", 38.5]]), {"bbox": {"AP": 1}})
