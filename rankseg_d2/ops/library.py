"""The compiled library of all operations, loaded once."""

import re
from pathlib import Path

import torch

LIBRARY = Path(__file__).parents[1] / "_C.so"
BUILD = "pip install --no-build-isolation -e ."


def load(library: Path = LIBRARY) -> str | None:
    """Register the operations of `library`. The result: why that is not possible, or None."""
    if not library.exists():
        return f"it is not compiled; in rankseg_d2's source folder: {BUILD}"
    built_for = re.search(rb"rankseg_d2 is built for torch ([\w.]+)", library.read_bytes())
    version = built_for[1].decode() if built_for else "an unknown version"
    if version.split(".")[:2] != torch.__version__.split(".")[:2]:
        return (
            f"it is compiled for torch {version}, but this is torch {torch.__version__}; "
            f"build it again: {BUILD}"
        )
    try:
        torch.ops.load_library(library)
    except OSError as error:
        reason = str(error).splitlines()[0]
        return f"the compiled part does not load ({reason}); build it again: {BUILD}"
    return None


WHY_NOT = load()  # None: the operations are present
