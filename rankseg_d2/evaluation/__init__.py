"""Metrics, reduced over all ranks; which one a data set gets is in `build`."""

from .build import EVALUATORS, build_evaluator, register_evaluator

__all__ = ["EVALUATORS", "build_evaluator", "register_evaluator"]
