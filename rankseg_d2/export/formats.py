"""The formats of exported files: a graph is written, and a written file runs on the CPU."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..checkpoints import METADATA
from ..errors import sentence, unknown_name
from ..predict.onnx_model import INPUT, needed

Run = Callable[[Tensor], dict[str, Tensor]]

_LARGEST_ONNX = 2**31 - 2**24  # bytes of weights: a file of one part ends at 2 GiB


class Format(NamedTuple):
    suffix: str
    write: Callable[[ExportedProgram, list[str], str, Path], None]
    load: Callable[[Path], Run]


def format_named(name: str) -> Format:
    if name not in FORMATS:
        raise unknown_name("--format", name, FORMATS)
    return FORMATS[name]


def _write_onnx(program: ExportedProgram, names: list[str], description: str, path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package)
    total = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if total > _LARGEST_ONNX:
        raise ValueError(
            f"the weights are {total / 2**30:.1f} GiB, but an ONNX file holds 2; use --format "
            "torch_export"
        )
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=names,
                dynamo=True,
                external_data=False,
                verbose=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )
    except Exception as error:  # torch raises errors of many kinds here
        raise RuntimeError(
            "torch.onnx cannot convert a part of this model; use --format torch_export. It says: "
            f"{_innermost(error)}"
        ) from error
    exported.model.metadata_props[METADATA] = description
    exported.save(path, external_data=False)


def _innermost(error: BaseException) -> str:
    """The reason in a chain of errors: torch.onnx writes a page around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return sentence(error)[:300]


def _stable_sort(
    self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Any, Any]:
    """The sort that torch.onnx lacks: of equal values TopK takes the lower index first."""
    from onnxscript import opset18 as op

    size = op.Reshape(op.Gather(op.Shape(self), dim, axis=0), op.Constant(value_ints=[1]))
    return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


def _load_onnx(path: Path) -> Run:
    onnxruntime = needed("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        try:
            found = session.run(names, {INPUT: images.numpy()})
        except Exception as error:  # onnxruntime's errors have no common class
            raise RuntimeError(
                f"the exported file does not run for an input of {tuple(images.shape)}; it may for "
                f"one size: --size HEIGHT WIDTH. onnxruntime says: {sentence(error)[:300]}"
            ) from error
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run


def _write_torch(program: ExportedProgram, _: list[str], description: str, path: Path) -> None:
    with _quiet():
        torch.export.save(program, path, extra_files={METADATA: description})


def _load_torch(path: Path) -> Run:
    return torch.export.load(path).module()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


FORMATS = {
    "onnx": Format(".onnx", _write_onnx, _load_onnx),
    "torch_export": Format(".pt2", _write_torch, _load_torch),
}
