import torch
from torch import nn

from ...utils.registry import Registry
from ..lookup import find_registered

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = "Whole models: called with cfg."


def build_model(cfg) -> nn.Module:
    """The model that MODEL.META_ARCHITECTURE says, on MODEL.DEVICE, without trained weights."""
    name = cfg.MODEL.META_ARCHITECTURE
    model = find_registered(META_ARCH_REGISTRY, "MODEL.META_ARCHITECTURE", name)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))
