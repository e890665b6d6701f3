"""The page of a run: what an evaluation has written, in one file of HTML."""

from .content import read_run
from .writing import write_page

__all__ = ["read_run", "write_page"]
