"""Other libraries' models: one table of names for each."""

from collections.abc import Collection

from . import deeplab, encnet, eomt, maskformer, segformer, segmenter, upernet, vit_adapter
from .table import Rule, Table, same, transposed

TABLES: tuple[Table, ...] = (  # the more special first
    *deeplab.TABLES,
    *encnet.TABLES,
    *eomt.TABLES,
    *maskformer.TABLES,
    *segformer.TABLES,
    *vit_adapter.TABLES,
    *upernet.TABLES,
    *segmenter.TABLES,
)


def find_table(names: Collection[str]) -> Table | None:
    """The table of the library that a file with these names is of; None: it has our names."""
    return next((table for table in TABLES if table.is_of(names)), None)


__all__ = ["TABLES", "Rule", "Table", "find_table", "same", "transposed"]
