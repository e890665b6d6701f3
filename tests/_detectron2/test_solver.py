import logging

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver import (
    LRMultiplier,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver import build_lr_scheduler as build_plain_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from rankseg_d2._detectron2.solver import build as embedded
from rankseg_d2.engine.scheduler import build_lr_scheduler


def solver_cfg(**keys):
    cfg = get_cfg()
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = 40, (20, 30), 10
    for key, value in keys.items():
        cfg.SOLVER[key] = value
    return cfg


def trajectory(cfg, build=build_lr_scheduler):
    """The learning rate of each iteration, for a base rate of 2."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 2.0)
    scheduler = build(cfg, optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(cfg.SOLVER.MAX_ITER - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return torch.tensor(rates, dtype=torch.float64)


def warmed_up(rates, iters=10, factor=0.001):
    ramp = (torch.arange(len(rates), dtype=torch.float64) / iters).clamp(max=1)
    return rates * (factor * (1 - ramp) + ramp)


# --- schedules ------------------------------------------------------------------------------------


def test_multi_step_schedule_after_linear_warmup():
    steps = torch.tensor([2.0] * 20 + [0.2] * 10 + [0.02] * 10, dtype=torch.float64)
    rates = trajectory(solver_cfg(LR_SCHEDULER_NAME="WarmupMultiStepLR"))
    torch.testing.assert_close(rates, warmed_up(steps))


def test_poly_schedule_after_linear_warmup():
    where = torch.arange(40, dtype=torch.float64) / 40
    rates = trajectory(solver_cfg(LR_SCHEDULER_NAME="WarmupPolyLR"))
    torch.testing.assert_close(rates, warmed_up(2 * (1 - where) ** 0.9))


def test_poly_schedule_with_constant_ending_and_constant_warmup():
    cfg = solver_cfg(
        LR_SCHEDULER_NAME="WarmupPolyLR", POLY_LR_CONSTANT_ENDING=0.25, WARMUP_METHOD="constant"
    )
    where = torch.arange(40, dtype=torch.float64) / 40
    expected = 2 * ((1 - where) ** 0.9).clamp(min=0.25)
    expected[:10] *= 0.001
    torch.testing.assert_close(trajectory(cfg), expected)


def test_cosine_schedule_meets_the_warmup_where_it_ends():
    rates = trajectory(solver_cfg(LR_SCHEDULER_NAME="WarmupCosineLR", BASE_LR_END=0.0))
    where = torch.arange(40, dtype=torch.float64) / 40
    cosine = 1 + torch.cos(torch.pi * where)
    torch.testing.assert_close(rates[10:], cosine[10:])
    steps = rates[1:11] - rates[:10]
    torch.testing.assert_close(steps, steps.mean().expand(10))
    assert rates[0] == pytest.approx(2 * 0.001)


def test_step_schedule_with_fixed_gamma():
    cfg = solver_cfg(LR_SCHEDULER_NAME="WarmupStepWithFixedGammaLR", NUM_DECAYS=3, WARMUP_ITERS=0)
    expected = torch.tensor([2.0, 0.2, 0.02, 0.002], dtype=torch.float64).repeat_interleave(10)
    torch.testing.assert_close(trajectory(cfg), expected)


@pytest.mark.parametrize(
    "name, last",
    [
        ("WarmupMultiStepLR", 0.02),
        ("WarmupCosineLR", 0.0),
        ("WarmupStepWithFixedGammaLR", 0.002),  # where detectron2 itself fails
    ],
)
def test_embedded_schedules_have_a_value_when_the_training_is_over(name, last):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 2.0)
    scheduler = embedded.build_lr_scheduler(solver_cfg(LR_SCHEDULER_NAME=name), optimizer)
    for _ in range(40):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([last])


@pytest.mark.parametrize("name", ["WarmupPolyLR", "WarmupCosineLR"])
def test_resumed_schedule_goes_on_where_it_stopped(name):
    cfg = solver_cfg(LR_SCHEDULER_NAME=name)
    states, rates = [], []
    for start in (0, 15):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 2.0)
        scheduler = build_lr_scheduler(cfg, optimizer)
        if start:
            scheduler.load_state_dict(states[0][0])
            optimizer.load_state_dict(states[0][1])
        for _ in range(start, 15 if not start else 40):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        states.append((scheduler.state_dict(), optimizer.state_dict()))
    torch.testing.assert_close(torch.tensor(rates, dtype=torch.float64), trajectory(cfg))


def test_the_embedded_engine_has_the_poly_schedule_too():
    cfg = solver_cfg(LR_SCHEDULER_NAME="WarmupPolyLR", POLY_LR_CONSTANT_ENDING=0.25)
    rates = trajectory(cfg, embedded.build_lr_scheduler)
    assert rates[-1] == pytest.approx(0.5) and torch.equal(rates, trajectory(cfg))


def test_steps_beyond_the_end_are_ignored_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        rates = trajectory(solver_cfg(STEPS=(20, 100)))
    assert rates[-1] == pytest.approx(0.2) and "SOLVER.STEPS contains values larger" in caplog.text


def test_unknown_schedules_are_named():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    with pytest.raises(KeyError, match="SOLVER.LR_SCHEDULER_NAME: 'Poly' .* are WarmupPolyLR"):
        build_lr_scheduler(solver_cfg(LR_SCHEDULER_NAME="Poly"), optimizer)
    with pytest.raises(ValueError, match="SOLVER.WARMUP_METHOD is 'linear' or 'constant', but 'x'"):
        build_lr_scheduler(
            solver_cfg(LR_SCHEDULER_NAME="WarmupPolyLR", WARMUP_METHOD="x"), optimizer
        )
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(optimizer, lambda where: 1.0, max_iter=10)


def test_state_of_the_schedule_is_plain():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = build_plain_lr_scheduler(solver_cfg(), optimizer)
    assert scheduler.state_dict() == {"base_lrs": [1.0], "last_epoch": 0}


# --- parameter groups -----------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.tied = self.conv
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.query = nn.Parameter(torch.zeros(2))


def groups_by_name(model, groups):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: {key: value for key, value in group.items() if key != "params"}
        for group in groups
        for parameter in group["params"]
    }


def test_parameters_are_grouped_by_their_options():
    model = Net()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        weight_decay_bias=0.5,
        bias_lr_factor=2.0,
        lr_factor_func=lambda name: 0.25 if name.startswith("conv") else 1.0,
        overrides={"query": {"weight_decay": 7.0}},
    )
    assert groups_by_name(model, groups) == {
        "query": {"lr": 1.0, "weight_decay": 7.0},
        "conv.weight": {"lr": 0.25, "weight_decay": 0.1},
        "conv.bias": {"lr": 2.0, "weight_decay": 0.5},
        "norm.weight": {"lr": 1.0, "weight_decay": 0.0},
        "norm.bias": {"lr": 2.0, "weight_decay": 0.5},
    }
    assert len(groups) == 4 and sum(len(group["params"]) for group in groups) == 5


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"bias_lr_factor": 2.0}, "bias_lr_factor requires base_lr"),
        ({"lr_factor_func": lambda name: 1.0}, "lr_factor_func requires base_lr"),
        (
            {"base_lr": 1.0, "weight_decay_bias": 0.0, "overrides": {"bias": {"lr": 1.0}}},
            "Conflicting overrides for 'bias'",
        ),
    ],
)
def test_options_that_contradict_each_other_are_named(options, reason):
    with pytest.raises(ValueError, match=reason):
        get_default_optimizer_params(Net(), **options)


def test_optimizer_takes_its_options_from_cfg():
    model = Net()
    optimizer = build_optimizer(solver_cfg(BASE_LR=0.5, NESTEROV=True, MOMENTUM=0.7), model)
    assert type(optimizer) is torch.optim.SGD
    by_name = groups_by_name(model, optimizer.param_groups)
    assert by_name["norm.weight"]["weight_decay"] == 0.0
    for options in by_name.values():
        assert options["lr"] == 0.5 and options["nesterov"] and options["momentum"] == 0.7


# --- clipping -------------------------------------------------------------------------------------


def stepped(clip_type, optimizer_or_class, add_clipping=maybe_add_gradient_clipping):
    """Parameters whose gradients are (3, 4) and (0.1, 0.1), after a clipped SGD step of rate 1."""
    cfg = solver_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip_type
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    if optimizer_or_class == "class":
        optimizer = add_clipping(cfg, torch.optim.SGD)(parameters, lr=1.0)
    else:
        optimizer = add_clipping(cfg, torch.optim.SGD(parameters, lr=1.0))
    assert isinstance(optimizer, torch.optim.SGD)
    parameters[0].grad = torch.tensor([3.0, 4.0])
    parameters[1].grad = torch.tensor([0.1, 0.1])
    optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("given", ["class", "optimizer"])
@pytest.mark.parametrize("clip_type, step", [("value", [1.0, 1.0]), ("norm", [0.6, 0.8])])
def test_gradients_are_clipped_before_the_step(given, clip_type, step):
    clipped, small = stepped(clip_type, given)
    torch.testing.assert_close(clipped, -torch.tensor(step), rtol=1e-5, atol=1e-5)
    assert small.eq(-0.1).all()


@pytest.mark.parametrize("given", ["class", "optimizer"])
def test_the_embedded_engine_clips_over_the_full_model_too(given):
    first, second = stepped("full_model", given, embedded.maybe_add_gradient_clipping)
    together = torch.tensor([3.0, 4.0, 0.1, 0.1])
    torch.testing.assert_close(
        torch.cat([first, second]), -together / together.norm(), rtol=1e-5, atol=1e-5
    )


def test_embedded_clipping_passes_over_parameters_without_gradient():
    cfg = solver_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    parameter = nn.Parameter(torch.ones(2))
    embedded.maybe_add_gradient_clipping(cfg, torch.optim.SGD)([parameter], lr=1.0).step()
    assert parameter.eq(1).all()


def test_clipping_is_off_unless_asked_for_and_its_types_are_known():
    assert maybe_add_gradient_clipping(solver_cfg(), torch.optim.SGD) is torch.optim.SGD
    with pytest.raises((ValueError, KeyError), match="'full'"):
        stepped("full", "class")
