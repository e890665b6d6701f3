"""From logits and masks to results.

All work is done in the K columns of the ranked categories, and only the masks that a result needs
are enlarged; category ids are added at the end. Masks are (N, T, h, w): an image is
a clip with one frame.

Results of an image, by name (maps of a clip have T before H, W):
    sem_seg_labels (H, W): the best category of each pixel; id C where no category is ranked.
    sem_seg (C, H, W): score of every category; with a ranking only if MODEL.RANKSEG.FULL_SCORES
        asks for it, where it is 0 for categories that are not ranked. No scores are given with
        MODEL.MASK_FORMER.TEST.SEMANTIC_SCORES False.
    sem_seg_scores (K, H, W), sem_seg_classes (K,): with a ranking, the scores of the ranked
        categories and their ids, without invalid ranks (dynamic κ).
    panoptic_seg: segment ids (H, W) int32, 0 for none, and a list of the segments (see `panoptic`).
    instances: detectron2's Instances, best first; entities do not overlap, and with
        MODEL.MASK_FORMER.TEST.PARSING_ON these are persons with their parts (see `with_parts`). A
        clip has pred_scores (N,), pred_labels (N,), pred_masks (N, T, H, W) and image_size instead.
    ranking: with a ranking, `scores` (C,) of all categories and the kept `classes` (K,).
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from ...dtypes import at_least_float
from ...ops.semantic import best_classes, serves
from ...ranking import Ranking
from .best import best_index
from .boxes import mask_boxes
from .entities import object_instances
from .options import ResultOptions
from .parsing import with_parts
from .resizing import (
    Sizes,
    part_size,
    probability_maps,
    resize_classes,
    to_output,
    to_padded,
)


class Classes(NamedTuple):
    """The class probabilities of Q queries, and the categories of the columns."""

    probabilities: Tensor  # (Q, K+1), no-object last
    ids: Tensor  # (K,) category of each column
    num_classes: int  # C
    is_restricted: bool  # not all classes in their order

    def split(self, ids: Iterable[int]) -> tuple["Classes", "Classes"]:
        """Only the other classes, and only those of `ids`; no-object stays in both."""
        chosen = torch.isin(self.ids, self.ids.new_tensor(sorted(ids)))
        others, own = (
            self._replace(
                probabilities=self.probabilities[:, F.pad(keep, (0, 1), value=True)],
                ids=self.ids[keep],
                is_restricted=True,
            )
            for keep in (~chosen, chosen)
        )
        return others, own


def mask_result(
    logits: Tensor,
    masks: Tensor,
    ranking: Ranking | None,
    sizes: Sizes,
    options: ResultOptions,
    is_video: bool,
) -> dict:
    """Results of an image or clip: logits (Q, K+1), masks (Q, T, h, w), its ranking (B = 1)."""
    frames = slice(None) if is_video else 0
    with torch.autocast(logits.device.type, enabled=False):
        classes = class_probabilities(logits, ranking, options.excluded)
        persons, result = None, {}
        if options.parsing and not is_video:  # whole persons are no part, so no pixel's label
            classes, persons = classes.split(options.things())
        if options.semantic or persons is not None:
            with_scores = options.semantic_scores or persons is not None
            scores, labels = semantic(classes, masks, sizes, options.resize_first, with_scores)
            scores, labels = None if scores is None else scores[:, frames], labels[frames]
        if options.semantic:
            result |= _semantic_entries(scores, labels, classes, options)
        if persons is not None:
            found = _image_instances(persons, masks, sizes, options)
            result["instances"] = with_parts(found, scores, labels, classes.num_classes)
        if options.panoptic:
            ids, segments = panoptic(classes, masks, sizes, options)
            result["panoptic_seg"] = ids[frames], segments
        if options.instance and is_video:
            result |= video_instances(classes, masks, sizes, options)
        elif options.instance:
            result["instances"] = _image_instances(classes, masks, sizes, options)
        elif options.entity and not is_video:
            scores, queries, categories = detect(classes, options.detections_per_image, options)
            result["instances"] = object_instances(
                scores, categories, masks[queries], sizes, options
            )
    return result


def pixel_result(
    logits: Tensor, ranking: Ranking | None, sizes: Sizes, options: ResultOptions
) -> dict:
    """Semantic results of class logits (K, H, W) at the network's input size."""
    keep, ids, num_classes = _columns(len(logits), ranking, options.excluded, logits.device)
    logits = logits if keep is None else logits[keep]
    height, width = sizes.image
    logits = at_least_float(logits)[None, :, :height, :width]  # without the padding
    scores = resize_classes(logits, sizes.output)[0]  # (K, H, W)
    classes = Classes(scores, ids, num_classes, ranking is not None or keep is not None)
    labels = _best_labels(scores, classes)
    return _semantic_entries(scores, labels, classes, options)


