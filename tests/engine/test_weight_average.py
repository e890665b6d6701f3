"""SOLVER.EMA: what is averaged, what has the average, and that a resumed run has the same."""

import copy

import pytest
import torch
from detectron2.engine import hooks
from support.toy import ToyTrainer, final_weights, toy_config, train
from torch import nn

from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.weight_average import WeightAverage

DECAY = 0.8
EMA = ("SOLVER.EMA.DECAY", DECAY)


def saved(folder, name="model_final.pth"):
    return torch.load(folder / name, weights_only=True)


def trained(checkpoint):
    return checkpoint["trainer"]["_trainer"]["trained_weights"]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def watched(cfg, resume=False):
    """The trainer, with the weights after each of its `steps` and in each evaluation."""

    class Watched(ToyTrainer):
        steps, evaluated = [], []

        def build_hooks(self):
            def note(trainer):
                self.steps.append(copy.deepcopy(self.model.state_dict()))

            return [hooks.CallbackHook(after_step=note), *super().build_hooks()]

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            cls.evaluated.append(copy.deepcopy(model.state_dict()))
            return super().test(cfg, model, evaluators)

    return train(cfg, resume, Watched)


def averages(steps, decay=DECAY):
    """The average after each step, in float64."""
    result = [{name: x.double() for name, x in steps[0].items()}]
    for t, weights in enumerate(steps[1:], 1):
        kept = min(decay, (1 + t) / (10 + t))
        result.append(mixed(result[-1], weights, kept))
    return result


def mixed(average, weights, kept):
    return {name: kept * average[name] + (1 - kept) * x for name, x in weights.items()}


def assert_close(weights, expected):
    assert weights.keys() == expected.keys()
    for name in weights:
        torch.testing.assert_close(weights[name].double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return watched(toy_config(folder, *EMA)), folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    train(toy_config(folder))
    return folder


def test_checkpoints_have_the_average_and_the_weights_in_training(whole):
    trainer, folder = whole
    expected = averages(trainer.steps)
    for name, step in (("model_0000002.pth", 2), ("model_0000008.pth", 8), ("model_final.pth", 11)):
        checkpoint = saved(folder, name)
        assert_close(checkpoint["model"], expected[step])
        assert_equal(trained(checkpoint), dict(trainer.steps[step]))
        assert checkpoint["ema_decay"] == DECAY


def test_evaluations_and_the_trained_model_have_the_average(whole):
    trainer, folder = whole
    expected = averages(trainer.steps)
    assert len(trainer.evaluated) == 6
    for i, weights in enumerate(trainer.evaluated):
        assert_close(weights, expected[2 * i + 1])
    assert_equal(dict(trainer.model.state_dict()), final_weights(folder))


def test_averaging_does_not_change_the_training(whole, plain):
    assert_equal(trained(saved(whole[1])), final_weights(plain))


def test_without_a_decay_nothing_is_added_to_checkpoints(plain):
    checkpoint = saved(plain)
    assert "ema_decay" not in checkpoint
    assert "trained_weights" not in checkpoint["trainer"]["_trainer"]


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("SOLVER.ACCUMULATION_STEPS", 2),
        ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bf16"),
        ("SOLVER.OPTIMIZER", "ADAMW"),
    ],
    ids=["sgd", "accumulation", "bf16", "adamw"],
)
def test_a_resumed_training_ends_with_the_same_average(tmp_path, opts):
    train(toy_config(tmp_path / "whole", *EMA, *opts))
    (tmp_path / "part").mkdir()
    for name in ("model_0000002.pth", "model_0000008.pth"):
        (tmp_path / "part" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
        (tmp_path / "part" / "last_checkpoint").write_text(name)
        train(toy_config(tmp_path / "part", *EMA, *opts), resume=True)
        ended, expected = saved(tmp_path / "part"), saved(tmp_path / "whole")
        assert_equal(ended["model"], expected["model"])
        assert_equal(trained(ended), trained(expected))


def go_on(folder, new_folder, *opts):
    """Resume from iteration 8 of another run with other options."""
    new_folder.mkdir(exist_ok=True)
    (new_folder / "model_0000008.pth").write_bytes((folder / "model_0000008.pth").read_bytes())
    (new_folder / "last_checkpoint").write_text("model_0000008.pth")
    return watched(toy_config(new_folder, *opts), resume=True)


def test_another_run_and_an_evaluation_load_the_average(whole):
    trainer, folder = whole
    model = copy.deepcopy(trainer.model)
    Checkpointer(model).load(str(folder / "model_0000008.pth"))
    assert_close(model.state_dict(), averages(trainer.steps)[8])


def test_averaging_ends_in_a_resumed_training(tmp_path, whole, plain):
    go_on(whole[1], tmp_path)
    assert_equal(final_weights(tmp_path), final_weights(plain))


def test_averaging_begins_in_a_resumed_training(tmp_path, plain):
    expected, *others = go_on(plain, tmp_path, *EMA).steps  # from iteration 9 on
    for t, weights in zip((10, 11), others, strict=True):
        kept = min(DECAY, (1 + t) / (10 + t))
        expected = mixed(expected, weights, kept)
    assert_close(final_weights(tmp_path), {name: x.double() for name, x in expected.items()})
    assert_equal(trained(saved(tmp_path)), final_weights(plain))


def test_a_longer_training_goes_on_from_the_weights_in_training(tmp_path):
    constant = ("SOLVER.STEPS", (100,), *EMA)
    train(toy_config(tmp_path / "long", *constant))
    train(toy_config(tmp_path / "short", "SOLVER.MAX_ITER", 7, *constant))
    train(toy_config(tmp_path / "short", *constant), resume=True)
    assert_equal(final_weights(tmp_path / "short"), final_weights(tmp_path / "long"))


def test_weights_of_another_model_are_not_taken():
    average = WeightAverage(nn.Linear(2, 3), DECAY)
    with pytest.raises(ValueError, match="such as weight, are not this model's"):
        average.restore({"bias": torch.zeros(3), "weight": torch.zeros(1, 2)})


def test_frozen_weights_and_buffers_are_the_models_own():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].weight.requires_grad_(False)
    average = WeightAverage(model, DECAY)
    average.update(0)
    with torch.no_grad():
        for value in (model[0].weight, model[0].bias, model[1].running_mean):
            value += 1
    average.update(1)
    own = copy.deepcopy(model.state_dict())
    with average.in_model(), average.in_model():
        inside = model.state_dict()
        changed = {name for name in own if not torch.equal(inside[name], own[name])}
        assert changed == {"0.bias"}
        assert_equal(average.trained(), {name: own[name] for name in average.trained()})
    assert_equal(dict(model.state_dict()), dict(own))


def test_the_model_is_as_before_when_an_evaluation_fails():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, DECAY)
    average.update(0)
    with torch.no_grad():
        model.weight += 1
    before = model.weight.clone()
    with pytest.raises(KeyError), average.in_model():
        raise KeyError
    assert torch.equal(model.weight, before)
    assert torch.equal(average.trained()["weight"], before)


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5])
def test_a_decay_outside_its_range_is_refused(tmp_path, decay):
    with pytest.raises(ValueError, match=r"SOLVER.EMA.DECAY must be a finite number .* got"):
        get_config("shapes/panoptic/r10t", ["SOLVER.EMA.DECAY", decay])
