"""The network as a graph by torch.export, for batches of any size, and for sizes that vary."""

import torch
from torch.export import Dim, ExportedProgram

from ..errors import sentence
from .network import ExportedNetwork

_OLDEST = (2, 7)  # the first that says, while it traces, that it exports
_LARGEST = 2**14  # pixels of a side, and images of a batch: limits that the exporter wants


def trace(
    network: ExportedNetwork, frames: int | None, size: tuple[int, int] | None, multiple: int
) -> ExportedProgram:
    """The graph of a network in evaluation mode.

    Args:
        frames: of the clips that it takes; None: it takes images.
        size: the only height and width that the graph takes; None: all multiples of `multiple`.
    """
    if torch.__version__ < _OLDEST:
        raise ImportError(
            f"exporting needs PyTorch 2.7 or newer, and this is {torch.__version__}; update it: "
            "pip install -U torch torchvision"
        )
    height, width = size or (2 * multiple, 3 * multiple)
    clip = () if frames is None else (frames,)
    images = torch.zeros(2, *clip, 3, height, width)
    dynamic = {0: Dim("batch", min=1, max=_LARGEST)}
    if size is None:
        for axis, name in ((-2, "height"), (-1, "width")):
            steps = Dim(f"{name}_steps", min=1, max=_LARGEST // multiple)
            dynamic[images.dim() + axis] = multiple * steps
    try:
        with torch.no_grad():
            return torch.export.export(
                network, (images,), dynamic_shapes={"images": dynamic}, strict=False
            )
    except Exception as error:  # torch raises errors of many kinds here
        hint = "" if size else "; it may work for one size: --size HEIGHT WIDTH"
        raise RuntimeError(
            f"torch.export cannot export this {type(network.model).__name__} with "
            f"{type(network.model.backbone).__name__}{hint}. It says: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in sentence(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)[:300]
