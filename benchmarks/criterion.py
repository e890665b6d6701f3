"""Time of matcher and criterion, forward and backward, against a plain loop over layers and images.

    python benchmarks/criterion.py [--repeats 3] [--device cpu]

Both run in turn in this process, on the same predictions and targets. With given points both must
give the same losses; with random points (what is timed) the same up to the points' noise.
"""

import argparse
import gc
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from rankseg_d2.modeling.losses.criterion import SetCriterion
from rankseg_d2.modeling.losses.matcher import HungarianMatcher
from rankseg_d2.modeling.losses.points import grid_points

LAYERS, BATCH, QUERIES, CLASSES, MAX_OBJECTS = 10, 16, 100, 150, 40
MASK_SIZE, TARGET_SIZE = (128, 128), (512, 512)
POINTS, OVERSAMPLE, IMPORTANCE = 12544, 3.0, 0.75
WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}


def plain_losses(outputs, targets, class_weights, num_points, points=None):
    """Losses by name, the simple way: each layer and each image on its own."""
    num_masks = max(sum(len(target["labels"]) for target in targets), 1)
    layers = [outputs, *outputs.get("aux_outputs", ())]
    losses = {}
    for i, layer in enumerate(layers):
        suffix = f"_{i - 1}" if i else ""
        pairs = [
            plain_match(logits, masks, target, num_points, points)
            for logits, masks, target in zip(
                layer["pred_logits"], layer["pred_masks"], targets, strict=True
            )
        ]
        loss_ce = plain_class_loss(layer["pred_logits"], targets, pairs, class_weights)
        loss_mask, loss_dice = plain_mask_losses(
            layer["pred_masks"], targets, pairs, num_points, points
        )
        losses["loss_ce" + suffix] = WEIGHTS["loss_ce"] * loss_ce
        losses["loss_mask" + suffix] = WEIGHTS["loss_mask"] * loss_mask / num_masks
        losses["loss_dice" + suffix] = WEIGHTS["loss_dice"] * loss_dice / num_masks
    return losses


@torch.no_grad()
def plain_match(logits, masks, target, num_points, points):
    """(query, object) of one image in one layer."""
    from scipy.optimize import linear_sum_assignment

    if points is None:
        points = torch.rand(num_points, 2, device=logits.device)
    predicted = sample(masks, points.expand(len(masks), -1, -1)).flatten(1)
    true_masks = target["masks"].to(masks)
    true = sample(true_masks, points.expand(len(true_masks), -1, -1)).flatten(1)

    class_cost = -logits.softmax(-1)[:, target["labels"]]
    if_one = F.binary_cross_entropy_with_logits(
        predicted, torch.ones_like(predicted), reduction="none"
    )
    if_zero = F.binary_cross_entropy_with_logits(
        predicted, torch.zeros_like(predicted), reduction="none"
    )
    mask_cost = (if_one @ true.T + if_zero @ (1 - true).T) / predicted.shape[1]
    probability = predicted.sigmoid()
    dice_cost = 1 - (2 * probability @ true.T + 1) / (
        probability.sum(1)[:, None] + true.sum(1)[None] + 1
    )
    cost = (
        WEIGHTS["loss_ce"] * class_cost
        + WEIGHTS["loss_mask"] * mask_cost
        + WEIGHTS["loss_dice"] * dice_cost
    )
    return linear_sum_assignment(cost.cpu().numpy())


def plain_class_loss(logits, targets, pairs, class_weights):
    classes = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
    for image, (target, (queries, objects)) in enumerate(zip(targets, pairs, strict=True)):
        classes[image, queries] = target["labels"][objects]
    return F.cross_entropy(logits.transpose(1, 2), classes, class_weights)


def plain_mask_losses(masks, targets, pairs, num_points, points):
    """Mask and dice loss of one layer, summed over its pairs and frames."""
    queries = torch.cat([torch.from_numpy(queries) for queries, _ in pairs])
    images = torch.tensor([len(queries) for queries, _ in pairs])
    images = torch.arange(len(pairs)).repeat_interleave(images)
    matched = masks[images.to(masks.device), queries.to(masks.device)]
    true = torch.cat(
        [target["masks"][objects] for target, (_, objects) in zip(targets, pairs, strict=True)]
    )
    matched, true = matched.flatten(0, 1)[:, None], true.flatten(0, 1)[:, None].to(masks)
    with torch.no_grad():
        if points is None:
            points = uncertain_points(matched, num_points)
        else:
            points = points.expand(len(matched), -1, -1)
        true = sample(true, points).squeeze(1)
    matched = sample(matched, points).squeeze(1)
    loss_mask = F.binary_cross_entropy_with_logits(matched, true, reduction="none").mean(1).sum()
    probability = matched.sigmoid()
    overlap = 2 * (probability * true).sum(1)
    loss_dice = 1 - (overlap + 1) / (probability.sum(1) + true.sum(1) + 1)
    return loss_mask, loss_dice.sum()


