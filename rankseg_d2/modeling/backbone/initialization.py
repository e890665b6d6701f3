"""First values of the weights of transformers."""

from torch import nn


def init_linear(module: nn.Module) -> None:
    """For `module.apply`: linear layers get weights of a truncated normal, and biases of zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
