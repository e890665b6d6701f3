"""Per-pixel baselines: they classify pixels, not masks. For detectron2's `SemanticSegmentor`."""

from detectron2.config import configurable
from detectron2.layers import Conv2d
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ..head import decode, transformer_source
from ..pixel_decoder import build_pixel_decoder
from ..registering import register
from ..transformer_decoder import build_transformer_decoder

STRIDE = 4  # of the mask features


@register(SEM_SEG_HEADS_REGISTRY)
class PerPixelBaselineHead(nn.Module):
    """A pixel decoder and a linear classifier of its pixels."""

    _version = 2

    @configurable
    def __init__(
        self,
        input_shape,
        *,
        pixel_decoder: nn.Module,
        predictor: nn.Module,
        loss_weight: float,
        ignore_value: int,
    ):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value

    @classmethod
    def from_config(cls, cfg, input_shape):
        if cfg.MODEL.RANKSEG.FLAG or cfg.MODEL.RANKSEG.USE_GT:
            raise ValueError(
                f"{cls.__name__} does not rank: set MODEL.RANKSEG.FLAG and USE_GT False, or "
                "MODEL.META_ARCHITECTURE to MaskFormer and MODEL.SEM_SEG_HEAD.NAME to "
                "MaskFormerHead"
            )
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": input_shape,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "predictor": cls.build_predictor(cfg, input_shape),
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
        }

    @classmethod
    def build_predictor(cls, cfg, input_shape) -> nn.Module:
        head = cfg.MODEL.SEM_SEG_HEAD
        predictor = Conv2d(head.MASK_DIM, head.NUM_CLASSES, kernel_size=1)
        nn.init.kaiming_normal_(predictor.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(predictor.bias)
        return predictor

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None):
        """(scores (B, C, H, W), no losses), or in training (None, losses) of labels (B, H, W).

        H and W are those of the mask features times 4; in training labels may be less, for a
        padded image's sake.
        """
        logits = self.logits(features)
        if self.training:
            return None, self.losses(logits, targets)
        return enlarge(logits[-1]), {}

    def logits(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Class logits (B, C, h, w) of every supervised layer, the last of which is the result."""
        return [self.predictor(self.pixel_decoder(features).mask_features)]

    def losses(self, logits: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """`loss_sem_seg` of the last layer, `_0`, `_1`, ... of those before it."""
        names = [*(f"loss_sem_seg_{i}" for i in range(len(logits) - 1)), "loss_sem_seg"]
        return {
            name: self.loss_weight * cross_entropy(enlarge(layer), targets, self.ignore_value)
            for name, layer in zip(names, logits, strict=True)
        }


@register(SEM_SEG_HEADS_REGISTRY)
class PerPixelBaselinePlusHead(PerPixelBaselineHead):
    """The same with a transformer decoder: its query n makes the embedding of class n."""

    @configurable
    def __init__(
        self, input_shape, *, transformer_in_feature: str, deep_supervision: bool, **options
    ):
        super().__init__(input_shape, **options)
        self.transformer_in_feature = transformer_in_feature
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(cls, cfg, input_shape):
        source, _ = transformer_source(cfg, input_shape)
        return super().from_config(cfg, input_shape) | {
            "transformer_in_feature": source,
            "deep_supervision": cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION,
        }

    @classmethod
    def build_predictor(cls, cfg, input_shape):
        queries = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
        classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        if queries != classes:
            raise ValueError(
                "PerPixelBaselinePlusHead has one query per class: set MODEL.MASK_FORMER."
                f"NUM_OBJECT_QUERIES, which is {queries}, to MODEL.SEM_SEG_HEAD.NUM_CLASSES, "
                f"which is {classes}"
            )
        _, width = transformer_source(cfg, input_shape)
        return build_transformer_decoder(cfg, width, mask_classification=False)

    def logits(self, features):
        masks = decode(self, features).masks  # L times (B, C, 1, h, w)
        return [layer[:, :, 0] for layer in (masks if self.deep_supervision else masks[-1:])]


def enlarge(logits: Tensor) -> Tensor:
    """From the size of the mask features to that of the network's input, in float32."""
    return F.interpolate(logits.float(), scale_factor=STRIDE, mode="bilinear", align_corners=False)


def cross_entropy(logits: Tensor, targets: Tensor, ignore_value: int) -> Tensor:
    """Mean over the pixels that are not ignored; 0 if all are. Targets are of any integer type."""
    targets = targets.long()
    height, width = targets.shape[-2:]
    logits = logits[..., :height, :width]  # what is more is padding of the last cells
    losses = F.cross_entropy(logits, targets, ignore_index=ignore_value, reduction="sum")
    return losses / (targets != ignore_value).sum().clamp(min=1)
