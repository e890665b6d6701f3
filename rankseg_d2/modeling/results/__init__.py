"""Results: which are wanted, how they are made, and how they are read."""

from .options import ResultOptions
from .resizing import Sizes
from .segments import mask_result, pixel_result, ranking_result

__all__ = ["ResultOptions", "Sizes", "mask_result", "pixel_result", "ranking_result"]
