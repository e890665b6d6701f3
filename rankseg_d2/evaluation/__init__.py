"""Metrics of every task, reduced over all processes; `build` chooses those of a data set."""

from .build import EVALUATORS, build_evaluator, register_evaluator
from .checks import check_evaluation
from .entity import EntityEvaluator
from .instance import InstanceEvaluator
from .multilabel import MultiLabelEvaluator, VideoMultiLabelEvaluator
from .panoptic import PanopticEvaluator
from .parsing import ParsingEvaluator
from .semantic import SemanticEvaluator
from .vspw import VideoSemanticEvaluator
from .ytvis import VideoInstanceEvaluator

__all__ = ["EVALUATORS", "build_evaluator", "check_evaluation", "register_evaluator"]
__all__ += ["EntityEvaluator", "InstanceEvaluator", "MultiLabelEvaluator", "PanopticEvaluator"]
__all__ += ["ParsingEvaluator", "SemanticEvaluator"]
__all__ += ["VideoInstanceEvaluator", "VideoMultiLabelEvaluator", "VideoSemanticEvaluator"]
