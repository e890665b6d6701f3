"""The optimizer: few parameter groups, each with the rate and weight decay that SOLVER gives it."""

import logging

import torch
from detectron2.config import CfgNode
from torch import nn

from .._solver import clip_before_step
from ..errors import unknown_name

logger = logging.getLogger(__name__)

# The first is what torch's batch and instance norms of any dimension have in common.
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_POSITIONS = ("relative_position_bias_table", "absolute_pos_embed")  # Swin's embeddings
_REST = "rest"  # of the model

OPTIMIZERS = {
    "ADAMW": lambda groups, solver, fused: torch.optim.AdamW(groups, solver.BASE_LR, fused=fused),
    "SGD": lambda groups, solver, fused: torch.optim.SGD(
        groups, solver.BASE_LR, solver.MOMENTUM, nesterov=solver.NESTEROV, fused=fused
    ),
}


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """SOLVER.OPTIMIZER over all parameters that are trained; it clips as CLIP_GRADIENTS says."""
    name = cfg.SOLVER.OPTIMIZER
    if name not in OPTIMIZERS:
        raise unknown_name("SOLVER.OPTIMIZER", name, OPTIMIZERS)
    groups = parameter_groups(cfg, model)
    logger.info("%s over %s", name, "; ".join(map(describe, groups)))
    # On a CPU a fused step takes a fifth of the time.
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    optimizer = OPTIMIZERS[name](groups, cfg.SOLVER, devices <= {"cpu", "cuda"})
    optimizer._step_supports_amp_scaling = False  # a scaler must undo its scale before the clipping
    clip_before_step(optimizer, cfg.SOLVER.CLIP_GRADIENTS)
    return optimizer


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """One group per part of the model, rate and decay; its `name` is the part.

    The parts are those of the model's `rate_parts()`, such as "backbone" and "ml_head", and "rest".
    Shared parameters count where they come first, frozen ones nowhere.
    """
    base, undecayed = base_lr(cfg), _without_decay(model)
    depths = _layer_depths(model, cfg.SOLVER.LAYER_DECAY)
    parts = getattr(model, "rate_parts", _default_parts)()
    groups, seen = {}, set()
    for path, module in model.named_modules():
        part = next((part for part in parts if part in path.split(".")), _REST)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            rate = base * (cfg.SOLVER[parts[part]] if part in parts else 1.0)
            rate *= cfg.SOLVER.LAYER_DECAY ** depths.get(id(parameter), 0)
            if name == "bias":
                rate *= cfg.SOLVER.BIAS_LR_FACTOR
            decay = 0.0 if id(parameter) in undecayed else weight_decay(cfg, module, name)
            groups.setdefault((part, rate, decay), []).append(parameter)
    return [
        {"params": parameters, "name": part, "lr": rate, "weight_decay": decay}
        for (part, rate, decay), parameters in groups.items()
    ]


def _default_parts() -> dict[str, str]:
    """Those of a model that does not name its own."""
    return {"backbone": "BACKBONE_MULTIPLIER", "ml_head": "MLHEAD_MULTIPLIER"}


def _layer_depths(model: nn.Module, layer_decay: float) -> dict[int, int]:
    """How many layers of its module are above a parameter, by its id.

    Backbones with numbered layers tell by `layers_above()`: name of a parameter -> number.
    """
    if layer_decay == 1:
        return {}
    found = {}
    for module in model.modules():
        if callable(getattr(module, "layers_above", None)):
            own = dict(module.named_parameters())
            found |= {id(own[name]): number for name, number in module.layers_above().items()}
    if not found:
        raise ValueError(
            f"SOLVER.LAYER_DECAY is {layer_decay}, but this backbone does not number its layers; "
            "set it to 1, or set MODEL.BACKBONE.NAME to VisionTransformer, BEiT, ViTAdapter, "
            "BEiTAdapter, CSWinTransformer, VOLO, or TimmBackbone with a ViT"
        )
    return found


def describe(group: dict) -> str:
    count = sum(parameter.numel() for parameter in group["params"])
    return (
        f"{group['name']}: {count:,} at rate {group['lr']:.3g}, decay {group['weight_decay']:.3g}"
    )


def weight_decay(cfg, module: nn.Module, name: str) -> float:
    """The weight decay of a module's own parameter."""
    solver = cfg.SOLVER
    if name == "bias" and solver.WEIGHT_DECAY_BIAS is not None:
        return solver.WEIGHT_DECAY_BIAS
    if isinstance(module, NORMS):
        return solver.WEIGHT_DECAY_NORM
    if isinstance(module, nn.Embedding) or name in _POSITIONS:
        return solver.WEIGHT_DECAY_EMBED
    return solver.WEIGHT_DECAY


def _without_decay(model: nn.Module) -> set[int]:
    """Ids of the parameters that a module's `no_weight_decay()` names, as timm's models have it."""
    found = set()
    for module in model.modules():
        if callable(getattr(module, "no_weight_decay", None)):
            own = dict(module.named_parameters())
            found |= {id(own[name]) for name in module.no_weight_decay() if name in own}
    return found


def base_lr(cfg) -> float:
    """SOLVER.BASE_LR, scaled to the batch size where SOLVER.REFERENCE_BATCH_SIZE asks for it."""
    solver, reference = cfg.SOLVER, cfg.SOLVER.REFERENCE_BATCH_SIZE
    if not reference:
        return solver.BASE_LR
    if reference < 0 or solver.REFERENCE_WORLD_SIZE:
        raise ValueError(
            f"SOLVER.REFERENCE_BATCH_SIZE ({reference}) must be positive, or 0 for no scaling of "
            f"the rate, and SOLVER.REFERENCE_WORLD_SIZE ({solver.REFERENCE_WORLD_SIZE}), which "
            "scales it too, must be 0 beside it; set one of them to 0"
        )
    return solver.BASE_LR * solver.IMS_PER_BATCH / reference
