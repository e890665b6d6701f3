"""What is kept of a prediction, so that any other ranking of it needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from ...modeling.meta_arch import Segmentation
from ...modeling.outputs import MaskPredictions, Outputs, PixelPredictions
from ...modeling.results import Sizes
from ...ranking import Ranker, Ranking, RankNorm
from ..wishes import Wishes

_REACH = 3  # times κ: the categories that are stored at least
_LOGITS = 400_000  # class logits of regions for which more are stored
_VALUES = 3_000_000  # values of maps of class logits for which more are stored


@dataclass(frozen=True, eq=False)
class Explorable:
    """Class logits before the ranking, and maps, of the R categories that can be reached."""

    categories: np.ndarray  # (R,) class numbers
    maps: np.ndarray  # (Q, h, w) mask logits of regions, or (R, h, w) class logits of pixels
    logits: np.ndarray | None  # (Q, R+1) class logits of regions, no-object last
    scores: np.ndarray | None  # (C,) logits of the ranking; None: the model does not rank
    strengths: np.ndarray  # (C,) the best probability of each class without a ranking, else NaN
    norm: dict[str, Any] | None  # weight and bias of the ranks, eps, no_object
    sizes: Sizes  # what the maps are enlarged to
    resize_first: bool  # before the sigmoid
    trained: Ranker | None  # with the κ of the training; None: the model does not rank
    used: Ranker | None  # by the wishes
    wishes: Wishes

    @property
    def is_regions(self) -> bool:
        return self.logits is not None


def predict_explorable(
    model: Segmentation, samples: Sequence[dict], wishes: Wishes
) -> tuple[list[dict], list[Explorable]]:
    """The model's results by these wishes, and what other wishes need."""
    clips = model.preprocess(samples)
    sizes = clips.result_sizes(samples)
    outputs = model.run_network(clips)
    with wishes.on(model):
        outputs, used = model.decide(outputs), model.ranker
        results = [model.result(outputs, i, size) for i, size in enumerate(sizes)]
    return results, [_stored(model, outputs, i, size, used, wishes) for i, size in enumerate(sizes)]


def check_explorable(model: Segmentation, cfg: CfgNode) -> None:
    """Raise ValueError for a model whose results a page cannot make again."""
    if model.is_video:
        raise ValueError("explorable=True is for images, but this model is for videos")
    if model.result_options.parsing:
        raise ValueError(
            "explorable=True is not for human parsing (MODEL.MASK_FORMER.TEST.PARSING_ON), whose "
            "persons a page does not know; take a semantic config of the data set"
        )
    if model.ranks and getattr(model.sem_seg_head, "refines", False):
        raise ValueError(
            f"explorable=True is not for a {type(model.sem_seg_head).__name__} that ranks: its "
            "pixels and classes change with the classes that are kept, which a page cannot compute"
        )
    for key in ("SLIDING_WINDOW", "AUG"):
        if cfg.TEST[key].ENABLED:
            raise ValueError(
                f"explorable=True needs results of one pass; set TEST.{key}.ENABLED False"
            )


def _stored(
    model: Segmentation,
    outputs: Outputs,
    i: int,
    sizes: Sizes,
    used: Ranker | None,
    wishes: Wishes,
) -> Explorable:
    regions = isinstance(outputs, MaskPredictions)
    if not regions and not isinstance(outputs, PixelPredictions):
        raise TypeError(f"explorable=True does not know the outputs of a {type(model).__name__}")
    ranking = outputs.image_ranking(i)
    strengths = None if model.ranks else _strengths(outputs, i, regions)
    least = _REACH * model.ranker.topk if model.ranks else 1
    size = outputs.queries.shape[2] if regions else outputs.pixels[i, 0].numel()
    count = min(model.num_classes, max(least, (_LOGITS if regions else _VALUES) // size))
    categories = _reachable(strengths if ranking is None else ranking.scores[0], wishes, count)
    if regions:
        maps, logits = outputs.masks[-1][i, :, 0], _region_logits(model, outputs, i, categories)
    else:
        maps, logits = _pixel_logits(model, outputs, i, categories), None
        maps = model.image_part(maps, sizes.image)
        sizes = sizes._replace(padded=model.map_size(maps, sizes.image))
    return Explorable(
        categories=categories.cpu().numpy(),
        maps=_array(maps),
        logits=None if logits is None else _array(logits),
        scores=None if ranking is None else _array(ranking.scores[0]),
        strengths=np.full(model.num_classes, np.nan) if strengths is None else _array(strengths),
        norm=_numbers(model.norm) if model.ranks and model.norm is not None else None,
        sizes=sizes,
        resize_first=model.result_options.resize_first or not regions,
        trained=model.ranker,
        used=used,
        wishes=wishes,
    )


def _strengths(outputs: Any, i: int, regions: bool) -> Tensor:
    """The best probability that a region or pixel gives to each class: (C,)."""
    if regions:
        return outputs.logits[-1, i].float().softmax(-1)[:, :-1].amax(0)
    return outputs.logits[-1][i].float().softmax(0).amax((1, 2))


def _reachable(scores: Tensor, wishes: Wishes, count: int) -> Tensor:
    """The best `count` categories, those that may be found before those that may not."""
    scores = scores.clone()
    if len(wishes.excluded) > count // 2:
        scores[sorted(wishes.excluded)] -= 1e6
    return scores.argsort(descending=True, stable=True)[:count]


def _all_of(ranking: Ranking, categories: Tensor) -> Ranking:
    return replace(ranking, index=categories[None], valid=None)


def _region_logits(model: Any, outputs: MaskPredictions, i: int, categories: Tensor) -> Tensor:
    """Before the rank-adaptive temperature and the gate: (Q, R+1)."""
    if not model.ranks:
        columns = torch.cat([categories, categories.new_tensor([model.num_classes])])
        return outputs.logits[-1, i][:, columns]
    classifier, queries = model.sem_seg_head.predictor.class_embed, outputs.queries[-1, i, None]
    ranking = _all_of(outputs.image_ranking(i), categories)
    ranker = replace(model.ranker, gate=0)
    return ranker.classify(queries, classifier.weight, classifier.bias, ranking, None)[0]


def _pixel_logits(model: Any, outputs: PixelPredictions, i: int, categories: Tensor) -> Tensor:
    """Before the rank-adaptive temperature and the gate: (R, h, w)."""
    if not model.ranks:
        return outputs.logits[-1][i][categories]
    pixels, classes = outputs.pixels[i, None].flatten(2).mT, outputs.classes[-1]  # (1, h·w, D)
    classes = classes if len(classes) == 1 else classes[i, None]
    ranking = _all_of(outputs.image_ranking(i), categories)
    refine = model.sem_seg_head.refine
    ranker = replace(model.ranker, gate=0)
    logits = ranker.classify(pixels, classes, outputs.bias, ranking, None, refine)
    return logits[0].mT.unflatten(1, outputs.pixels.shape[-2:])


def _numbers(norm: RankNorm) -> dict[str, Any]:
    weight, bias = norm.weight.detach().tolist(), norm.bias.detach().tolist()
    return {"weight": weight, "bias": bias, "eps": norm.eps, "no_object": norm.no_object}


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
