"""A predictor's model as a file, checked, with the code for its results beside it."""

import os
from pathlib import Path

from ..files import replacing, write_bytes
from ..predict import Predictor
from .description import describe_export, multiple_of
from .formats import format_named
from .network import ExportedNetwork
from .parity import TOLERANCE, check_inputs, check_parity
from .tracing import trace

_POSTPROCESS = Path(__file__).with_name("postprocess.py")


def export(
    predictor: Predictor,
    output: str | os.PathLike,
    *,
    format: str = "onnx",
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    check: bool = True,
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Write the model, and `<name>_postprocess.py`; the largest difference of each output.

    Args:
        predictor: its model, on the CPU, with its classes and options.
        output: the file, .onnx or, of the format torch_export, .pt2.
        size: the only (height, width) that the file takes; None: any multiple of 32.
        frames: of the clips that a model for videos takes; None: those of a window.
        check: compare the file with the model, and keep it only if no number differs by more than
            the tolerance.
    """
    chosen, output, model = format_named(format), Path(output), predictor.model
    if output.suffix != chosen.suffix:
        raise ValueError(f"the file to write, {output}, must end in {chosen.suffix} ({format})")
    if model.device.type != "cpu":
        raise ValueError(
            f"the model is on {model.device}, but is exported on the CPU; make the Predictor with "
            'device="cpu"'
        )
    frames, multiple = _frames(predictor, frames), multiple_of(model)
    _check_size(size, multiple)
    network = ExportedNetwork(model).eval()
    program = trace(network, frames, size, multiple)
    description = describe_export(predictor, frames, size)
    output.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    with replacing(output) as temporary:
        chosen.write(program, network.names, description, temporary)
        if check:
            inputs = check_inputs(frames, size, multiple)
            found = check_parity(chosen.load(temporary), network, inputs, tolerance)
    write_bytes(postprocess_path(output), _POSTPROCESS.read_bytes())
    return found


def postprocess_path(output: Path) -> Path:
    """The file beside an exported one: model.onnx -> model_postprocess.py."""
    return output.with_name(f"{output.stem}_postprocess.py")


def _frames(predictor: Predictor, frames: int | None) -> int | None:
    """The frames of a clip; None for images."""
    if not predictor.model.is_video:
        if frames is not None:
            raise ValueError(f"--frames {frames} is for models of videos; leave it out")
        return None
    if frames is None:
        windows = predictor.model.windows
        frames = windows.window if windows else predictor.cfg.INPUT.SAMPLING_FRAME_NUM
    if frames < 1:
        raise ValueError(f"--frames must be at least 1; got {frames}")
    return frames


def _check_size(size: tuple[int, int] | None, multiple: int) -> None:
    if size is not None and not all(side > 0 and side % multiple == 0 for side in size):
        raise ValueError(
            f"--size must be two multiples of {multiple}, height and width; got {size[0]} and "
            f"{size[1]}"
        )
