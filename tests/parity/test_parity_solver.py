"""The embedded solver against detectron2's: same rates, same groups, same clipped gradients."""

import copy
import itertools

import pytest
import torch
from torch import nn

from rankseg_d2._detectron2 import solver as ours
from rankseg_d2._solver import WarmupPolyLR

detectron2 = pytest.importorskip("detectron2")
theirs = pytest.importorskip("detectron2.solver")

ITERATIONS = 60


def solver_cfg(**keys):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.BASE_LR = ITERATIONS, (25, 45), 0.7
    for key, value in keys.items():
        cfg.SOLVER[key] = value
    return cfg


def rates(build):
    """The rates of two parameter groups over a whole run."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": parameters[:1], "lr": 0.7}, {"params": parameters[1:], "lr": 0.07}], 0.7
    )
    scheduler = build(optimizer)
    result = [scheduler.get_last_lr()]
    for _ in range(ITERATIONS - 1):
        optimizer.step()
        scheduler.step()
        result.append(scheduler.get_last_lr())
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize(
    "name", ["WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"]
)
@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("warmup_iters", [0, 1, 13, 30, 59])
@pytest.mark.parametrize("rescale", [True, False])
def test_configured_schedules_have_equal_rates(name, method, warmup_iters, rescale):
    cfg = solver_cfg(
        LR_SCHEDULER_NAME=name,
        WARMUP_METHOD=method,
        WARMUP_ITERS=warmup_iters,
        WARMUP_FACTOR=0.01,
        RESCALE_INTERVAL=rescale,
        BASE_LR_END=0.007,
    )
    expected = rates(lambda optimizer: theirs.build_lr_scheduler(cfg, optimizer))
    result = rates(lambda optimizer: ours.build_lr_scheduler(cfg, optimizer))
    assert torch.equal(result, expected)


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("warmup_iters", [0, 13])
@pytest.mark.parametrize("power, ending", [(0.9, 0.0), (0.9, 0.3), (1.0, 0.05)])
def test_poly_schedule_has_deeplabs_rates(deeplab, method, warmup_iters, power, ending):
    options = {
        "warmup_factor": 0.01,
        "warmup_iters": warmup_iters,
        "warmup_method": method,
        "power": power,
        "constant_ending": ending,
    }
    theirs = deeplab.lr_scheduler.WarmupPolyLR
    expected = rates(lambda optimizer: theirs(optimizer, ITERATIONS, **options))
    result = rates(lambda optimizer: WarmupPolyLR(optimizer, ITERATIONS, **options))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["WarmupMultiStepLR", "WarmupCosineLR"])
def test_warmup_longer_than_the_run_is_cut_equally(name):
    cfg = solver_cfg(LR_SCHEDULER_NAME=name, WARMUP_ITERS=100)
    expected = rates(lambda optimizer: theirs.build_lr_scheduler(cfg, optimizer))
    assert torch.equal(rates(lambda opt: ours.build_lr_scheduler(cfg, opt)), expected)


def test_scheduler_states_have_the_same_keys():
    cfg = solver_cfg()
    states = []
    for engine in (ours, theirs):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.7)
        states.append(engine.build_lr_scheduler(cfg, optimizer).state_dict())
    assert states[0] == states[1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.batch_norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm(4)
        self.group_norm = nn.GroupNorm(2, 4)
        self.instance_norm = nn.InstanceNorm2d(4, affine=True)
        self.linear = nn.Linear(4, 4)
        self.tied = self.linear
        self.embedding = nn.Embedding(3, 4)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.query = nn.Parameter(torch.ones(2))


def by_name(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [{**g, "params": [names[parameter] for parameter in g["params"]]} for g in groups]


@pytest.mark.parametrize("weight_decay_norm", [None, 0.0])
@pytest.mark.parametrize("bias", [{}, {"bias_lr_factor": 2.0}, {"weight_decay_bias": 0.0}])
@pytest.mark.parametrize("factor", [None, lambda name: 0.1 if "linear" in name else 1.0])
@pytest.mark.parametrize("overrides", [None, {"query": {"lr": 7.0}, "weight": {"momentum": 0.1}}])
def test_parameter_groups_are_equal(weight_decay_norm, bias, factor, overrides):
    model = Net()
    options = {
        "base_lr": 0.7,
        "weight_decay": 0.1,
        "weight_decay_norm": weight_decay_norm,
        "lr_factor_func": factor,
        "overrides": overrides,
        **bias,
    }
    theirs_too = copy.deepcopy(options)  # detectron2 writes into `overrides`
    expected = by_name(model, theirs.get_default_optimizer_params(model, **theirs_too))
    assert by_name(model, ours.get_default_optimizer_params(model, **options)) == expected


def test_factor_function_is_asked_for_the_same_names():
    asked = {"ours": [], "theirs": []}
    for engine, names in zip((ours, theirs), asked.values(), strict=True):
        engine.get_default_optimizer_params(
            Net(), base_lr=1.0, lr_factor_func=lambda name, names=names: names.append(name) or 1.0
        )
    assert asked["ours"] == asked["theirs"]


@pytest.mark.parametrize("enabled, kind", itertools.product([True, False], ["value", "norm"]))
def test_optimizers_take_the_same_steps(enabled, kind):
    cfg = solver_cfg(BIAS_LR_FACTOR=2.0, WEIGHT_DECAY_BIAS=0.0, MOMENTUM=0.5)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = enabled
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.3
    states = []
    for engine in (ours, theirs):
        torch.manual_seed(0)
        model = Net()
        optimizer = engine.build_optimizer(cfg, model)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        states.append((model.state_dict(), optimizer.defaults))
    for name, value in states[0][0].items():
        assert torch.equal(value, states[1][0][name]), name
    assert states[0][1] == states[1][1]
