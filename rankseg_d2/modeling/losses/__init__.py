"""The set loss of mask classifiers: matching of queries with objects, and losses."""

from .criterion import SetCriterion, build_criterion, mean_over_ranks
from .matcher import HungarianMatcher

__all__ = ["HungarianMatcher", "SetCriterion", "build_criterion", "mean_over_ranks"]
