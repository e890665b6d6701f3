"""Weight files: read safely, renamed, and adapted to a model."""

from .adapting import Rows, adapt, differences, table
from .metadata import METADATA, check_storable, read_metadata, write_metadata
from .reading import is_whole, locate, read_checkpoint, read_weights, weights_in
from .renaming import rename

__all__ = [
    "METADATA",
    "Rows",
    "adapt",
    "check_storable",
    "differences",
    "is_whole",
    "locate",
    "read_checkpoint",
    "read_metadata",
    "read_weights",
    "rename",
    "table",
    "weights_in",
    "write_metadata",
]
