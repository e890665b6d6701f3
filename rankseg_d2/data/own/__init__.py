"""Own data sets: one yaml describes and registers a data set (docs/own_data.md)."""

from .config_defaults import follow_data, register_files
from .register import register_own_data

__all__ = ["follow_data", "register_files", "register_own_data"]
