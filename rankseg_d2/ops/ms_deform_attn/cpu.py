"""The C++ kernels of csrc/cpu, for the instruction set that the processor has."""

from .. import library
from . import compiled
from .reference import FusedInputs, Inputs


class Cpu(compiled.Compiled):
    """Sums in float32 (float64 for float64), in an order that no number of threads changes."""

    name = "cpu"

    def why_not(self, inputs: Inputs | FusedInputs | None) -> str | None:
        if library.WHY_NOT is not None:
            return library.WHY_NOT
        if inputs is not None and inputs.value.device.type != "cpu":
            return f"value is on {inputs.value.device}, not on the CPU"
        return None
