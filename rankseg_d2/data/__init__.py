"""Data sets, mappers and labels. Importing registers the public data sets, and reads no file."""

from . import datasets  # noqa: F401
