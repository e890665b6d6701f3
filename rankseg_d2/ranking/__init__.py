"""RankSeg in plain PyTorch: rank an image's categories, then choose among the best κ only.

With features (B, N, 256) and class logits (B, Q, 151) of any mask-classification model of 150
categories; logits have one column per rank from `restrict` on, the last one is no-object:

    >>> import torch
    >>> from rankseg_d2.ranking import EncoderHead, RankNorm, rank, restore, restrict
    >>> features, logits = torch.randn(2, 100, 256), torch.randn(2, 100, 151)
    >>> head, norm = EncoderHead(256, num_classes=150), RankNorm(50)
    >>> ranking = rank(head(features), k=50)
    >>> logits = norm(restrict(logits, ranking), ranking)
    >>> logits.shape
    torch.Size([2, 100, 51])
    >>> restore(logits.argmax(-1), ranking).shape  # category ids, 150 is no object
    torch.Size([2, 100])

Training adds `asymmetric_loss(scores, multi_hot(labels, 150))` and calls `relabel` on its targets.
"""

from .by_masks import mask_scores
from .calibration import Calibration, Reliability, fit_calibration, reliability
from .conformal import Rule, choose_threshold, choose_topk, image_shares, images_needed
from .heads import (
    HEADS,
    BlockHead,
    ConvPoolingHead,
    DecoderHead,
    EncoderHead,
    GroupHead,
    MultiLabelHead,
    PoolingHead,
)
from .kept_set import Schedule, check_schedule, topk_at, with_absent
from .losses import (
    LOSSES,
    BalancedAsymmetricLoss,
    asymmetric_loss,
    binary_cross_entropy,
    build_loss,
    multi_hot,
    ranking_loss,
    two_way_loss,
)
from .metrics import class_ap, label_ranking_ap, precision_at_k, rank_histogram, recall_at_k
from .ranker import Ranker
from .ranking import (
    LOW_LOGIT,
    Ranking,
    check_topk,
    keep_valid,
    rank,
    rank_from_labels,
    relabel,
    relabel_map,
    restore,
    restrict,
    restrict_embeddings,
    spread,
)
from .temperature import RankNorm, cosine_logits

__all__ = [
    "HEADS",
    "LOSSES",
    "LOW_LOGIT",
    "BalancedAsymmetricLoss",
    "BlockHead",
    "ConvPoolingHead",
    "Calibration",
    "DecoderHead",
    "EncoderHead",
    "GroupHead",
    "MultiLabelHead",
    "PoolingHead",
    "RankNorm",
    "Ranker",
    "Ranking",
    "Reliability",
    "Rule",
    "Schedule",
    "asymmetric_loss",
    "binary_cross_entropy",
    "build_loss",
    "check_schedule",
    "check_topk",
    "choose_threshold",
    "choose_topk",
    "class_ap",
    "cosine_logits",
    "fit_calibration",
    "image_shares",
    "images_needed",
    "keep_valid",
    "label_ranking_ap",
    "mask_scores",
    "multi_hot",
    "precision_at_k",
    "rank",
    "rank_from_labels",
    "rank_histogram",
    "ranking_loss",
    "recall_at_k",
    "relabel",
    "relabel_map",
    "reliability",
    "restore",
    "restrict",
    "restrict_embeddings",
    "spread",
    "topk_at",
    "with_absent",
    "two_way_loss",
]
