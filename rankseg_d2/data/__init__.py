"""Data sets, mappers and loaders. Importing registers the public data sets and reads no file.

Imports point to the left only: formats, holding_out, classes < prepare < drawn < shapes, stickers <
datasets < own < mappers < loading < checks.
"""

from . import datasets  # noqa: F401
