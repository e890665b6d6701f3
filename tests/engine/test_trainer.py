"""The training loop, its hooks and our trainer, on a toy model."""

import json
import logging
import os
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import (
    AMPTrainer,
    DefaultPredictor,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    default_setup,
    hooks,
)
from support.paths import ROOT
from support.toy import NUM_IMAGES, ToyMapper, ToyTrainer, toy_config, toy_dicts, train
from torch import nn

from rankseg_d2 import engine_name
from rankseg_d2.engine import BestCheckpointer, build_train_loader, setup
from rankseg_d2.engine.trainer import amp_dtype
from rankseg_d2.evaluation import build_evaluator, register_evaluator


class Quadratic(nn.Module):
    """Its loss is the square of its one weight times the data."""

    def __init__(self, value=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))

    def forward(self, data):
        return {"loss": (self.weight * data).square().sum()}


class Moments(HookBase):
    """Writes down when it is called."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def before_train(self):
        self.calls.append((self.name, "before_train"))

    def before_step(self):
        self.calls.append((self.name, "before_step", self.trainer.iter))

    def after_backward(self):
        self.calls.append((self.name, "after_backward"))

    def after_step(self):
        self.calls.append((self.name, "after_step"))

    def after_train(self):
        self.calls.append((self.name, "after_train", self.trainer.iter))


def simple_trainer(model, data, lr=0.1, trainer=SimpleTrainer, **kwargs):
    return trainer(model, data, torch.optim.SGD(model.parameters(), lr), **kwargs)


def metrics_of(output_dir):
    with open(os.path.join(output_dir, "metrics.json")) as file:
        return [json.loads(line) for line in file]


def test_hooks_are_called_in_order_at_each_moment():
    calls = []
    trainer = simple_trainer(Quadratic(), [1.0, 1.0, 1.0])
    trainer.register_hooks([Moments("a", calls), None, Moments("b", calls)])
    trainer.train(1, 3)
    of_a = [call[1:] for call in calls if call[0] == "a"]
    assert of_a == [
        ("before_train",),
        ("before_step", 1), ("after_backward",), ("after_step",),
        ("before_step", 2), ("after_backward",), ("after_step",),
        ("after_train", 3),
    ]  # fmt: skip
    assert [call[0] for call in calls] == ["a", "b"] * len(of_a)


def test_after_train_runs_when_a_step_fails():
    calls = []
    evaluated = []
    trainer = simple_trainer(Quadratic(), [1.0, float("nan"), 1.0])
    trainer.register_hooks([Moments("a", calls), hooks.EvalHook(0, lambda: evaluated.append(1))])
    with pytest.raises(FloatingPointError, match="(?s)iteration=1.*'loss': .*nan"):
        trainer.train(0, 3)
    assert calls[-1] == ("a", "after_train", 1) and not evaluated


def test_a_loss_that_is_not_finite_changes_no_weight():
    model = Quadratic()
    trainer = simple_trainer(model, [float("inf")])
    with pytest.raises(FloatingPointError):
        trainer.train(0, 1)
    assert model.weight.item() == 1.0


def test_simple_trainer_steps_as_by_hand_and_stores_its_loss():
    model = Quadratic()
    trainer = simple_trainer(model, [1.0, 2.0])
    trainer.train(0, 2)
    weight = 1.0 - 0.1 * 2.0
    expected_loss = (weight * 2.0) ** 2
    weight -= 0.1 * 2.0 * weight * 4.0
    assert model.weight.item() == pytest.approx(weight)
    assert trainer.storage.latest()["total_loss"] == (pytest.approx(expected_loss), 1)


def test_metrics_may_be_written_in_the_background_and_seldom():
    trainer = simple_trainer(Quadratic(), [1.0] * 4, gather_metric_period=2)
    trainer.train(0, 4)
    assert [i for _, i in trainer.storage.history("total_loss").values()] == [1, 3]
    trainer = simple_trainer(Quadratic(), [1.0] * 4, async_write_metrics=True)
    trainer.train(0, 4)
    assert trainer.concurrent_executor._shutdown


def test_the_loader_can_be_replaced():
    model = Quadratic()
    trainer = simple_trainer(model, [0.0, 0.0])
    trainer.train(0, 1)
    trainer.reset_data_loader(lambda: [1.0])
    trainer.train(1, 2)
    assert model.weight.item() == pytest.approx(0.8)


@pytest.mark.gpu
def test_amp_trainer_saves_its_scaler():
    trainer = simple_trainer(Quadratic().cuda(), [1.0] * 3, trainer=AMPTrainer)
    trainer.train(0, 3)
    other = simple_trainer(Quadratic().cuda(), [1.0], trainer=AMPTrainer)
    other.load_state_dict(trainer.state_dict())
    assert other.grad_scaler.state_dict() == trainer.grad_scaler.state_dict()


def test_state_of_hooks_that_are_gone_is_left_out(caplog, monkeypatch):
    trainer = simple_trainer(Quadratic(), [1.0])
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    state = trainer.state_dict() | {"hooks": {"Gone": {"x": 1}}, "iteration": 7}
    trainer.load_state_dict(state)
    assert trainer.iter == 7 and "Gone" in caplog.text


def test_evaluation_runs_each_period_and_at_the_end():
    at = []
    trainer = simple_trainer(Quadratic(), [1.0] * 6)
    evaluate = hooks.EvalHook(2, lambda: at.append(trainer.iter) or {"seg": {"mIoU": 1.0}})
    trainer.register_hooks([evaluate])
    trainer.train(0, 6)
    assert at == [1, 3, 6]
    assert trainer.storage.latest()["seg/mIoU"] == (1.0, 6)


def test_evaluation_that_returns_no_numbers_is_an_error():
    trainer = simple_trainer(Quadratic(), [1.0])
    trainer.register_hooks([hooks.EvalHook(0, lambda: {"seg": {"mIoU": "high"}})])
    with pytest.raises(ValueError, match="seg/mIoU"):
        trainer.train(0, 1)


class Scores(TrainerBase):
    """No training, only a scalar per iteration."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def run_step(self):
        self.storage.put_scalar("score", self.scores[self.iter])


