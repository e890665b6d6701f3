"""Time of matcher and criterion, forward and backward, against a call per layer and image.

    python benchmarks/criterion.py [--repeats 3] [--device cpu]

The simple way calls the same criterion for each layer and each image on its own and combines the
losses. Both run in turn in this process, on the same predictions and targets. With given points
both must give the same losses; with random points (what is timed) the same up to the points' noise.
"""

import gc
import statistics
import sys
from functools import partial

import torch
import torch.nn.functional as F
from common import make_parser, time_in_turn, times_faster, write, write_heading, write_table

from rankseg_d2.modeling.losses.criterion import SetCriterion
from rankseg_d2.modeling.losses.matcher import HungarianMatcher
from rankseg_d2.modeling.losses.points import grid_points
from rankseg_d2.modeling.outputs import MaskPredictions

LAYERS, BATCH, QUERIES, CLASSES, MAX_OBJECTS = 10, 16, 100, 150, 40
MASK_SIZE, TARGET_SIZE = (128, 128), (512, 512)
POINTS, NO_OBJECT = 12544, 0.1
WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}


def simple_losses(criterion, outputs, targets, points=None):
    """The criterion's losses, by a call for each layer and each image."""
    counts = [len(target["labels"]) for target in targets]
    # A call's mask losses are means over its objects, its class loss is a weighted mean over its
    # queries: those without an object weigh less.
    shares = dict.fromkeys(WEIGHTS, counts)
    shares["loss_ce"] = [count + NO_OBJECT * (QUERIES - count) for count in counts]
    losses = {}
    for layer in range(LAYERS):
        calls = [
            criterion(one_prediction(outputs, layer, image), [target], points)
            for image, target in enumerate(targets)
        ]
        suffix = "" if layer == LAYERS - 1 else f"_{layer}"
        for name, weights in shares.items():
            parts = [weight * call[name] for weight, call in zip(weights, calls, strict=True)]
            losses[name + suffix] = sum(parts) / sum(weights)
    return losses


def one_prediction(outputs, layer, image):
    """A layer's prediction for an image, as a batch of one with one layer."""
    some = slice(layer, layer + 1), slice(image, image + 1)
    masks = outputs.masks[layer][some[1]]
    return MaskPredictions(outputs.queries[some], [masks], [], outputs.logits[some])


def make_batch(device):
    """Smooth random predictions, rectangles as targets, 1 to 40 of them per image."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(LAYERS, BATCH, QUERIES, CLASSES + 1, generator=random)
    masks = []
    for _ in range(LAYERS):
        coarse = torch.randn(BATCH, QUERIES, 16, 16, generator=random) * 4
        layer = F.interpolate(coarse, size=MASK_SIZE, mode="bilinear")[:, :, None]
        masks.append(layer.to(device).requires_grad_())
    targets = []
    for count in torch.linspace(1, MAX_OBJECTS, BATCH).round().int().tolist():
        rectangles = torch.zeros(count, 1, *TARGET_SIZE, dtype=torch.bool)
        for mask in rectangles:
            y, x = torch.randint(0, 400, (2,), generator=random).tolist()
            h, w = torch.randint(30, 300, (2,), generator=random).tolist()
            mask[:, y : y + h, x : x + w] = True
        labels = torch.randint(CLASSES, (count,), generator=random)
        targets.append({"labels": labels.to(device), "masks": rectangles.to(device)})
    queries = torch.empty(LAYERS, BATCH, QUERIES, 0)  # which the criterion does not read
    logits = logits.to(device).requires_grad_()
    return MaskPredictions(queries, masks, [], logits), targets


def step(losses_of, points=None):
    """One forward and backward; the losses by name."""
    losses = losses_of(points=points)
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}


def largest_difference(one, other):
    """Relative, over all losses, in percent."""
    return max(abs(one[name] - other[name]) / abs(other[name]) for name in other).item() * 100


def main():
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    outputs, targets = make_batch(args.device)
    matcher = HungarianMatcher(*WEIGHTS.values(), num_points=POINTS)
    criterion = SetCriterion(CLASSES, matcher, WEIGHTS, NO_OBJECT, POINTS).to(args.device)
    ways = {
        "simple": partial(step, partial(simple_losses, criterion, outputs, targets)),
        "ours": partial(step, partial(criterion, outputs, targets)),
    }

    def drop_gradients(_):
        for tensor in (outputs.logits, *outputs.masks):
            tensor.grad = None
        gc.collect()
        return ()

    points = grid_points(112, args.device)
    same = largest_difference(*(way(points) for way in ways.values()))
    times, losses = time_in_turn(ways, args.repeats, arguments=drop_gradients)
    near = largest_difference(*losses.values())
    if same > 0.01 or near > 2:
        sys.exit(f"the losses differ: by {same:.4f} % at given, {near:.2f} % at random points")

    objects = sum(len(target["labels"]) for target in targets)
    write_heading(
        "Matcher and criterion",
        f"""{LAYERS} layers, batch {BATCH}, {QUERIES} queries, {objects} objects (1 to
        {MAX_OBJECTS} per image), {POINTS} points, masks {MASK_SIZE[0]} x {MASK_SIZE[1]}, targets
        {TARGET_SIZE[0]} x {TARGET_SIZE[1]}, float32, forward and backward, median of
        {args.repeats} runs in turn. The simple way calls the same criterion for each layer and
        each image on its own and combines the losses.""",
        args.device,
    )
    write_table(
        ["", "seconds"],
        [
            ["simple way, a call per layer and image", f"{statistics.median(times['simple']):.3f}"],
            ["rankseg_d2, one call", f"{statistics.median(times['ours']):.3f}"],
            [
                "times faster, median of pairs (lowest, highest)",
                times_faster(times["simple"], times["ours"], digits=2),
            ],
        ],
    )
    write(
        f"\nLargest relative difference of the {len(losses['ours'])} losses: {same:.1g} % at given "
        f"points, {near:.2g} % at random ones.\n"
    )


if __name__ == "__main__":
    main()
