"""The layers that draw masks: by kernels that a location gives, or by static ones."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DYNAMIC = "111"
# Which of the three layers are dynamic (1) or static (0), and the weight of the path's loss.
PATHS = {
    DYNAMIC: 1.0, "110": 1.0, "101": 1.0, "011": 1.0, "100": 0.25, "010": 0.25, "001": 0.25,
}  # fmt: skip


class DynamicBank(nn.Module):
    """Three layers, D+2 -> D -> D -> 1 channels, with ReLU between them.

    A dynamic layer is a convolution of 1 x 1 whose parameters belong to one object; its static twin
    is one of 3 x 3, the same for all objects.
    """

    def __init__(self, dim: int, with_static: bool = True):
        super().__init__()
        self.widths = [(dim + 2, dim), (dim, dim), (dim, 1)]  # in, out
        self.num_parameters = sum(a * b + b for a, b in self.widths)
        if with_static:
            self.static = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in self.widths)

    @property
    def paths(self) -> dict[str, float]:
        """The paths that are trained, and the weights of their losses."""
        return PATHS if hasattr(self, "static") else {DYNAMIC: PATHS[DYNAMIC]}

    def forward(self, inputs: Tensor, kernels: Tensor, paths: tuple[str, ...] = (DYNAMIC,)) -> dict:
        """Mask logits (n, h, w) by path, of inputs (n, D+2, h, w) and kernels (n, parameters).

        Paths that begin alike share these layers.
        """
        layers = split_kernels(kernels, self.widths)
        found = {"": inputs}
        for depth, (weight, bias) in enumerate(layers):
            for path in dict.fromkeys(path[: depth + 1] for path in paths):
                x = found[path[:depth]]
                is_dynamic = path[depth] == "1"
                x = dynamic_conv(x, weight, bias) if is_dynamic else self.static[depth](x)
                found[path] = x if depth == len(layers) - 1 else F.relu(x)
        return {path: found[path][:, 0] for path in paths}


def split_kernels(kernels: Tensor, widths: list[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
    """Weights (n, out, in) and biases (n, out) of each layer; first come all weights."""
    sizes = [a * b for a, b in widths] + [b for _, b in widths]
    parts = kernels.split(sizes, 1)
    weights = [part.unflatten(1, (b, a)) for part, (a, b) in zip(parts, widths, strict=False)]
    return list(zip(weights, parts[len(widths) :], strict=True))


def dynamic_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of 1 x 1 for each of n objects: (n, in, h, w) -> (n, out, h, w)."""
    size = x.shape[-2:]
    return torch.baddbmm(bias[..., None], weight, x.flatten(2)).unflatten(2, size)


def bank_inputs(features: Tensor, centers: Tensor, locations: Tensor, scales: Tensor) -> Tensor:
    """What the bank reads for n objects: their image's features, and where each cell is for them.

    Args:
        features: (n, D, h, w), of each object's image.
        centers: (h·w, 2) of the cells in the image.
        locations: (n, 2) of the objects.
        scales: (n,), the distance that counts as 1.
    """
    offsets = (locations[:, None] - centers) / scales[:, None, None]  # (n, h·w, 2)
    offsets = offsets.mT.unflatten(2, features.shape[-2:])  # (n, 2, h, w)
    return torch.cat([offsets.to(features.dtype), features], 1)
