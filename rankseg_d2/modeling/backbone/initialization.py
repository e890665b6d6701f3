"""First values of the weights of transformers."""

import math

from torch import nn


def init_linear(module: nn.Module) -> None:
    """For `module.apply`: linear layers get weights of a truncated normal, and biases of zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_layer(module: nn.Module) -> None:
    """For `module.apply`: as `init_linear`, and convolutions get He's normal of their fan-out."""
    init_linear(module)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
