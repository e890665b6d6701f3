"""From logits and masks to segments.

Everything is done in the K columns of the ranked categories, and masks are enlarged only for the
queries that a result needs; ids of categories come in at the end. Masks are (N, T, h, w): an image
is a clip with one frame.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ranking import Ranking
from ...ranking.ranking import at_least_float

PARTS = 4  # masks are enlarged in so many parts, to keep temporary memory low


class Shape(NamedTuple):
    """Three sizes (height, width)."""

    padded: tuple[int, int]  # of the network's input
    image: tuple[int, int]  # of the sample in it
    output: tuple[int, int]  # of the results


class Classes(NamedTuple):
    """What the queries are."""

    probabilities: Tensor  # (Q, K+1), no-object last
    ids: Tensor  # (K,) category of each column
    num_classes: int  # C
    is_ranked: bool


def classify(logits: Tensor, ranking: Ranking | None) -> Classes:
    """Probabilities of the categories that can be: places that hold none lose their column."""
    if ranking is None:
        num_classes = logits.shape[1] - 1
        ids = torch.arange(num_classes, device=logits.device)
    else:
        num_classes, ids = ranking.C, ranking.index[0]
        if ranking.valid is not None:
            valid = ranking.valid[0]
            ids = ids[valid]
            logits = logits[:, F.pad(valid, (0, 1), value=True)]
    probabilities = at_least_float(logits).softmax(-1)
    return Classes(probabilities, ids, num_classes, ranking is not None)


def semantic(
    classes: Classes, masks: Tensor, shape: Shape, resize_first: bool
) -> tuple[Tensor, Tensor]:
    """Scores (K, T, H, W) of the categories, and the best one's id (T, H, W).

    Frame by frame, for then a frame is the same to the last bit in a clip of any length.
    """
    if masks.shape[1] == 1:
        return semantic_frame(classes, masks, shape, resize_first)
    size = (masks.shape[1], *shape.output)
    scores = classes.probabilities.new_empty(len(classes.ids), *size)
    labels = classes.ids.new_empty(size)
    for frame, maps in enumerate(masks.split(1, 1)):
        results = semantic_frame(classes, maps, shape, resize_first)
        scores[:, frame, None], labels[frame, None] = results
    return scores, labels


def semantic_frame(
    classes: Classes, masks: Tensor, shape: Shape, resize_first: bool
) -> tuple[Tensor, Tensor]:
    """Scores (K, 1, H, W) and ids (1, H, W).

    Scores are linear in the masks' probabilities: where the scores are to be resized, it is enough
    to resize these.
    """
    size = (1, *shape.output)
    weights = classes.probabilities[:, :-1].t()  # (K, Q)
    scores = weights.new_zeros(len(weights), size[1] * size[2])  # (K, H*W)
    some = part_size(max(weights.shape))
    for weight, part in zip(weights.split(some, 1), masks.split(some), strict=True):
        scores.addmm_(weight, probability_maps(part, shape, resize_first).flatten(1))
    scores = scores.view(-1, *size)
    if not len(scores):
        return scores, classes.ids.new_full(size, classes.num_classes)
    return scores, classes.ids[scores.max(0).indices]  # on CPUs twice as fast as argmax


def panoptic(
    classes: Classes,
    masks: Tensor,
    shape: Shape,
    thing_ids: Iterable[int],
    score_threshold: float,
    overlap_threshold: float,
    covered_only: bool,
) -> tuple[Tensor, list[dict]]:
    """Segment ids (T, H, W), 0 for none, and of each segment `id`, `isthing` and `category_id`.

    Each pixel goes to the query whose class score times mask is highest, with `covered_only` if
    that query's own mask covers it. A query that has won too little of its mask is dropped.
    """
    scores, columns = classes.probabilities.max(1)
    keep = (columns < len(classes.ids)) & (scores > score_threshold)  # (Q,)
    scores, categories = scores[keep], classes.ids[columns[keep]]  # (N,)
    count = len(scores)
    if not count:
        return masks.new_zeros(masks.shape[1], *shape.output, dtype=torch.int32), []
    parts = masks[keep].split(part_size(count))
    maps = torch.cat([probability_maps(part, shape) for part in parts])  # (N, T, H, W)
    inside = maps >= 0.5
    winner = maps.mul_(scores.view(-1, 1, 1, 1)).max(0).indices  # (T, H, W)
    covered = inside.gather(0, winner[None])[0] | (not covered_only)
    areas = [
        inside.flatten(1).sum(1),
        winner.flatten().bincount(minlength=count),
        winner[covered].bincount(minlength=count),
    ]
    own, won, left = torch.stack(areas).cpu().double()  # (N,) each
    accepted = (own > 0) & (left > 0) & (won / own >= overlap_threshold)
    numbers, segments = number_segments(categories.cpu()[accepted], thing_ids)
    table = torch.zeros(count, dtype=torch.int32).masked_scatter(accepted, numbers)
    return table.to(winner.device)[winner] * covered, segments


def number_segments(categories: Tensor, thing_ids: Iterable[int]) -> tuple[Tensor, list[dict]]:
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


def best_pairs(classes: Classes, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, queries and categories of the best pairs, best first: at most `count` each.

    Pairs with equal scores, such as 1, are in the order of the queries.
    """
    probabilities = classes.probabilities[:, :-1]  # (Q, K)
    scores, pairs = probabilities.flatten().sort(descending=True, stable=True)
    scores, pairs = scores[:count], pairs[:count]
    queries, columns = torch.unravel_index(pairs, probabilities.shape)
    return scores, queries, classes.ids[columns]