class Saves:
    """A checkpointer that only writes down what it is asked to save."""

    def __init__(self):
        self.saved = []

    def save(self, name, **kwargs):
        self.saved.append((name, kwargs))


@pytest.mark.parametrize(("mode", "best"), [("max", [1, 3, 4]), ("min", [1, 2])])
def test_best_checkpoint_is_saved_when_the_metric_improves(mode, best):
    checkpointer = Saves()
    trainer = Scores([float("nan"), 2.0, 1.0, 3.0, 4.0])
    trainer.register_hooks([hooks.BestCheckpointer(1, checkpointer, "score", mode=mode)])
    trainer.train(0, 5)
    assert checkpointer.saved == [("model_best", {"iteration": i}) for i in best]


def test_a_resumed_run_remembers_its_best():
    hook, checkpointer = BestCheckpointer(1, Saves(), "score"), Saves()
    trainer = Scores([5.0])
    trainer.register_hooks([hook])
    trainer.train(0, 1)
    resumed = Scores([None, 4.0, 6.0])
    resumed.register_hooks([BestCheckpointer(1, checkpointer, "score")])
    resumed.load_state_dict(trainer.state_dict())
    resumed.train(1, 3)
    assert checkpointer.saved == [("model_best", {"iteration": 2})]


def test_callbacks_get_the_trainer():
    calls = []
    trainer = Scores([1.0])
    trainer.register_hooks(
        [
            hooks.CallbackHook(
                before_train=lambda t: calls.append("before_train"),
                before_step=lambda t: calls.append(t.iter),
                after_step=lambda t: calls.append(t.max_iter),
                after_train=lambda t: calls.append("after_train"),
            )
        ]
    )
    trainer.train(0, 1)
    assert calls == ["before_train", 0, 1, "after_train"]


def test_precise_bn_takes_the_statistics_of_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3))
    batches = [torch.randn(50, 3) * 2 + 1 for _ in range(4)]
    trainer = Scores([1.0])
    trainer.register_hooks([hooks.PreciseBN(1, model, batches, 4)])
    trainer.train(0, 1)
    torch.testing.assert_close(model[0].running_mean, torch.cat(batches).mean(0))


