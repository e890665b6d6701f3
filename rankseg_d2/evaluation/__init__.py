"""Metrics, reduced over all ranks; which ones a data set gets is in `build`."""

from .build import EVALUATORS, build_evaluator, register_evaluator
from .instance import InstanceEvaluator
from .multilabel import MultiLabelEvaluator, VideoMultiLabelEvaluator
from .panoptic import PanopticEvaluator
from .semantic import SemanticEvaluator
from .vspw import VideoSemanticEvaluator
from .ytvis import VideoInstanceEvaluator

__all__ = ["EVALUATORS", "build_evaluator", "register_evaluator"]
__all__ += ["InstanceEvaluator", "MultiLabelEvaluator", "PanopticEvaluator", "SemanticEvaluator"]
__all__ += ["VideoInstanceEvaluator", "VideoMultiLabelEvaluator", "VideoSemanticEvaluator"]
