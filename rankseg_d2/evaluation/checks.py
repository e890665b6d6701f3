"""Checks that predictions and ground truth belong together."""

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np


def check_known(key, known: Collection, dataset_name: str, kind: str = "image") -> None:
    """ValueError unless the image (or video) is one of those with ground truth."""
    if key not in known:
        some = ", ".join(map(repr, list(known)[:3])) or "none"
        raise ValueError(
            f"The {kind} {key!r} is not in the ground truth of {dataset_name!r}, whose {kind}s are "
            f"{some}, …. Build the evaluator and the data loader for the same data set, and give "
            f"the {kind}s the same ids in its records and its json."
        )


def check_size(path: str, ground_truth: np.ndarray, predicted: np.ndarray, what: str) -> None:
    """ValueError unless both maps (H, W) have the same size; `what` is predicted."""
    if ground_truth.shape != predicted.shape:
        true_size, size = (f"{x.shape[1]} x {x.shape[0]}" for x in (ground_truth, predicted))
        raise ValueError(
            f"{path} has {true_size} pixels, but the prediction for {what} has {size}. Check "
            "height and width in the record, and that the image and this file belong together."
        )


def check_complete(seen: Iterable, expected: Collection, dataset_name: str, kind="image") -> None:
    """ValueError unless each image (or video) of the data set was predicted exactly once."""
    times = Counter(seen)
    wrong = [key for key in expected if times[key] != 1]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the {len(expected)} {kind}s of {dataset_name!r} were not predicted "
            f"exactly once: {kind} {wrong[0]!r} has {times[wrong[0]]} predictions. Run the model "
            f"once over each {kind} of the data set."
        )