def test_default_hooks_and_their_order(tmp_path):
    trainer = ToyTrainer(toy_config(tmp_path))
    assert [type(hook).__name__ for hook in trainer._hooks] == [
        "IterationTimer", "LRScheduler", "PeriodicCheckpointer", "EvalHook", "PeriodicWriter",
        "ClassFile", "BatchPictures", "MetricsFiles",
    ]  # fmt: skip


STEPS = [
    "prepare_cfg", "build_model", "build_optimizer", "build_train_loader", "check_parts",
    "wrap_model", "build_step_trainer", "build_lr_scheduler", "build_checkpointer", "build_hooks",
]  # fmt: skip


def recording(base, calls):
    """A subclass of a trainer that writes down which step of its construction is called."""

    def step(name):
        def call(self, *args):
            calls.append(name)
            return getattr(super(Recorded, self), name)(*args)

        return call

    Recorded = type("Recorded", (base,), {name: step(name) for name in STEPS})
    return Recorded


class PlainToyTrainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return [ToyMapper(is_train=True)(record) for record in toy_dicts()]


@pytest.mark.parametrize("base", [ToyTrainer, PlainToyTrainer])
def test_a_trainer_is_made_in_steps_that_can_be_overridden(tmp_path, base):
    if base is PlainToyTrainer and engine_name() == "detectron2":
        pytest.skip("the real detectron2's DefaultTrainer is made in one piece")
    calls = []
    trainer = recording(base, calls)(toy_config(tmp_path))
    assert calls == STEPS
    for part in ("model", "optimizer", "scheduler", "checkpointer", "_trainer"):
        assert getattr(trainer, part) is not None, part


def test_a_wrapped_model_is_what_is_trained_and_saved(tmp_path):
    class Wrapped(ToyTrainer):
        def wrap_model(self, cfg, model):
            model.mark = "wrapped"
            return super().wrap_model(cfg, model)

    trainer = Wrapped(toy_config(tmp_path))
    assert trainer.model.mark == trainer.checkpointer.model.mark == "wrapped"


def test_training_writes_its_files_and_learns(tmp_path):
    trainer = train(toy_config(tmp_path, "SOLVER.MAX_ITER", 40))
    lines = metrics_of(tmp_path)
    assert {"total_loss", "loss_square", "loss_abs", "lr", "time", "data_time"} <= lines[0].keys()
    assert lines[-1]["toy/error"] < 0.15 and trainer.iter == 40
    names = os.listdir(tmp_path)
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert "model_0000002.pth" in names
    assert json.loads((tmp_path / "evaluation.json").read_text())["weights"] == "iteration 40"


def test_tensorboard_is_not_imported_before_its_writer_writes(tmp_path):
    code = (
        "import sys; from support import toy; "
        f"trainer = toy.ToyTrainer(toy.toy_config({str(tmp_path)!r})); "
        "assert 'tensorboard' not in sys.modules and 'scipy' not in sys.modules"
    )
    assert run_python(code) == 0


def run_python(code):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", code], env=env).returncode


def test_learning_rate_warms_up_and_falls_at_its_steps(tmp_path):
    rates = []

    class Watched(ToyTrainer):
        def build_hooks(self):
            watch = hooks.CallbackHook(
                before_step=lambda t: rates.append(t.optimizer.param_groups[0]["lr"])
            )
            return [watch, *super().build_hooks()]

    cfg = toy_config(tmp_path, "TEST.EVAL_PERIOD", 0, "SOLVER.WARMUP_FACTOR", 0.1)
    train(cfg, trainer_class=Watched)
    warm = [0.1 * (0.1 * (1 - i / 4) + i / 4) for i in range(4)]
    assert rates == pytest.approx(warm + [0.1] * 4 + [0.01] * 4)


def test_accumulation_equals_the_whole_batch(tmp_path):
    opts = ("MODEL.MASK_FORMER.DROPOUT", 0.0, "TEST.EVAL_PERIOD", 0)
    whole = train(toy_config(tmp_path / "whole", *opts))
    parts = train(toy_config(tmp_path / "parts", *opts, "SOLVER.ACCUMULATION_STEPS", 2))
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    losses = [[m["total_loss"] for m in metrics_of(tmp_path / n) if "total_loss" in m]
              for n in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_bf16_runs_on_the_cpu_and_is_close(tmp_path):
    seen = []

    class Watched(ToyTrainer):
        @classmethod
        def build_model(cls, cfg):
            model = super().build_model(cfg)
            model.linear.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
            return model

    opts = ("MODEL.MASK_FORMER.DROPOUT", 0.0, "TEST.EVAL_PERIOD", 0, "SOLVER.MAX_ITER", 6)
    full = train(toy_config(tmp_path / "full", *opts))
    amp = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bf16")
    half = train(toy_config(tmp_path / "half", *opts, *amp), trainer_class=Watched)
    # The last call is the evaluation after training, which is not in mixed precision.
    assert set(seen[:6]) == {torch.bfloat16}
    for a, b in zip(full.model.parameters(), half.model.parameters(), strict=True):
        assert b.dtype is torch.float32
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02)


