"""Checks that predictions and ground truth belong together."""

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.formats.file_lists import missing_files


def check_evaluation(evaluator: DatasetEvaluator) -> None:
    """Raise the error of ground truth that is missing or damaged, before anything is trained.

    An evaluator of your own may have a method `check_ground_truth` for it.
    """
    if comm.is_main_process():
        for one in getattr(evaluator, "_evaluators", [evaluator]):
            if check := getattr(one, "check_ground_truth", None):
                check()


def check_files(paths: Iterable[str], dataset_name: str) -> None:
    """FileNotFoundError unless all files of the ground truth exist; drawn labels have none."""
    paths = [path for path in paths if isinstance(path, str) and "://" not in path]
    if missing := missing_files(paths):
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} label files of {dataset_name!r} do not exist, such as "
            f"{missing[0]}. Unpack or prepare the data set again."
        )


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


def check_once(seen: Iterable, dataset_name: str) -> None:
    """ValueError if an image was predicted more than once."""
    key, count = max(Counter(seen).items(), key=lambda item: item[1], default=(None, 1))
    if count > 1:
        raise ValueError(
            f"Image {key!r} of {dataset_name!r} was predicted {count} times, so it would count "
            "more than others. Run the model once over each image; the records, or the data "
            "loader, may have it twice."
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
