"""Metrics of every task, reduced over all processes; `build` chooses those of a data set."""

from .build import EVALUATORS, build_evaluator, register_evaluator
from .checks import check_evaluation
from .instance import InstanceEvaluator
from .multilabel import MultiLabelEvaluator, VideoMultiLabelEvaluator
from .panoptic import PanopticEvaluator
from .parsing import ParsingEvaluator
from .semantic import SemanticEvaluator
from .vspw import VideoSemanticEvaluator
from .ytvis import VideoInstanceEvaluator

__all__ = ["EVALUATORS", "build_evaluator", "check_evaluation", "register_evaluator"]
__all__ += ["InstanceEvaluator", "MultiLabelEvaluator", "PanopticEvaluator", "SemanticEvaluator"]
__all__ += ["ParsingEvaluator", "VideoInstanceEvaluator", "VideoMultiLabelEvaluator"]
__all__ += ["VideoSemanticEvaluator"]
