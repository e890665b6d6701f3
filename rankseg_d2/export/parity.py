"""Does an exported file give the numbers of the model that it was made of?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .formats import Run
from .network import ExportedNetwork

TOLERANCE = 1e-3  # of a number, relative to those above 1


def check_parity(
    run: Run, network: ExportedNetwork, inputs: Sequence[Tensor], tolerance: float = TOLERANCE
) -> dict[str, float]:
    """The largest difference of each output over all inputs; ValueError above the tolerance."""
    largest: dict[str, float] = {}
    for images in inputs:
        with torch.no_grad():
            wanted = network(images)
        for name, value in differences(wanted, run(images), tolerance).items():
            if not value <= tolerance:  # also not a number
                raise ValueError(
                    f"the exported file differs from the model: {name} by {value:.2g} for an input "
                    f"of {tuple(images.shape)}, and {tolerance:g} is allowed; the file was not "
                    "kept. --tolerance allows more, --no-check keeps it unchecked"
                )
            largest[name] = max(value, largest.get(name, 0.0))
    return largest


def differences(
    wanted: dict[str, Tensor], found: dict[str, Tensor], tolerance: float
) -> dict[str, float]:
    """The largest difference of each output, relative to numbers above 1.

    Two categories whose scores differ by less than the tolerance may have each other's rank: of an
    image where this is so, the outputs that depend on the ranks are not compared.
    """
    wrong = [name for name in wanted if wanted[name].shape != found[name].shape]
    if wrong:
        return dict.fromkeys(wrong, float("inf"))
    same = torch.ones(len(next(iter(wanted.values()))), dtype=torch.bool)
    values = {}
    if "categories" in wanted:
        ids, others = wanted["categories"], found["categories"]
        scores = wanted["category_scores"]
        values["categories"] = _largest(scores.gather(1, ids), scores.gather(1, others))
        same = (ids == others).all(1)  # (B,)
        if values["categories"] <= tolerance and not same.any():
            raise ValueError(
                "the check could not compare: the scores of the categories are nearly equal in "
                "all images, so that their order is arbitrary; train the model, or use --no-check"
            )
    for name, value in wanted.items():
        if name == "category_scores":
            values[name] = _largest(value, found[name])
        elif name != "categories":
            values[name] = _largest(value[same], found[name][same])
    return values


def _largest(wanted: Tensor, found: Tensor) -> float:
    wanted, found = wanted.double(), found.double()
    error = (wanted - found).abs() / wanted.abs().clamp(min=1)
    return error.max().item() if error.numel() else 0.0


def check_inputs(
    frames: int | None, size: tuple[int, int] | None, multiple: int
) -> list[Tensor]:
    """Two batches of different lengths and, unless `size` is the only one, of different sizes."""
    sizes = [size, size] if size else [(6 * multiple, 8 * multiple), (5 * multiple, 4 * multiple)]
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for batch, one in zip((1, 2), sizes, strict=True):
        coarse = torch.randn(batch * (frames or 1), 3, 6, 6, generator=generator)
        images = F.interpolate(coarse, one, mode="bilinear")  # smooth, as photos are
        images = images + 0.1 * torch.randn(images.shape, generator=generator)
        inputs.append(images if frames is None else images.unflatten(0, (batch, frames)))
    return inputs
