"""The best checkpoint, and the guard that lowers the multi-label head's rate."""

import shutil

import pytest
import torch
from detectron2.engine import hooks
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage
from support.toy import ToyModel, ToyTrainer, final_weights, toy_config, train

from rankseg_d2.engine import BestCheckpointer, HeadGuard

# What the evaluations after these iterations give; the last one ends the training.
SCORES = {1: 50.0, 3: 60.0, 5: 59.8, 7: 55.0, 9: 54.8, 12: 10.0}
GUARD = (
    "MODEL.META_ARCHITECTURE", "GuardedToyModel",
    "MODEL.RANKSEG.FLAG", True,
    "SOLVER.CHECKPOINT_PERIOD", 2,
    "SOLVER.MLHEAD_GUARD.ENABLED", True,
    "SOLVER.MLHEAD_GUARD.FACTOR", 0.25,
)  # fmt: skip


@META_ARCH_REGISTRY.register()
class GuardedToyModel(ToyModel):
    """The toy model, whose last layer is called the multi-label head."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.ml_head = self._modules.pop("linear")

    @property
    def linear(self):
        return self.ml_head


class ScriptedTrainer(ToyTrainer):
    """Gives the scores above, and notes the head's rate of each iteration."""

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return {"multilabel": {"mAP": SCORES[get_event_storage().iter]}}

    def build_hooks(self):
        self.rates = []
        return [hooks.CallbackHook(before_step=self.note), *super().build_hooks()]

    @staticmethod
    def note(trainer):
        groups = trainer.optimizer.param_groups
        rates = {group["name"]: group["lr"] for group in groups}
        trainer.rates.append(rates.get("ml_head", 0) / rates["rest"])


def run(folder, *opts, resume=False):
    return train(toy_config(folder, *opts), resume=resume, trainer_class=ScriptedTrainer)


# --- the best checkpoint --------------------------------------------------------------------------


@pytest.mark.parametrize("mode, best", [("max", 3), ("min", 12)])
def test_the_best_checkpoint_goes_by_any_metric(mode, best, tmp_path):
    run(tmp_path, "TEST.BEST.METRIC", "multilabel/mAP", "TEST.BEST.MODE", mode)
    saved = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert saved["iteration"] == best
    assert not any(
        saved["model"][name].equal(value) for name, value in final_weights(tmp_path).items()
    ) or best == 12


def test_without_a_metric_there_is_no_best_checkpoint(tmp_path):
    trainer = run(tmp_path)
    assert not (tmp_path / "model_best.pth").exists()
    assert not any(isinstance(hook, (BestCheckpointer, HeadGuard)) for hook in trainer._hooks)


def test_a_resumed_run_remembers_the_best(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    opts = ("TEST.BEST.METRIC", "multilabel/mAP", "SOLVER.CHECKPOINT_PERIOD", 2)
    run(first, *opts)
    resume_from(first, second, 7)
    trainer = run(second, *opts, resume=True)
    hook = next(hook for hook in trainer._hooks if isinstance(hook, BestCheckpointer))
    assert (hook.best_metric, hook.best_iter) == (60.0, 3)
    assert not (second / "model_best.pth").exists()  # nothing after iteration 7 was better


def resume_from(first, second, iteration):
    second.mkdir()
    name = f"model_{iteration:07d}.pth"
    shutil.copy(first / name, second / name)
    (second / "last_checkpoint").write_text(name)


# --- the guard ------------------------------------------------------------------------------------


def test_the_heads_rate_is_lowered_where_its_score_falls(tmp_path, caplog):
    with caplog.at_level("INFO", logger="rankseg_d2"):
        trainer = run(tmp_path, *GUARD)
    # From 60 to 55; neither 59.8 nor, from then on, 54.8 is a fall of more than 0.5.
    assert trainer.rates == pytest.approx([1.0] * 8 + [0.25] * 4)
    said = [record.getMessage() for record in caplog.records if "fell" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("multilabel/mAP fell from 60.000 to 55.000: the multi-label head's")


@pytest.mark.parametrize("drop, lowered", [(0.1, [5, 7, 9]), (4.0, [7]), (6.0, [])])
def test_the_guard_overlooks_small_falls(drop, lowered, tmp_path):
    trainer = run(tmp_path, *GUARD, "SOLVER.MLHEAD_GUARD.DROP", drop)
    expected = [0.25 ** sum(after < i for after in lowered) for i in range(12)]
    assert trainer.rates == pytest.approx(expected)


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
@pytest.mark.parametrize("iteration", [1, 3, 5])
def test_the_guard_survives_a_score_that_is_no_number(iteration, number, tmp_path, monkeypatch):
    monkeypatch.setitem(SCORES, iteration, number)
    assert run(tmp_path, *GUARD).rates[-1] == pytest.approx(0.25)  # 55 after 60 or 59.8 is a fall


@pytest.mark.parametrize("schedule", ["WarmupMultiStepLR", "WarmupPolyLR"])
@pytest.mark.parametrize("iteration", [3, 7])
def test_a_resumed_run_keeps_the_lowered_rate_and_the_best_score(schedule, iteration, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    opts = (*GUARD, "SOLVER.LR_SCHEDULER_NAME", schedule)
    whole = run(first, *opts)
    resume_from(first, second, iteration)
    resumed = run(second, *opts, resume=True)
    assert resumed.rates == pytest.approx(whole.rates[iteration + 1 :])
    for name, value in final_weights(first).items():
        assert value.equal(final_weights(second)[name]), name


def test_a_metric_that_nothing_gives_is_named(tmp_path, caplog):
    with caplog.at_level("WARNING", logger="rankseg_d2"):
        trainer = run(tmp_path, *GUARD, "SOLVER.MLHEAD_GUARD.METRIC", "multi/map")
    assert set(trainer.rates) == {1.0}
    said = "gives 'multi/map', so that nothing is guarded; the nearest names are multilabel/"
    assert said in caplog.text


@pytest.mark.parametrize(
    "opts, reason",
    [
        (("MODEL.RANKSEG.FLAG", False), "needs a multi-label head"),
        (("MODEL.RANKSEG.USE_GT", True), "needs a multi-label head"),
        (("MODEL.RANKSEG.SCORES", "masks"), "needs a multi-label head"),
        (("TEST.EVAL_PERIOD", 0), "set TEST.EVAL_PERIOD"),
        (("SOLVER.MLHEAD_GUARD.FACTOR", 2.0), "between 0 and 1, but they are 0.5 and 2.0"),
        (("SOLVER.MLHEAD_GUARD.DROP", -1.0), "DROP must be 0 or more"),
        (("MODEL.META_ARCHITECTURE", "ToyModel"), "groups whose `name` is ml_head"),
    ],
)
def test_a_guard_that_could_do_nothing_is_refused(opts, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        run(tmp_path, *GUARD, *opts)


def test_unknown_modes_are_named(tmp_path):
    with pytest.raises(KeyError, match="TEST.BEST.MODE: 'maximum' is not known"):
        run(tmp_path, "TEST.BEST.MODE", "maximum")
