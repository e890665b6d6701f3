from abc import ABCMeta, abstractmethod

from torch import nn

from ...layers import ShapeSpec


class Backbone(nn.Module, metaclass=ABCMeta):
    """From images to named feature maps.

    The default `output_shape` reads `_out_features` (names), `_out_feature_channels` and
    `_out_feature_strides` (name -> number), which a subclass sets.
    """

    @abstractmethod
    def forward(self, x) -> dict:
        """Images (N, C, H, W) -> feature name -> (N, channels, H / stride, W / stride)."""

    @property
    def size_divisibility(self) -> int:
        """What the images' height and width must be multiples of; 0 for anything."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What ImageList.from_tensors shall heed: "size_divisibility", "square_size"."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
