"""From the keys of MODEL.RANKSEG to a ranker and a multi-label head; sentences for wrong keys."""

import logging

from detectron2.config import CfgNode
from torch import nn

from ...errors import unknown_name
from ...ranking import (
    HEADS,
    LOSSES,
    BlockHead,
    ConvPoolingHead,
    GroupHead,
    Ranker,
    build_loss,
    check_schedule,
)

logger = logging.getLogger(__name__)

# MODEL.RANKSEG.SCORES -> weights of the multi-label head's scores and of those by masks; None: the
# weights of MODEL.RANKSEG.SCORE_WEIGHTS
_SCORES = {"head": (1.0, 0.0), "masks": (0.0, 1.0), "both": None}


def build_ranker(cfg: CfgNode) -> Ranker:
    """The ranker of MODEL.RANKSEG, whose keys have been checked."""
    options = cfg.MODEL.RANKSEG
    return Ranker(
        # The oracle without a number of ranks keeps all categories that are present.
        topk=options.TOPK or cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        threshold=options.THRESHOLD or None,
        keep_true=options.KEEP_TRUE,
        random_share=options.RANDOM_SHARE,
        schedule=tuple(map(tuple, options.TOPK_SCHEDULE)),
        oracle=options.USE_GT,
        loss=build_loss(options.LOSS, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),
        loss_weight=options.LOSS_WEIGHT,
        cosine=cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM,
        gate=options.GATE,
    )


def score_weights(cfg: CfgNode) -> tuple[float, float]:
    """Weights of the multi-label head's scores and of those by masks; 0: they do not exist."""
    options = cfg.MODEL.RANKSEG
    return (0.0, 0.0) if options.USE_GT else _SCORES[options.SCORES] or options.SCORE_WEIGHTS


def check_options(cfg: CfgNode, name: str) -> None:
    """Raise ValueError or KeyError for invalid options of MODEL.RANKSEG."""
    options, num_classes = cfg.MODEL.RANKSEG, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if not (options.FLAG or options.USE_GT):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {name}, but its ranking is not set: set "
            "MODEL.RANKSEG.FLAG True, or USE_GT for the oracle; without a ranking it is "
            f"{name.removeprefix('RankSeg')}"
        )
    if (options.TOPK or not options.USE_GT) and not 1 <= options.TOPK <= num_classes:
        raise ValueError(
            f"MODEL.RANKSEG.TOPK must be in [1, {num_classes}], the number of classes; got "
            f"{options.TOPK}. {num_classes} keeps every category."
        )
    if not 0 <= options.THRESHOLD < 1:
        raise ValueError(
            "MODEL.RANKSEG.THRESHOLD must be a probability between 0 and 1 (0 keeps all TOPK); "
            f"got {options.THRESHOLD}."
        )
    _check_kept_set(options, num_classes)
    _check_scores(options)
    if options.LOSS not in LOSSES:
        raise unknown_name("MODEL.RANKSEG.LOSS", options.LOSS, LOSSES)
    if options.HEAD not in HEADS:
        raise unknown_name("MODEL.RANKSEG.HEAD", options.HEAD, HEADS)
    without_tokens = HEADS[options.HEAD] in (ConvPoolingHead, GroupHead)
    if options.SHARE_EMBEDDING and not options.USE_GT and without_tokens:
        raise ValueError(
            f"MODEL.RANKSEG.SHARE_EMBEDDING is True, but MODEL.RANKSEG.HEAD {options.HEAD} has no "
            "class embedding that could be shared; set it False, or the head to pooling"
        )
    if not 0 <= options.GROUPS <= num_classes:
        raise ValueError(
            f"MODEL.RANKSEG.GROUPS must be in [0, {num_classes}], the number of classes (0: "
            f"automatic); got {options.GROUPS}."
        )


def _check_kept_set(options: CfgNode, num_classes: int) -> None:
    check_schedule(options.TOPK_SCHEDULE, num_classes, "MODEL.RANKSEG.TOPK_SCHEDULE")
    if options.RANDOM_SHARE and not options.KEEP_TRUE:
        raise ValueError(
            f"MODEL.RANKSEG.RANDOM_SHARE is {options.RANDOM_SHARE:g}, but it is a share of the "
            "places that true categories leave; set MODEL.RANKSEG.KEEP_TRUE True"
        )


def _check_scores(options: CfgNode) -> None:
    if options.SCORES not in _SCORES:
        raise unknown_name("MODEL.RANKSEG.SCORES", options.SCORES, _SCORES)
    if options.SCORES == "both" and not all(options.SCORE_WEIGHTS):
        raise ValueError(
            "MODEL.RANKSEG.SCORE_WEIGHTS must be two numbers above 0; got "
            f"{list(options.SCORE_WEIGHTS)}. For one ranker alone, set MODEL.RANKSEG.SCORES to "
            "head or masks"
        )


def check_head(cfg: CfgNode, head: nn.Module) -> None:
    """Raise ValueError if the source of the scores does not fit the head of the model."""
    by_head, by_masks = score_weights(cfg)
    if by_masks and getattr(head, "refines", False):
        raise ValueError(
            f"MODEL.RANKSEG.SCORES {cfg.MODEL.RANKSEG.SCORES} needs class logits before the "
            f"ranking, but those of {cfg.MODEL.SEM_SEG_HEAD.NAME} depend on the categories that "
            "are kept; set it to head"
        )
    if by_head and HEADS[cfg.MODEL.RANKSEG.HEAD] is BlockHead and not getattr(head, "joint", False):
        raise ValueError(
            "MODEL.RANKSEG.HEAD block is a part of Segmenter's decoder, but "
            f"MODEL.SEM_SEG_HEAD.NAME is {cfg.MODEL.SEM_SEG_HEAD.NAME}; set it to "
            "SegmenterMaskHead, or the multi-label head to encoder"
        )


def check_layer(layer: int, num_layers: int) -> None:
    """Raise ValueError unless the decoder has that layer, counted from 1."""
    if not 1 <= layer <= num_layers:
        raise ValueError(
            f"MODEL.RANKSEG.LAYER must be in [1, {num_layers}], the number of decoder layers; got "
            f"{layer}. Change it, or raise MODEL.MASK_FORMER.DEC_LAYERS (EoMT: MODEL.EOMT.BLOCKS)."
        )


def build_ml_head(cfg: CfgNode, in_dim: int, class_dim: int) -> nn.Module:
    """The multi-label head of MODEL.RANKSEG.HEAD."""
    options = cfg.MODEL.RANKSEG
    if options.LOSS_WEIGHT <= 0:
        logger.warning(
            "MODEL.RANKSEG.LOSS_WEIGHT is %s, so nothing trains the multi-label head; the "
            "paper's value is 10",
            options.LOSS_WEIGHT,
        )
    own = {"groups": options.GROUPS} if HEADS[options.HEAD] is GroupHead else {}
    try:
        return HEADS[options.HEAD](
            in_dim,
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            options.HIDDEN_DIM,
            shared_dim=class_dim if options.SHARE_EMBEDDING else None,
            **own,
        )
    except ValueError as error:
        raise ValueError(f"MODEL.RANKSEG.HIDDEN_DIM: {error}") from error
