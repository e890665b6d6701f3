"""The passes that a config asks for."""

from detectron2.config import CfgNode
from torch import nn

from .sliding_window import SlidingWindow
from .test_time_augmentation import TestTimeAugmentation


def in_passes(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model in the passes of TEST.SLIDING_WINDOW and TEST.AUG, or as it is."""
    if cfg.TEST.SLIDING_WINDOW.ENABLED:
        model = SlidingWindow.from_config(cfg, model)
    return TestTimeAugmentation.from_config(cfg, model) if cfg.TEST.AUG.ENABLED else model
