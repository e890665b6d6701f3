"""Loading and saving of weights and of all that a training needs to go on."""

from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

from . import catalog  # noqa: F401  (registers catalog:// names)
from .detection_checkpoint import DetectionCheckpointer

__all__ = ["Checkpointer", "PeriodicCheckpointer", "DetectionCheckpointer"]
