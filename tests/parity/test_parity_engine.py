"""The embedded engine beside detectron2's: same names, options, hooks, trajectory."""

import argparse
import importlib
import inspect
import json
import sys

import pytest
import torch
from support.toy import ToyMapper, ToyModel, toy_config, toy_dicts

ENGINES = ("detectron2", "rankseg_d2._detectron2")
SUBMODULES = ("train_loop", "hooks", "launch", "defaults")
# Methods of DefaultTrainer that detectron2 has not: the steps that it has in its constructor.
STEPS = {"prepare_cfg", "check_parts", "wrap_model", "build_step_trainer", "build_checkpointer"}


def load(name):
    """A module of both engines."""
    modules = [f"{engine}.{name}" for engine in ENGINES]
    for module in modules:
        importlib.import_module(module)
    return [sys.modules[module] for module in modules]  # engine.launch is a function, too


def parameters(function):
    return [
        (p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()
    ]


def test_public_names_are_detectron2s():
    real, ours = load("engine")
    assert {name for name in ours.__all__ if not hasattr(real, name)} == set()
    left_out = {"AutogradProfiler", "TorchProfiler", "TorchMemoryStats", "train_loop", "hooks"}
    left_out |= {"defaults"}
    public = {name for name in dir(real) if not name.startswith("_")}
    assert public - set(ours.__all__) == left_out
    assert real.DEFAULT_TIMEOUT == ours.DEFAULT_TIMEOUT


@pytest.mark.parametrize("name", SUBMODULES)
def test_signatures_are_detectron2s(name):
    real, ours = load(f"engine.{name}")
    checked = 0
    for key in ours.__all__:
        theirs, own = getattr(real, key), getattr(ours, key)
        if not callable(own):
            continue
        assert parameters(own) == parameters(theirs), key
        for method, function in vars(own).items() if inspect.isclass(own) else ():
            if method.startswith("_") or not callable(getattr(own, method)) or method in STEPS:
                continue
            assert parameters(getattr(own, method)) == parameters(getattr(theirs, method)), method
            assert type(function) is type(inspect.getattr_static(theirs, method)), method
            checked += 1
        checked += 1
    assert checked >= (1 if name == "launch" else 6)


def test_all_public_methods_are_present():
    for name in ("train_loop", "hooks", "defaults"):
        real, ours = load(f"engine.{name}")
        for key in ours.__all__:
            theirs = getattr(real, key)
            if inspect.isclass(theirs):
                methods = {method for method in vars(theirs) if not method.startswith("_")}
                assert methods <= set(dir(getattr(ours, key))), key


def test_arguments_and_their_defaults():
    real, ours = (module.default_argument_parser() for module in load("engine"))

    def options(parser):
        return [
            (a.option_strings, a.dest, a.nargs, a.default, a.type, type(a)) for a in parser._actions
        ]

    assert options(real) == options(ours)
    line = ["--num-gpus", "2", "--resume", "SOLVER.BASE_LR", "0.1"]
    assert real.parse_args(line) == ours.parse_args(line)
    assert isinstance(ours, argparse.ArgumentParser)


def twin_trainers(tmp_path, *opts):
    """The DefaultTrainer of both engines, made for the toy model."""
    trainers = []
    for engine in ENGINES:
        get_cfg = importlib.import_module(f"{engine}.config").get_cfg
        data = importlib.import_module(f"{engine}.data")
        default_trainer = importlib.import_module(f"{engine}.engine").DefaultTrainer
        cfg = get_cfg()
        toy = toy_config(tmp_path / engine, *opts)
        for key in ("SOLVER", "TEST", "DATALOADER", "DATASETS", "MODEL", "SEED", "OUTPUT_DIR"):
            copy_known(cfg, key, toy[key])

        class TwinTrainer(default_trainer):
            @classmethod
            def build_model(cls, cfg):
                torch.manual_seed(1)
                return ToyModel(dropout=0.5)

            @classmethod
            def build_train_loader(cls, cfg, data=data):
                dicts = toy_dicts()
                sampler = data.samplers.TrainingSampler(len(dicts), seed=3)
                return data.build_detection_train_loader(
                    dicts, mapper=ToyMapper(False), sampler=sampler, total_batch_size=4
                )

            @classmethod
            def test(cls, cfg, model, evaluators=None):
                return {"seg": {"mIoU": model.linear.bias.sum().item()}}

        trainers.append((TwinTrainer, cfg))
    return trainers


def copy_known(cfg, key, value):
    if not isinstance(value, dict):
        cfg[key] = value
        return
    for inner in value:
        if inner in cfg[key]:
            copy_known(cfg[key], inner, value[inner])


@pytest.mark.parametrize("precise_bn", [False, True])
def test_hooks_of_the_default_trainer_and_their_order(tmp_path, precise_bn):
    names = []
    for make, cfg in twin_trainers(tmp_path, "TEST.PRECISE_BN.ENABLED", precise_bn):

        class WithNorm(make):
            @classmethod
            def build_model(cls, cfg):
                model = super().build_model(cfg)
                model.norm = torch.nn.BatchNorm1d(3)
                return model

        trainer = (WithNorm if precise_bn else make)(cfg)
        names.append([type(hook).__name__ for hook in trainer._hooks])
    assert names[0] == names[1] and len(names[0]) == 5 + precise_bn


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.NESTEROV", True),
    ],
    ids=["steps", "clipped", "cosine"],
)
def test_training_goes_the_same_way(tmp_path, opts):
    weights, lines, states = [], [], []
    for make, cfg in twin_trainers(tmp_path, *opts):
        trainer = make(cfg)
        trainer.resume_or_load(resume=False)
        torch.manual_seed(2)
        trainer.train()
        weights.append(dict(trainer.model.state_dict()))
        text = (tmp_path / cfg.OUTPUT_DIR / "metrics.json").read_text()
        lines.append([json.loads(line) for line in text.splitlines()])
        states.append(trainer.state_dict())
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name]), name
    for real, ours in zip(*lines, strict=True):
        assert real.keys() == ours.keys()
        for key in ("iteration", "lr", "total_loss", "loss_square", "seg/mIoU"):
            assert real.get(key) == ours.get(key)
    assert keys_of(states[0]) == keys_of(states[1])


