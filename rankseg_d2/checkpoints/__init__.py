"""Weight files: read safely, renamed, and adapted to a model."""

from .adapting import Rows, adapt, differences, table
from .reading import is_whole, locate, read_checkpoint, read_weights
from .renaming import rename

__all__ = [
    "Rows",
    "adapt",
    "differences",
    "is_whole",
    "locate",
    "read_checkpoint",
    "read_weights",
    "rename",
    "table",
]
