from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """What is known of a feature map before it exists; `stride` is relative to the image."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