def ranking_result(ranking: Ranking) -> dict:
    """`scores` (C,) and the kept `classes` (K,) of a ranking (a batch of one)."""
    classes = ranking.index[0]
    if ranking.valid is not None:
        classes = classes[ranking.valid[0]]
    return {"scores": ranking.scores[0], "classes": classes}


def _semantic_entries(
    scores: Tensor | None, labels: Tensor, classes: Classes, options: ResultOptions
) -> dict:
    """Labels (...) and, if they are wanted, scores (K, ...) under the names of the results."""
    result = {"sem_seg_labels": labels}
    scores = scores if options.semantic_scores else None
    if not classes.is_restricted:
        return result if scores is None else result | {"sem_seg": scores}
    result["sem_seg_classes"] = classes.ids
    if scores is not None:
        result["sem_seg_scores"] = scores
        if options.full_scores:
            result["sem_seg"] = full_maps(scores, classes.ids, classes.num_classes)
    return result


def full_maps(scores: Tensor, ids: Tensor, num_classes: int) -> Tensor:
    """Scores of some categories (K, ...) as those of all, 0 for the others: (C, ...)."""
    full = scores.new_zeros(num_classes, *scores.shape[1:])
    return full.index_copy_(0, ids, scores)


def class_probabilities(
    logits: Tensor, ranking: Ranking | None, excluded: Collection[int] = ()
) -> Classes:
    """Class probabilities of logits (Q, K+1); columns of invalid ranks are removed.

    Without a ranking those of the `excluded` classes are.
    """
    count = logits.shape[1] - 1
    keep, ids, num_classes = _columns(count, ranking, excluded, logits.device)
    if keep is not None:
        logits = logits[:, F.pad(keep, (0, 1), value=True)]
    probabilities = at_least_float(logits).softmax(-1)
    return Classes(probabilities, ids, num_classes, ranking is not None or keep is not None)


def _columns(
    count: int, ranking: Ranking | None, excluded: Collection[int], device: torch.device
) -> tuple[Tensor | None, Tensor, int]:
    """Which columns stay (count,) bool, None: all; their categories; the number of categories."""
    if ranking is not None:
        ids, num_classes = ranking.index[0], ranking.C
        keep = None if ranking.valid is None else ranking.valid[0]
    else:
        ids, num_classes, keep = torch.arange(count, device=device), count, None
        if excluded:
            keep = torch.isin(ids, ids.new_tensor(sorted(excluded)), invert=True)
    return keep, (ids if keep is None else ids[keep]), num_classes


def semantic(
    classes: Classes, masks: Tensor, sizes: Sizes, resize_first: bool, with_scores: bool
) -> tuple[Tensor | None, Tensor]:
    """Scores (K, T, H, W) of the categories, or None, and the best one's id (T, H, W).

    Frame by frame, so that a frame's result does not depend on the length of the clip.
    """
    if masks.shape[1] == 1:
        return _semantic_frame(classes, masks, sizes, resize_first, with_scores)
    size = (masks.shape[1], *sizes.output)
    labels = classes.ids.new_empty(size)
    scores = classes.probabilities.new_empty(len(classes.ids), *size) if with_scores else None
    for frame, maps in enumerate(masks.split(1, 1)):
        some, labels[frame, None] = _semantic_frame(
            classes, maps, sizes, resize_first, with_scores
        )
        if scores is not None:
            scores[:, frame, None] = some
    return scores, labels


