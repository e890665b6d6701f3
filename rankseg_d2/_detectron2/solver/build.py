"""Optimizer, gradient clipping and learning rate schedule out of cfg.SOLVER."""

import logging

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn

from ..._solver import WarmupPolyLR, clip_before_step
from .lr_scheduler import LRMultiplier, WarmupParamScheduler

# The first is what torch's batch and instance norms of any dimension have in common.
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(cfg, model):
    """SGD over the model's parameters, with the clipping that cfg asks for."""
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        params,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def get_default_optimizer_params(
    model,
    base_lr=None,
    weight_decay=None,
    weight_decay_norm=None,
    bias_lr_factor=1.0,
    weight_decay_bias=None,
    lr_factor_func=None,
    overrides=None,
):
    """Parameter groups, one per combination of options, of all parameters that are trained.

    Args:
        weight_decay_norm: for the parameters of normalisation layers.
        bias_lr_factor, weight_decay_bias: for parameters called "bias", those of norms too.
        lr_factor_func: gives the factor of the learning rate for a parameter's full name.
        overrides: {a parameter's own name ("bias"): {option: value}}; has the last word.
    """
    if base_lr is None and (bias_lr_factor not in (None, 1.0) or lr_factor_func is not None):
        key = "bias_lr_factor" if lr_factor_func is None else "lr_factor_func"
        raise ValueError(f"{key} requires base_lr: pass base_lr too")
    bias = {}
    if bias_lr_factor not in (None, 1.0):
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    overrides = overrides or {}
    if bias and "bias" in overrides:
        raise ValueError("Conflicting overrides for 'bias': drop them, or the bias arguments")
    overrides = overrides | ({"bias": bias} if bias else {})
    defaults = {"lr": base_lr, "weight_decay": weight_decay}
    defaults = {option: value for option, value in defaults.items() if value is not None}

    params, seen = [], set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            options = dict(defaults)
            if weight_decay_norm is not None and isinstance(module, NORMS):
                options["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                options["lr"] *= lr_factor_func(f"{module_name}.{name}")
            options.update(overrides.get(name, {}))
            params.append({"params": [parameter], **options})
    return reduce_param_groups(params)


def reduce_param_groups(params):
    """Join the groups with the same options: optimizers are slow with many groups."""
    groups = {}
    for group in params:
        options = {option: value for option, value in group.items() if option != "params"}
        joined = groups.setdefault(tuple(options.items()), {**options, "params": []})
        joined["params"].extend(group["params"])
    return list(groups.values())


def maybe_add_gradient_clipping(cfg, optimizer):
    """The optimizer, or optimizer class, that clips before each step if cfg says so."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not isinstance(optimizer, type):
        clip_before_step(optimizer, clip)
        return optimizer
    if not clip.ENABLED:
        return optimizer

    class Clipping(optimizer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            clip_before_step(self, clip)

    return Clipping


def build_lr_scheduler(cfg, optimizer):
    """The schedule that SOLVER.LR_SCHEDULER_NAME names, with warmup."""
    solver = cfg.SOLVER
    name, max_iter = solver.LR_SCHEDULER_NAME, solver.MAX_ITER
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= max_iter]
        if len(steps) != len(solver.STEPS):
            logging.getLogger(__name__).warning(
                "SOLVER.STEPS contains values larger than SOLVER.MAX_ITER. They are ignored."
            )
        schedule = MultiStepParamScheduler(
            values=[solver.GAMMA**k for k in range(len(steps) + 1)],
            milestones=steps,
            num_updates=max_iter,
        )
    elif name == "WarmupPolyLR":
        return WarmupPolyLR.from_config(cfg, optimizer)
    elif name == "WarmupCosineLR":
        end = solver.BASE_LR_END / solver.BASE_LR
        if not 0 <= end <= 1:
            raise ValueError(
                f"SOLVER.BASE_LR_END is between 0 and SOLVER.BASE_LR ({solver.BASE_LR}), but "
                f"{solver.BASE_LR_END} came"
            )
        schedule = CosineParamScheduler(1, end)
    elif name == "WarmupStepWithFixedGammaLR":
        schedule = _EqualSteps(
            base_value=1.0, num_decays=solver.NUM_DECAYS, gamma=solver.GAMMA, num_updates=max_iter
        )
    else:
        raise ValueError(
            f"Unknown LR scheduler: {name}; SOLVER.LR_SCHEDULER_NAME is one of WarmupMultiStepLR, "
            "WarmupCosineLR, WarmupStepWithFixedGammaLR, WarmupPolyLR"
        )
    schedule = WarmupParamScheduler(
        schedule,
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / max_iter, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=max_iter)


class _EqualSteps(StepWithFixedGammaParamScheduler):
    """fvcore's, whose last value also holds when the training is over: fvcore's fails there."""

    def __call__(self, where):
        return super().__call__(min(where, 1 - 2 * self.WHERE_EPSILON))
