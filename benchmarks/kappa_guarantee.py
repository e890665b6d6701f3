"""Risk of κ and of the threshold, chosen for a wanted recall, on new images in random splits.

    python benchmarks/kappa_guarantee.py [--splits 1000] [--scores FILE]

Without --scores (scores.npz of `rankseg-d2 kappa`) the images are drawn: 20 categories of different
frequency, noisy scores. In each split, κ and the threshold are chosen on n images and measured on
others. The guarantee is about the mean over splits; a single split may be above or below. The
plain choice demands only that the mean risk on the n images is small enough.
"""

import math

import numpy as np
import torch
from common import make_parser, write, write_heading, write_table

from rankseg_d2.ranking import Ranker, choose_threshold, choose_topk, image_shares
from rankseg_d2.report.image_scores import ImageScores

IMAGES, CLASSES, NEW = 20_000, 20, 200
CASES = [(0.9, 10), (0.9, 20), (0.9, 100), (0.95, 100), (0.95, 500), (0.99, 500)]  # recall, n
CHOICES = {"κ": choose_topk, "threshold": choose_threshold}


def draw_images():
    """Scores (N, C) that tell something of the categories present, and numbers of pixels."""
    random = np.random.default_rng(0)
    chance = np.geomspace(0.02, 0.5, CLASSES)
    present = random.random((IMAGES, CLASSES)) < chance
    scores = random.normal(size=present.shape) + 2.5 * present + np.log(chance)
    pixels = (random.lognormal(6, 1.5, present.shape).astype(np.int64) + 1) * present
    names, files = (tuple(map(str, range(count))) for count in (CLASSES, IMAGES))
    tensors = map(torch.from_numpy, (scores.astype(np.float32), present, pixels))
    return ImageScores("drawn", names, files, CLASSES, *tensors)


def risk(rule, scores, shares):
    """The mean share of an image's categories or pixels that are not kept."""
    ranking = Ranker(rule.topk, rule.threshold or None).rank(scores)
    kept = shares.gather(1, ranking.index)
    if ranking.valid is not None:
        kept = kept * ranking.valid
    return (shares.sum() - kept.sum()).item() / len(scores)


def measure(images, shares, choose, recall, count, splits):
    """(risk on new images, number kept) of each split: two arrays."""
    random, found = np.random.default_rng(1), []
    for _ in range(splits):
        order = torch.from_numpy(random.permutation(len(shares))[: count + NEW])
        here, new = order[:count], order[count:]
        rule = choose(images.scores[here], shares[here], recall, images.topk)
        found.append((risk(rule, images.scores[new], shares[new]), rule.kept))
    return np.array(found).T


def plain_recall(recall, count):
    """The recall for which the rule demands no more than a small mean risk on its own images."""
    return 1 - ((1 - recall) * count + 1) / (count + 1)


def rows(images, splits):
    for unit in ("categories", "pixels"):
        shares = image_shares(images.present, images.pixels if unit == "pixels" else None)
        for recall, count in CASES:
            for name, choose in CHOICES.items():
                try:
                    found, kept = measure(images, shares, choose, recall, count, splits)
                except ValueError as error:
                    yield [unit, f"{recall}", str(count), name, str(error), "", "", "", ""]
                    continue
                plain, _ = measure(
                    images, shares, choose, plain_recall(recall, count), count, splits
                )
                mean, error = found.mean(), found.std() / math.sqrt(splits)
                yield [
                    unit, f"{recall}", str(count), name, f"{100 * (1 - recall):.0f}",
                    f"{100 * mean:.2f} ± {100 * error:.2f}",
                    "holds" if mean <= 1 - recall + 2 * error else "broken",
                    f"{100 * plain.mean():.2f}", f"{kept.mean():.1f}",
                ]  # fmt: skip


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--splits", type=int, default=1000, help="random splits of each row")
    parser.add_argument("--scores", help="scores.npz of a model; by default images are drawn")
    args = parser.parse_args()
    images = ImageScores.load(args.scores) if args.scores else draw_images()
    write_heading(
        "The guarantee of `rankseg-d2 kappa`",
        f"""{args.splits:,} random splits of {len(images.images):,} images ({images.dataset},
        {len(images.names)} categories): κ or the threshold is chosen on n images for a wanted
        recall and measured on {NEW} others. Risk is the share of an image's categories, or of its
        pixels, that are not kept, in percent, with the standard error of its mean; the guarantee
        allows a mean risk of α. Plain: the same choice without the finite-sample correction.""",
    )
    heads = ["of", "recall", "n", "chosen", "α", "mean risk", "guarantee", "plain", "kept"]
    write_table(heads, rows(images, args.splits))
    write(f"\nRun as `python benchmarks/kappa_guarantee.py --splits {args.splits}`.\n")


if __name__ == "__main__":
    main()