def test_fp16_becomes_bf16_on_the_cpu_with_a_warning(tmp_path, caplog, monkeypatch):
    cfg = toy_config(tmp_path, "SOLVER.AMP.ENABLED", True)
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    assert amp_dtype(cfg, torch.device("cpu")) is torch.bfloat16
    assert "bf16 is taken" in caplog.text
    assert amp_dtype(cfg, torch.device("cuda")) is torch.float16
    cfg.SOLVER.AMP.ENABLED = False
    assert amp_dtype(cfg, torch.device("cuda")) is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_mixed_precision_on_the_gpu(tmp_path, name):
    opts = ("MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", name)
    trainer = train(toy_config(tmp_path, "SOLVER.MAX_ITER", 40, *opts))
    assert metrics_of(tmp_path)[-1]["toy/error"] < 0.15
    assert ("grad_scaler" in trainer.state_dict()["_trainer"]) == (name == "fp16")


def test_unknown_amp_type_is_an_error(tmp_path):
    cfg = toy_config(tmp_path, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "fp8")
    with pytest.raises(ValueError, match="SOLVER.AMP.DTYPE must be one of fp16, bf16, not 'fp8'"):
        ToyTrainer(cfg)


@pytest.mark.parametrize(("parts", "match"), [(3, "IMS_PER_BATCH .4. must be a mult"), (0, "1 or")])
def test_batch_that_does_not_split_is_an_error(tmp_path, parts, match):
    with pytest.raises(ValueError, match=match):
        ToyTrainer(toy_config(tmp_path, "SOLVER.ACCUMULATION_STEPS", parts))


def test_output_folder_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    cfg = toy_config(tmp_path / "file" / "run")
    with pytest.raises(RuntimeError, match="OUTPUT_DIR .*file/run' cannot be written"):
        ToyTrainer(cfg)
    with pytest.raises(RuntimeError, match="set OUTPUT_DIR to a folder"):
        setup(cfg, Namespace(config_file="", eval_only=False))


def test_data_set_that_is_not_registered_is_an_error(tmp_path):
    with pytest.raises(KeyError, match="toi.*not registered.*toy"):
        ToyTrainer(toy_config(tmp_path, "DATASETS.TRAIN", ("toi",)))


def test_unknown_sampler_is_an_error(tmp_path):
    cfg = toy_config(tmp_path, "DATALOADER.SAMPLER_TRAIN", "TrainSampler")
    with pytest.raises(KeyError, match="SAMPLER_TRAIN.*nearest names are TrainingSampler"):
        ToyTrainer(cfg)


def test_setup_logs_the_engine_and_writes_the_config(tmp_path):
    from detectron2.config import CfgNode

    cfg = toy_config(tmp_path, "SEED", 3)
    setup(cfg, Namespace(config_file="toy/semantic/r18", eval_only=False))
    first = torch.rand(1)
    default_setup(cfg, Namespace(eval_only=False))
    assert torch.equal(torch.rand(1), first)
    log = (tmp_path / "log.txt").read_text()
    assert f"on the {engine_name()} engine" in log.splitlines()[0]
    assert "config_file='toy/semantic/r18'" in log and "config_file=''" not in log
    saved = CfgNode.load_yaml_with_base(str(tmp_path / "config.yaml"))
    assert saved["MODEL"]["META_ARCHITECTURE"] == "ToyModel"