def keys_of(state):
    if not isinstance(state, dict):
        return type(state).__name__ if not torch.is_tensor(state) else tuple(state.shape)
    return {key: keys_of(value) for key, value in state.items()}


def test_a_checkpoint_of_one_engine_resumes_on_the_other(tmp_path):
    (real, real_cfg), (ours, our_cfg) = twin_trainers(tmp_path)
    trainer = real(real_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    our_cfg.OUTPUT_DIR = real_cfg.OUTPUT_DIR
    our_cfg.SOLVER.MAX_ITER = 14
    resumed = ours(our_cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 12
    assert resumed.scheduler.last_epoch == trainer.scheduler.last_epoch == 12
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight)
    momentum = [t.optimizer.state_dict()["state"][0]["momentum_buffer"] for t in (trainer, resumed)]
    assert torch.equal(*momentum)
    resumed.train()


@pytest.mark.parametrize("workers", [1, 3, 8, 16])
@pytest.mark.parametrize("period", [0, 1001])
def test_workers_are_scaled_alike(tmp_path, workers, period):
    scaled = []
    opts = ("SOLVER.STEPS", (333, 777), "TEST.EVAL_PERIOD", period)
    for make, cfg in twin_trainers(tmp_path, *opts):
        cfg.SOLVER.REFERENCE_WORLD_SIZE = 8
        cfg.SOLVER.IMS_PER_BATCH = 16
        cfg.freeze()
        new = make.auto_scale_workers(cfg, workers)
        assert new.is_frozen() and (new is cfg) == (workers == 8)
        scaled.append({**new.SOLVER, "EVAL_PERIOD": new.TEST.EVAL_PERIOD})
    keys = [
        "IMS_PER_BATCH", "BASE_LR", "MAX_ITER", "WARMUP_ITERS", "STEPS", "CHECKPOINT_PERIOD",
        "REFERENCE_WORLD_SIZE", "EVAL_PERIOD",
    ]  # fmt: skip
    assert [scaled[0][k] for k in keys] == [scaled[1][k] for k in keys]


def test_the_shown_learning_rate_is_of_the_same_group():
    real, ours = load("engine.hooks")
    for rates, sizes in [
        ((1, 2, 2), (5, 1, 1)), ((1, 2, 3), (1, 4, 2)), ((1, 1, 2), (1, 1, 9)), ((3,), (2,)),
    ]:  # fmt: skip
        groups = [
            {"params": [torch.nn.Parameter(torch.ones(1)) for _ in range(n)], "lr": float(rate)}
            for rate, n in zip(rates, sizes, strict=True)
        ]
        optimizer = torch.optim.SGD(groups, 0.1)
        found = [m.LRScheduler.get_best_param_group_id(optimizer) for m in (real, ours)]
        assert found[0] == found[1], (rates, sizes)


@pytest.mark.parametrize(("period", "last"), [(2, 6), (0, 3), (4, 6), (1, 1)])
def test_evaluation_best_and_precise_bn_happen_at_the_same_iterations(period, last):
    happened = []
    for engine in ENGINES:
        module = importlib.import_module(f"{engine}.engine")
        calls = []

        class Scores(module.TrainerBase):
            def run_step(self):
                bad = self.iter == 1
                self.storage.put_scalar("s", float("nan") if bad else -abs(self.iter - 4.0))

        class Saves:
            def save(self, name, calls=calls, **kwargs):
                calls.append((name, kwargs))

        class Writer(importlib.import_module(f"{engine}.utils.events").EventWriter):
            def write(self, calls=calls):
                calls.append("write")

        trainer = Scores()
        norm = module.PreciseBN(period, torch.nn.BatchNorm1d(2), [], 1)
        norm.update_stats = lambda calls=calls, t=trainer: calls.append(("bn", t.iter))
        trainer.register_hooks(
            [
                norm,
                module.EvalHook(period, lambda calls=calls, t=trainer: calls.append(t.iter)),
                module.BestCheckpointer(period, Saves(), "s"),
                module.PeriodicWriter([Writer()], period=3),
            ]
        )
        trainer.train(0, last)
        happened.append(calls)
    assert happened[0] == happened[1]
