"""The parts of ViT-Adapter (Chen et al., ICLR 2023): convolutions beside a plain ViT, and what
both tell each other by deformable attention."""

from typing import NamedTuple

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn
from torch.nn import functional as F

from ...dtypes import at_least_float
from ..deformable_attention import MSDeformAttn, ScaleSizes, cell_centers
from ..drop_path import drop_path
from .initialization import init_layer

NUM_LEVELS = 3  # of the tokens beside the ViT's: strides 8, 16 and 32
_EPSILON = 1e-6  # of the norms


class Grids(NamedTuple):
    """The cells of the tokens: of the ViT's patches, and of the levels beside them."""

    patches: ScaleSizes  # one (h, w)
    patch_centers: Tensor  # (N, 2)
    levels: ScaleSizes
    level_centers: Tensor  # (S, 2)


def grids_of(patches: tuple[int, int], levels: ScaleSizes, device: torch.device) -> Grids:
    centers = torch.cat([cell_centers(*size, device) for size in levels])
    return Grids((patches,), cell_centers(*patches, device), levels, centers)


class SpatialPrior(nn.Module):
    """Images (B, 3, H, W) -> maps (B, D, h, w) of strides 4, 8, 16 and 32, by convolutions."""

    def __init__(self, in_channels: int, channels: int, dim: int, norm: str):
        super().__init__()
        self.stem = nn.Sequential(
            *_conv(in_channels, channels, 2, norm),
            *_conv(channels, channels, 1, norm),
            *_conv(channels, channels, 1, norm),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_conv(channels, 2 * channels, 2, norm))
        self.conv3 = nn.Sequential(*_conv(2 * channels, 4 * channels, 2, norm))
        self.conv4 = nn.Sequential(*_conv(4 * channels, 4 * channels, 2, norm))
        self.fc1 = nn.Conv2d(channels, dim, 1)
        self.fc2 = nn.Conv2d(2 * channels, dim, 1)
        self.fc3 = nn.Conv2d(4 * channels, dim, 1)
        self.fc4 = nn.Conv2d(4 * channels, dim, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for conv in (self.conv2, self.conv3, self.conv4):
            maps.append(conv(maps[-1]))
        projections = (self.fc1, self.fc2, self.fc3, self.fc4)
        return [project(x) for project, x in zip(projections, maps, strict=True)]


class Interaction(nn.Module):
    """The layers around a group of the ViT's blocks: an injector before, extractors after it."""

    def __init__(
        self,
        dim: int,
        attention: dict[str, int],
        *,
        gamma: float,
        ffn_dim: int,
        drop_path_rate: float,
        num_extractors: int = 1,
    ):
        """
        Args:
            attention: `num_heads`, `num_points` and `value_dim` of the deformable attention.
            gamma: the first value of the injector's factors.
        """
        super().__init__()
        self.injector = Injector(dim, attention, gamma)
        extractors = [
            Extractor(dim, attention, ffn_dim, drop_path_rate) for _ in range(num_extractors)
        ]
        self.extractor = extractors[0]
        if num_extractors > 1:
            self.extra_extractors = nn.ModuleList(extractors[1:])

    def extractors(self) -> list["Extractor"]:
        return [self.extractor, *getattr(self, "extra_extractors", ())]


class Injector(nn.Module):
    """The ViT's patches read the levels: (B, N, D), (B, S, D) -> (B, N, D)."""

    def __init__(self, dim: int, attention: dict[str, int], gamma: float):
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, _EPSILON)
        self.feat_norm = nn.LayerNorm(dim, _EPSILON)
        self.attn = MSDeformAttn(dim, num_scales=NUM_LEVELS, **attention)
        self.gamma = nn.Parameter(torch.full((dim,), float(gamma)))

    def forward(self, patches: Tensor, levels: Tensor, grids: Grids) -> Tensor:
        queries, values = self.query_norm(patches), self.feat_norm(levels)
        read = _attend(self.attn, queries, values, grids.patch_centers, grids.levels)
        return patches + self.gamma * read


class Extractor(nn.Module):
    """The levels read the ViT's patches, then a feed-forward: (B, S, D), (B, N, D) -> (B, S, D)."""

    def __init__(self, dim: int, attention: dict[str, int], ffn_dim: int, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.query_norm = nn.LayerNorm(dim, _EPSILON)
        self.feat_norm = nn.LayerNorm(dim, _EPSILON)
        self.attn = MSDeformAttn(dim, num_scales=1, **attention)
        self.ffn = ConvFFN(dim, ffn_dim)
        self.ffn_norm = nn.LayerNorm(dim, _EPSILON)

    def forward(self, levels: Tensor, patches: Tensor, grids: Grids) -> Tensor:
        queries, values = self.query_norm(levels), self.feat_norm(patches)
        levels = levels + _attend(self.attn, queries, values, grids.level_centers, grids.patches)
        branch = self.ffn(self.ffn_norm(levels), grids.levels)
        return levels + drop_path(branch, self.drop_path_rate, self.training)


class ConvFFN(nn.Module):
    """A feed-forward with a convolution of each channel, which all levels share."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Module()
        self.dwconv.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, sizes: ScaleSizes) -> Tensor:
        """Tokens (B, S, D) of levels of these sizes, one after the other."""
        maps = [self.dwconv.dwconv(x) for x in as_maps(self.fc1(x), sizes)]
        return self.fc2(F.gelu(as_tokens(maps)))


def as_tokens(maps: list[Tensor]) -> Tensor:
    """Maps (B, D, h, w), one after the other: (B, S, D)."""
    return torch.cat([x.flatten(2).mT for x in maps], dim=1)


def as_maps(tokens: Tensor, sizes: ScaleSizes) -> list[Tensor]:
    """The inverse of `as_tokens`."""
    parts = tokens.mT.split([height * width for height, width in sizes], dim=2)
    return [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


def init_adapter_(module: nn.Module) -> None:
    """The first values of all layers but those of deformable attention, which has its own."""
    module.apply(init_layer)
    for layer in module.modules():
        if isinstance(layer, MSDeformAttn):
            layer.reset_parameters()


def _attend(
    attention: MSDeformAttn, queries: Tensor, values: Tensor, centers: Tensor, sizes: ScaleSizes
) -> Tensor:
    """In float32 or better, also under autocast."""
    with torch.autocast(queries.device.type, enabled=False):
        return attention(at_least_float(queries), at_least_float(values), centers, sizes)


def _conv(in_channels: int, out_channels: int, stride: int, norm: str) -> list[nn.Module]:
    """The layers of a 3 x 3 convolution with a norm and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return [conv, get_norm(norm, out_channels), nn.ReLU(inplace=True)]