def test_evaluators_go_by_the_metadata(tmp_path):
    cfg = toy_config(tmp_path)
    assert type(build_evaluator(cfg, "toy")).__name__ == "ToyEvaluator"
    MetadataCatalog.get("toy_untyped").set(thing_classes=["a"])
    with pytest.raises(ValueError, match="'toy_untyped' has no evaluator_type"):
        build_evaluator(cfg, "toy_untyped")
    MetadataCatalog.get("toy_mistyped").set(evaluator_type="toyy")
    with pytest.raises(KeyError, match="toyy.*nearest names are toy"):
        build_evaluator(cfg, "toy_mistyped")
    with pytest.raises(ValueError, match="'toy' has a factory already"):
        register_evaluator("toy")(lambda cfg, dataset_name, output_folder: None)


def test_evaluators_of_a_list_work_as_one(tmp_path, monkeypatch):
    from rankseg_d2.evaluation import EVALUATORS

    folders = []

    def factory(cfg, dataset_name, output_folder):
        folders.append(output_folder)
        return [EVALUATORS["toy"](cfg, dataset_name, output_folder)]

    monkeypatch.setitem(EVALUATORS, "toy_list", factory)
    MetadataCatalog.get("toy_listed").set(evaluator_type="toy_list")
    assert type(build_evaluator(toy_config(tmp_path), "toy_listed")).__name__ == "DatasetEvaluators"
    assert folders == [str(tmp_path / "inference" / "toy_listed")]


def test_batches_go_by_aspect_ratio_if_asked(tmp_path):
    loader = build_train_loader(toy_config(tmp_path), mapper=ToyMapper(is_train=True))
    batches = loader.batches(seed=1)
    for _ in range(10):
        assert len({x["width"] > x["height"] for x in next(batches)}) == 1
    cfg = toy_config(tmp_path, "DATALOADER.ASPECT_RATIO_GROUPING", False)
    batches = build_train_loader(cfg, mapper=ToyMapper(is_train=True)).batches(seed=1)
    ids = [x["image_id"] for _ in range(NUM_IMAGES) for x in next(batches)]
    for i in range(4):  # four passes
        assert sorted(ids[i * NUM_IMAGES : (i + 1) * NUM_IMAGES]) == list(range(NUM_IMAGES))


def test_a_mapper_may_refuse_samples(tmp_path):
    mapper = ToyMapper(is_train=True)
    cfg = toy_config(tmp_path)
    loader = build_train_loader(cfg, mapper=lambda d: mapper(d) if d["image_id"] == 3 else None)
    assert [x["image_id"] for x in next(loader.batches(seed=1))] == [3] * 4
    loader = build_train_loader(cfg, mapper=lambda d: None)
    with pytest.raises(RuntimeError, match="returned None 1000 times"):
        next(loader.batches(seed=1))


def test_repeat_factors_and_subsets_are_sampled(tmp_path):
    dicts = toy_dicts()
    for d in dicts:
        d["annotations"][0]["category_id"] = int(d["image_id"] == 0)
    opts = ("DATALOADER.ASPECT_RATIO_GROUPING", False, "DATALOADER.REPEAT_THRESHOLD", 1.0)
    name = "RepeatFactorTrainingSampler"
    cfg = toy_config(tmp_path, *opts, "DATALOADER.SAMPLER_TRAIN", name)
    batches = build_train_loader(cfg, ToyMapper(True), dicts).batches(seed=1)
    ids = [x["image_id"] for _ in range(40) for x in next(batches)]
    assert ids.count(0) > 2 * ids.count(1) > 0  # sqrt(1 / (1/13)) = 3.6 times


def test_predictor_resizes_and_follows_the_format(tmp_path):
    from detectron2.modeling import META_ARCH_REGISTRY

    @META_ARCH_REGISTRY.register()
    class ToyEcho(nn.Module):
        def __init__(self, cfg):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, inputs):
            return inputs

    cfg = toy_config(tmp_path, "MODEL.META_ARCHITECTURE", "ToyEcho", "INPUT.MIN_SIZE_TEST", 8)
    image = (torch.arange(4 * 6 * 3).reshape(4, 6, 3) * 3).to(torch.uint8).numpy()
    output = DefaultPredictor(cfg)(image)
    assert output["image"].shape == (3, 8, 12) and (output["height"], output["width"]) == (4, 6)
    cfg.INPUT.FORMAT = "RGB"
    swapped = DefaultPredictor(cfg)(image)
    assert torch.equal(swapped["image"], output["image"].flip(0))