def hard_masks(masks: Tensor, queries: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Masks (N, T, H, W) bool of the queries (N,), and the mean probability in each one (N,)."""
    chosen, which = queries.unique(return_inverse=True)
    insides, certainties = [], []
    for part in masks[chosen].split(part_size(len(chosen))):
        part = to_output(to_padded(part, shape), shape)
        inside = part > 0
        total = (part.sigmoid() * inside).flatten(1).sum(1)
        certainties.append(total / (inside.flatten(1).sum(1) + 1e-6))
        insides.append(inside)
    return torch.cat(insides)[which], torch.cat(certainties)[which]


def binary_masks(masks: Tensor, shape: Shape) -> Tensor:
    """Masks at the output's size: logits (N, T, h, w) -> (N, T, H, W) bool."""
    parts = masks.split(part_size(len(masks)))
    return torch.cat([to_output(to_padded(part, shape), shape) > 0 for part in parts])


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes (x0, y0, x1, y1) around masks (N, H, W): (N, 4). Empty masks have boxes of zeros."""
    low, high = [], []
    for occupied in (masks.any(1), masks.any(2)):  # (N, W), (N, H)
        size = occupied.shape[1]
        place = torch.arange(size, device=masks.device)
        low.append(place.where(occupied, size).amin(1))
        high.append((place + 1).where(occupied, 0).amax(1))
    boxes = torch.stack([*low, *high], 1)  # (N, 4)
    return (boxes * masks.flatten(1).any(1, keepdim=True)).float()


def part_size(num_maps: int) -> int:
    """How many masks to enlarge at a time where memory must hold so many large maps anyway."""
    return max(1, -(-num_maps // PARTS))


def probability_maps(masks: Tensor, shape: Shape, resize_first: bool = True) -> Tensor:
    """Probabilities at the output's size: logits (N, T, h, w) -> (N, T, H, W)."""
    if resize_first:
        return to_output(to_padded(masks, shape), shape).sigmoid()
    return to_output(to_padded(masks, shape).sigmoid(), shape)


def to_padded(masks: Tensor, shape: Shape) -> Tensor:
    """Mask logits at the size of the network's input."""
    return resize(at_least_float(masks), shape.padded)


def to_output(maps: Tensor, shape: Shape) -> Tensor:
    """Maps of the network's input, without its padding, at the output's size."""
    height, width = shape.image
    return resize(maps[..., :height, :width], shape.output)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    planes = maps.flatten(0, 1)[:, None]  # else the last bit would depend on the number of frames
    planes = F.interpolate(planes, size, mode="bilinear", align_corners=False)
    return planes.view(*maps.shape[:2], *size)
