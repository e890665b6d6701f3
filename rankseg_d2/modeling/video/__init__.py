"""Whole videos: windows of frames, objects linked over windows, results in bounded memory."""

from .store import LabelWriter
from .whole_video import predict_video
from .windows import VideoWindows

__all__ = ["LabelWriter", "VideoWindows", "predict_video"]
