"""Predictions for people: from a checkpoint to names, masks and pictures."""

from .classes import Classes
from .predictor import Predictor
from .results import Category, ImageResult, Instances, Panoptic

__all__ = ["Category", "Classes", "ImageResult", "Instances", "Panoptic", "Predictor"]
