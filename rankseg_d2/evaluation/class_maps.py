"""Ground truth of a data set's images as maps of all its classes, for pictures."""

import numpy as np
from detectron2.data import MetadataCatalog

from ..drawing import class_colors
from .ground_truth import LabelMaps, ThingMaps


class ClassMaps:
    """Names and colours of the classes, and ground truth.

    Of all classes, "stuff", or of the things alone, "thing"; by default of all, if they are known.
    """

    def __init__(self, dataset_name: str, kind: str | None = None):
        metadata = MetadataCatalog.get(dataset_name)
        kind = kind or ("stuff" if metadata.get("stuff_classes") else "thing")
        self.labels = (LabelMaps if kind == "stuff" else ThingMaps)(dataset_name)
        self.names: list[str] = metadata.get(f"{kind}_classes")
        self.colors = class_colors(self.names, metadata.get(f"{kind}_colors"))  # (C, 3)

    def ground_truth(self, sample: dict) -> np.ndarray:
        """The class of each pixel (H, W) int64, C where it is ignored."""
        labels, _ = self.labels.read(sample)
        labels = labels.astype(np.int64)  # the number of classes may not fit into a byte
        return np.where(labels == self.labels.ignore, len(self.names), labels)
