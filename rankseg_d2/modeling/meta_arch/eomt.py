"""EoMT (Kerssies et al., CVPR 2025): a ViT that is encoder and decoder at once."""

from detectron2.config import CfgNode
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from ..backbone import VisionTransformer
from ..backbone.vit import LAST
from ..clips import Clips
from ..eomt_head import EoMTHead
from ..outputs import MaskPredictions
from .mask_classification import MaskFormer


class EoMT(MaskFormer):
    """MaskFormer whose queries are tokens of the backbone's last blocks; for images."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        _check(cfg)
        return super().from_config(cfg)

    def network(self, frames: Tensor, num_frames: int = 1) -> MaskPredictions:
        return self.sem_seg_head(self.backbone, frames, every_layer=self.training)

    def run_network(self, clips: Clips) -> MaskPredictions:
        if self.training:
            iteration = get_event_storage().iter if has_event_storage() else None
            self.sem_seg_head.predictor.anneal(iteration)
        return super().run_network(clips)


def _check(cfg: CfgNode) -> None:
    """Raise ValueError if backbone or head are not EoMT's."""
    model = cfg.MODEL
    for key, name, needed in (
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, VisionTransformer.__name__),
        ("MODEL.SEM_SEG_HEAD.NAME", model.SEM_SEG_HEAD.NAME, EoMTHead.__name__),
        ("MODEL.VIT.OUT_FEATURES", list(model.VIT.OUT_FEATURES), [LAST]),
        ("MODEL.VIT.CLASS_EMBEDDING", model.VIT.CLASS_EMBEDDING, False),
    ):
        if name != needed:
            raise ValueError(f"MODEL.META_ARCHITECTURE EoMT needs {key} {needed}, not {name}")
    if model.EOMT.BLOCKS > model.VIT.DEPTH:
        raise ValueError(
            f"MODEL.EOMT.BLOCKS is {model.EOMT.BLOCKS}, but the ViT has {model.VIT.DEPTH} blocks; "
            "lower it, or raise MODEL.VIT.DEPTH"
        )
