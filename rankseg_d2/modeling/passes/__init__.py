"""Several forward passes over one image: sliding windows, test-time augmentation."""

from .build import in_passes
from .several import SeveralPasses
from .sliding_window import SlidingWindow
from .test_time_augmentation import TestTimeAugmentation

__all__ = ["SeveralPasses", "SlidingWindow", "TestTimeAugmentation", "in_passes"]
