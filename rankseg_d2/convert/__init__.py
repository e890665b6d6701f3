"""Checkpoints of other libraries as files of this package, and back."""

from .converting import convert, export

__all__ = ["convert", "export"]
