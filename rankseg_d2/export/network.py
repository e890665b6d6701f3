"""The part of a model that is exported: from prepared frames to logits, as flat tensors by name."""

from torch import Tensor, nn

from ..modeling.meta_arch import PixelClassifier, Segmentation
from ..modeling.outputs import Outputs


class ExportedNetwork(nn.Module):
    """Frames (B, 3, H, W), or (B, T, 3, H, W) of clips, prepared as the model does -> tensors.

    Of mask classifiers:
        class_logits (B, Q, K+1), no-object last; mask_logits (B, Q, h, w), of clips (B, Q, T, h, w)
    Of pixel classifiers:
        pixel_logits (B, K, h, w)
    With a ranking also:
        category_scores (B, C), logits; categories (B, K), the ids of the columns, best first; and
        valid (B, K) bool, False for a column without a category, if κ depends on a threshold

    Without a ranking K is C, and a column's number is its category.
    """

    def __init__(self, model: Segmentation):
        super().__init__()
        self.model = model

    @property
    def names(self) -> list[str]:
        """The names of the outputs, in their order."""
        pixels = isinstance(self.model, PixelClassifier)
        names = ["pixel_logits"] if pixels else ["class_logits", "mask_logits"]
        if self.model.ranks:
            names += ["category_scores", "categories"]
            if self.model.ranker.threshold is not None:
                names.append("valid")
        return names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        num_frames = images.shape[1] if self.model.is_video else 1
        frames = images.flatten(0, 1) if self.model.is_video else images
        outputs = self.model.decide(self.model.network(frames, num_frames))
        found = self.tensors(outputs)
        return {name: found[name] for name in self.names}

    def tensors(self, outputs: Outputs) -> dict[str, Tensor]:
        if isinstance(self.model, PixelClassifier):
            found = {"pixel_logits": outputs.logits[-1]}
        else:
            masks = outputs.masks[-1]  # (B, Q, T, h, w)
            masks = masks if self.model.is_video else masks[:, :, 0]
            found = {"class_logits": outputs.logits[-1], "mask_logits": masks}
        ranking = outputs.ranking
        if ranking is not None:
            found |= {"category_scores": ranking.scores, "categories": ranking.index}
            if ranking.valid is not None:
                found["valid"] = ranking.valid
        return found
