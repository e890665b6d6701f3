"""Configuration nodes, their defaults, and classes that build themselves from them."""

from .config import CfgNode, configurable, get_cfg

__all__ = ["CfgNode", "configurable", "get_cfg"]
