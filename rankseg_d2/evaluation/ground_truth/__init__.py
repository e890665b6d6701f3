"""Ground truth of a data set: from its json, or from its records."""

from .entities import load_entities
from .instances import InstanceGroundTruth, load_instances
from .records import GroundTruth, LabelMaps, ThingMaps, image_key
from .segments import PanopticGroundTruth
from .videos import Video, VideoGroundTruth

__all__ = ["GroundTruth", "InstanceGroundTruth", "LabelMaps", "PanopticGroundTruth", "ThingMaps"]
__all__ += ["Video", "VideoGroundTruth", "image_key", "load_entities", "load_instances"]
