"""CondInst: a detector whose locations each give the kernels that draw a mask; for entities."""

from .head import CondInstHead

__all__ = ["CondInstHead"]