def _semantic_frame(
    classes: Classes, masks: Tensor, sizes: Sizes, resize_first: bool, with_scores: bool
) -> tuple[Tensor | None, Tensor]:
    """Scores (K, 1, H, W), or None, and ids (1, H, W).

    Scores are linear in the masks' probabilities, so resizing the probabilities resizes the scores.
    """
    size = (1, *sizes.output)
    weights = classes.probabilities[:, :-1].t()  # (K, Q)
    if len(weights) and serves(masks):
        maps = at_least_float(masks[:, 0])
        best, scores = best_classes(maps, weights, *sizes, resize_first, with_scores)
        return None if scores is None else scores[:, None], classes.ids[best][None]
    scores = weights.new_zeros(len(weights), size[1] * size[2])  # (K, H*W)
    some = part_size(max(weights.shape))
    for weight, part in zip(weights.split(some, 1), masks.split(some), strict=True):
        scores.addmm_(weight, probability_maps(part, sizes, resize_first).flatten(1))
    scores = scores.view(-1, *size)
    return scores if with_scores else None, _best_labels(scores, classes)


def _best_labels(scores: Tensor, classes: Classes) -> Tensor:
    """The id of the best category: (K, ...) -> (...)."""
    if not len(scores):
        return classes.ids.new_full(scores.shape[1:], classes.num_classes)
    return classes.ids[best_index(scores)]


def panoptic(
    classes: Classes,
    masks: Tensor,
    sizes: Sizes,
    options: ResultOptions,
) -> tuple[Tensor, list[dict]]:
    """Segment ids (T, H, W), 0 for none, and of each `id`, `isthing`, `category_id`, `score`.

    Each pixel goes to the query whose class score times mask is highest, with `covered_only` if
    that query's own mask covers it. A query that has won too little of its mask is dropped.
    A score is class times mean mask probability, as that of instances; of stuff that several
    queries share, the mean over its pixels.
    """
    scores, columns = classes.probabilities.max(1)
    keep = (columns < len(classes.ids)) & (scores > options.object_mask_threshold)  # (Q,)
    scores, categories = scores[keep], classes.ids[columns[keep]]  # (N,)
    count = len(scores)
    if not count:
        return masks.new_zeros(masks.shape[1], *sizes.output, dtype=torch.int32), []
    parts = masks[keep].split(part_size(count))
    maps = torch.cat([probability_maps(part, sizes) for part in parts])  # (N, T, H, W)
    inside = maps >= 0.5
    winner = maps.mul_(scores.view(-1, 1, 1, 1)).max(0).indices  # (T, H, W)
    covered = inside.gather(0, winner[None])[0] | (not options.covered_only)
    areas = [
        inside.flatten(1).sum(1),
        winner.flatten().bincount(minlength=count),
        winner[covered].bincount(minlength=count),
    ]
    own, won, left = torch.stack(areas).cpu().double()  # (N,) each
    accepted = (own > 0) & (left > 0) & (won / own >= options.overlap_threshold)
    numbers, segments = _merge_stuff(categories.cpu()[accepted], options.things())
    chosen = accepted.nonzero().flatten().tolist()
    totals = [(maps[i] * inside[i]).sum() for i in chosen]  # one by one, for memory
    _add_scores(segments, numbers, totals, own[chosen], left[chosen])
    table = torch.zeros(count, dtype=torch.int32).masked_scatter(accepted, numbers)
    return table.to(winner.device)[winner] * covered, segments


def _merge_stuff(categories: Tensor, thing_ids: Iterable[int]) -> tuple[Tensor, list[dict]]:
    """Ids (n,) int32 from 1 on, and the segments: all stuff of one category (n,) is one segment."""
    is_thing = torch.isin(categories, categories.new_tensor(sorted(thing_ids)))
    same = (categories[:, None] == categories) & ~is_thing  # (n, n)
    same.fill_diagonal_(True)
    is_new = ~same.tril(-1).any(1)
    numbers = is_new.cumsum(0)
    columns = (numbers, is_thing, categories)
    segments = [
        {"id": number, "isthing": thing, "category_id": category}
        for number, thing, category in zip(*(x[is_new].tolist() for x in columns), strict=True)
    ]
    return (numbers * (same & is_new)).sum(1).int(), segments


