"""Statistics of categories: how many an image has, which occur together, which κ is enough."""

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from ...files import replacing, write_bytes
from ...tables import text_table
from ..own.pairing import Fault
from .scan import Tally, class_names

_MOST_IN_MATRIX = 8192  # classes; it takes 0.5 GB
_SHARES = (0.95, 0.99, 0.999)
_DEFINITION = (
    "kappa at a share: the least number k such that at least that share of the images has k "
    "categories or fewer; no ranking with a smaller TOPK can keep all categories of these images"
)


def add_stats_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `stats` that `check` does not have."""
    parser.add_argument(
        "--pairs", type=int, default=20, metavar="N", help="number of most frequent pairs to list"
    )
    parser.add_argument(
        "--matrix",
        type=_matrix_file,
        metavar="FILE",
        help="write the number of images with each pair of classes, over all splits: .npz or .csv",
    )


def stats_report(
    parts: list, tallies: dict[str, Tally], faults: list[Fault], args: argparse.Namespace
) -> tuple[dict, str]:
    """Categories per image, pairs and κ of each split: as json content, and as text."""
    names = class_names(parts[0].metadata)
    labelled = {part.name for part in parts if part.metadata.get("has_labels", True)}
    splits = {name: _statistics(tally, names, args.pairs) for name, tally in tallies.items()
              if name in labelled}
    lines = [text_table([_summary(name, facts) for name, facts in splits.items()]), _DEFINITION]
    for name, facts in splits.items():
        lines += ["", f"{name}: categories per image", text_table(facts["curve"])]
        if facts["pairs"]:
            lines += ["", f"{name}: most frequent pairs", text_table(facts["pairs"])]
    lines += ["", *(f"{name} has no labels" for name in tallies if name not in labelled)]
    if faults:
        lines += [f"{len(faults)} faults: `rankseg-d2 dataset check {args.dataset}` lists them; "
                  "files that cannot be read count as images without categories"]
    content = {"dataset": args.dataset, "kappa": _DEFINITION, "splits": splits}
    content["faults"] = len(faults)
    return content, "\n".join(lines) + "\n"


def _statistics(tally: Tally, names: list[str], num_pairs: int) -> dict:
    """The statistics of one split, as json content."""
    counts = np.arange(len(tally.sizes))
    total = max(tally.records, 1)
    up_to = tally.sizes.cumsum()
    largest = int(counts[tally.sizes > 0].max(initial=0))
    return {
        "images": tally.records,
        "mean": float((counts * tally.sizes).sum() / total),
        "median": covering_kappa(tally.sizes, 0.5),
        "max": largest,
        "kappa": {str(share): covering_kappa(tally.sizes, share) for share in _SHARES},
        "curve": [
            {
                "categories": k,
                "images": int(tally.sizes[k]),
                "percent with so many or fewer": float(100 * up_to[k] / total),
            }
            for k in range(largest + 1)
        ],
        "pairs": _frequent_pairs(tally, names, num_pairs),
    }


def _summary(name: str, facts: dict) -> dict:
    """One row of the table of splits."""
    row = {"split": name} | {key: facts[key] for key in ("images", "mean", "median", "max")}
    kappas = {f"kappa {100 * float(share):g} %": k for share, k in facts["kappa"].items()}
    return row | kappas


def covering_kappa(sizes: np.ndarray, share: float) -> int:
    """The least k such that at least `share` of the images have k categories or fewer.

    sizes: (C + 1,), the number of images with 0 to C categories.
    """
    wanted = share * sizes.sum() - 1e-9  # tolerance: 0.95 * 20 images must be 19
    return int(np.searchsorted(sizes.cumsum(), wanted))


def _frequent_pairs(tally: Tally, names: list[str], count: int) -> list[dict]:
    """The `count` pairs of classes with the most images that have both."""
    first, second, images = tally.pairs.pairs()
    return [
        {
            "class": names[first[i]],
            "and": names[second[i]],
            "images": int(images[i]),
            "percent": float(100 * images[i] / tally.records),
        }
        for i in np.argsort(-images, kind="stable")[:count]
    ]


def _matrix_file(name: str) -> Path:
    if not name.endswith((".npz", ".csv")):
        raise argparse.ArgumentTypeError(f"{name} must end in .npz or .csv")
    return Path(name)


def check_matrix(metadata: Any) -> None:
    """Raise ValueError if the data set has too many classes for a matrix of their pairs."""
    count = len(class_names(metadata))
    if count > _MOST_IN_MATRIX:
        raise ValueError(
            f"--matrix: {metadata.name} has {count} classes; a matrix of their pairs can have at "
            f"most {_MOST_IN_MATRIX}. Leave it out; --pairs lists the most frequent ones."
        )


def write_matrix(path: Path, parts: list, tallies: dict[str, Tally]) -> None:
    """Write (C, C), the number of images with both classes, over all splits."""
    names = class_names(parts[0].metadata)
    matrix = np.diag(sum(tally.images for tally in tallies.values()))
    for tally in tallies.values():
        first, second, images = tally.pairs.pairs()
        matrix[first, second] += images
        matrix[second, first] += images
    if path.suffix == ".npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez_compressed(temporary, images=matrix, classes=np.array(names))
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["class", *names])
    rows.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
    write_bytes(path, text.getvalue().encode())
