"""Training and inference: loop, hooks, default trainer and predictor, launch."""

from . import defaults, hooks, train_loop
from .defaults import *  # noqa: F403
from .hooks import *  # noqa: F403
from .launch import DEFAULT_TIMEOUT, launch
from .train_loop import *  # noqa: F403

__all__ = ["DEFAULT_TIMEOUT", "launch", *defaults.__all__, *hooks.__all__, *train_loop.__all__]
