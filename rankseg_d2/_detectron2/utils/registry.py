"""Objects found by name in a registry that a config names."""

from fvcore.common.registry import Registry

__all__ = ["Registry"]