def _add_scores(
    segments: list[dict], numbers: Tensor, totals: list[Tensor], own: Tensor, left: Tensor
) -> None:
    """Give the segments a `score`, by what is known of each of n queries.

    Args:
        numbers: (n,), the id of its segment.
        totals: of class times mask probability, over the pixels of its mask.
        own, left: (n,), the pixels of its mask, and of those that it has in the result.
    """
    totals = torch.stack(totals).cpu() if totals else own  # (n,)
    for segment in segments:
        same = numbers == segment["id"]
        weighted = totals[same] / own[same] * left[same]
        segment["score"] = float(weighted.sum() / left[same].sum())


def _best_pairs(classes: Classes, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, queries and categories of the best pairs, best first: at most `count` each.

    Pairs with equal scores, such as 1, are in the order of the queries.
    """
    probabilities = classes.probabilities[:, :-1]  # (Q, K)
    scores, pairs = probabilities.flatten().sort(descending=True, stable=True)
    scores, pairs = scores[:count], pairs[:count]
    queries, columns = torch.unravel_index(pairs, probabilities.shape)
    return scores, queries, classes.ids[columns]


def _hard_masks(masks: Tensor, queries: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Masks (N, T, H, W) bool of the queries (N,), and the mean probability in each one (N,)."""
    chosen, which = queries.unique(return_inverse=True)
    insides, certainties = [], []
    for part in masks[chosen].split(part_size(len(chosen))):
        part = to_output(to_padded(part, sizes), sizes)
        inside = part > 0
        total = (part.sigmoid() * inside).flatten(1).sum(1)
        certainties.append(total / (inside.flatten(1).sum(1) + 1e-6))
        insides.append(inside)
    return torch.cat(insides)[which], torch.cat(certainties)[which]


def binary_masks(masks: Tensor, sizes: Sizes) -> Tensor:
    """Masks at the output's size: logits (N, T, h, w) -> (N, T, H, W) bool."""
    parts = masks.split(part_size(len(masks)))
    return torch.cat([to_output(to_padded(part, sizes), sizes) > 0 for part in parts])


def _image_instances(
    classes: Classes, masks: Tensor, sizes: Sizes, options: ResultOptions
) -> Instances:
    """The best pairs of query and category; a score is class times mean mask probability."""
    scores, queries, categories = detect(classes, options.detections_per_image, options)
    masks, certainty = _hard_masks(masks, queries, sizes)
    scores, order = (scores * certainty).sort(descending=True, stable=True)
    order = order[scores >= options.score_threshold]
    masks = masks[order, 0]  # (N, H, W)
    return Instances(
        sizes.output,
        pred_masks=masks,
        pred_boxes=Boxes(mask_boxes(masks)),
        scores=scores[: len(order)],
        pred_classes=categories[order],
    )


def video_instances(classes: Classes, masks: Tensor, sizes: Sizes, options: ResultOptions) -> dict:
    """The best pairs of query and category in a clip; a score is the class probability."""
    scores, queries, categories = detect(classes, options.detections_per_video, options)
    queries, which = queries.unique(return_inverse=True)
    masks = binary_masks(masks[queries], sizes)[which]  # (N, T, H, W)
    return {
        "image_size": sizes.output,
        "pred_scores": scores,
        "pred_labels": categories,
        "pred_masks": masks,
    }


def detect(classes: Classes, count: int, options: ResultOptions) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, queries and categories of at most `count` detections, best first: (N,) each.

    When panoptic results are on, only things are kept.
    """
    scores, queries, categories = _best_pairs(classes, count)
    keep = scores >= options.score_threshold
    if options.panoptic:
        keep &= torch.isin(categories, categories.new_tensor(sorted(options.things())))
    return scores[keep], queries[keep], categories[keep]