def uncertain_points(masks, num_points):
    """Points that each mask draws for itself: (N, 1, h, w) -> (N, P, 2)."""
    candidates = torch.rand(len(masks), int(OVERSAMPLE * num_points), 2, device=masks.device)
    certainty = sample(masks, candidates)[:, 0].abs()
    num_uncertain = int(IMPORTANCE * num_points)
    chosen = (-certainty).topk(num_uncertain, dim=1).indices
    points = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    others = torch.rand(len(masks), num_points - num_uncertain, 2, device=masks.device)
    return torch.cat([points, others], dim=1)


def sample(masks, points):
    return F.grid_sample(masks, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)


def make_batch(device):
    """Smooth random predictions, rectangles as targets, 1 to 40 of them per image."""
    random = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(LAYERS):
        logits = torch.randn(BATCH, QUERIES, CLASSES + 1, generator=random)
        coarse = torch.randn(BATCH, QUERIES, 16, 16, generator=random) * 4
        masks = F.interpolate(coarse, size=MASK_SIZE, mode="bilinear")[:, :, None]
        layers.append(
            {
                "pred_logits": logits.to(device).requires_grad_(),
                "pred_masks": masks.to(device).requires_grad_(),
            }
        )
    targets = []
    for count in torch.linspace(1, MAX_OBJECTS, BATCH).round().int().tolist():
        masks = torch.zeros(count, 1, *TARGET_SIZE, dtype=torch.bool)
        for mask in masks:
            y, x = torch.randint(0, 400, (2,), generator=random).tolist()
            h, w = torch.randint(30, 300, (2,), generator=random).tolist()
            mask[:, y : y + h, x : x + w] = True
        labels = torch.randint(CLASSES, (count,), generator=random)
        targets.append({"labels": labels.to(device), "masks": masks.to(device)})
    return {**layers[0], "aux_outputs": layers[1:]}, targets


def step(losses_of, outputs, **options):
    """Seconds of one forward and backward, and the losses."""
    layers = [outputs, *outputs["aux_outputs"]]
    for layer in layers:
        layer["pred_logits"].grad = layer["pred_masks"].grad = None
    gc.collect()
    synchronize(outputs)
    start = time.perf_counter()
    losses = losses_of(**options)
    sum(losses.values()).backward()
    synchronize(outputs)
    return time.perf_counter() - start, {name: loss.item() for name, loss in losses.items()}


def synchronize(outputs):
    if outputs["pred_masks"].is_cuda:
        torch.cuda.synchronize()


def largest_difference(one, other):
    """Relative, over all losses, in percent."""
    return max(abs(one[name] - other[name]) / abs(other[name]) for name in other) * 100


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    load = os.getloadavg()[0]  # other work on the machine, before ours
    device = torch.device(args.device)

    outputs, targets = make_batch(device)
    criterion = SetCriterion(
        CLASSES,
        HungarianMatcher(*WEIGHTS.values(), num_points=POINTS),
        WEIGHTS,
        num_points=POINTS,
        oversample_ratio=OVERSAMPLE,
        importance_ratio=IMPORTANCE,
    ).to(device)

    def ours(points=None):
        return criterion(outputs, targets, points)

    def plain(points=None):
        return plain_losses(outputs, targets, criterion.empty_weight, POINTS, points)

    points = grid_points(112, device)
    same = largest_difference(
        step(ours, outputs, points=points)[1], step(plain, outputs, points=points)[1]
    )
    times = {"ours": [], "plain": []}
    for _ in range(args.repeats):
        seconds, our_losses = step(ours, outputs)
        times["ours"].append(seconds)
        seconds, plain_values = step(plain, outputs)
        times["plain"].append(seconds)
    near = largest_difference(our_losses, plain_values)
    if same > 0.01 or near > 2:
        sys.exit(f"the losses differ: by {same:.4f} % at given, {near:.2f} % at random points")

    ratios = [plain / ours for ours, plain in zip(*times.values(), strict=True)]
    objects = sum(len(target["labels"]) for target in targets)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    sys.stdout.write(
        f"""# Matcher and criterion

{LAYERS} layers, batch {BATCH}, {QUERIES} queries, {objects} objects (1 to {MAX_OBJECTS} per image),
{POINTS} points, masks {MASK_SIZE[0]} x {MASK_SIZE[1]}, targets {TARGET_SIZE[0]} x \
{TARGET_SIZE[1]}, float32, forward and backward.
{name}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}, Python \
{platform.python_version()}, median of {args.repeats} runs in turn;
load average {load:.1f} from other work before the start.

| | seconds |
|---|---|
| plain loop over layers and images | {statistics.median(times["plain"]):.3f} |
| rankseg_d2 | {statistics.median(times["ours"]):.3f} |
| times faster, median of pairs (lowest, highest) | {statistics.median(ratios):.2f} \
({min(ratios):.2f}, {max(ratios):.2f}) |

Largest relative difference of the {len(plain_values)} losses: {same:.1g} % at given points, \
{near:.2g} % at random ones.
"""
    )


if __name__ == "__main__":
    main()
