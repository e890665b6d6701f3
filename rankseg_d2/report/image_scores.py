"""Scores of the multi-label head and the ground truth of images, in one file.

A choice of κ or threshold needs nothing else, so it can be repeated without model and images.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import short
from ..files import check_regular, replacing

_ARRAYS = {"scores": 2, "present": 2, "pixels": 2, "names": 1, "images": 1, "topk": 0, "dataset": 0}


@dataclass(frozen=True)
class ImageScores:
    """N images of a data set, C categories."""

    dataset: str
    names: tuple[str, ...]  # (C,) of the categories
    images: tuple[str, ...]  # (N,) file or id of each
    topk: int  # the κ of the model
    scores: Tensor  # (N, C) float32 logits
    present: Tensor  # (N, C) bool
    pixels: Tensor  # (N, C) int64, of each category in the ground truth

    def save(self, path: str | os.PathLike) -> None:
        """Write a .npz file."""
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        arrays = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ImageScores":
        """Read what `save` has written; ValueError for any other file."""
        if not os.path.isfile(path):
            check_regular(path)
            raise FileNotFoundError(f"{path} does not exist; `rankseg-d2 kappa CONFIG` writes it.")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
            _check(arrays)
        except Exception as error:  # damaged bytes make zipfile and numpy raise anything
            raise ValueError(
                f"{path} is no file of scores that `rankseg-d2 kappa` has written "
                f"({type(error).__name__}: {short(str(error))}); run it again on the model."
            ) from error
        tensors = {key: torch.from_numpy(arrays[key]) for key in ("scores", "present", "pixels")}
        texts = {key: tuple(arrays[key].tolist()) for key in ("names", "images")}
        return cls(str(arrays["dataset"]), topk=int(arrays["topk"]), **texts, **tensors)


def _check(arrays: dict[str, np.ndarray]) -> None:
    """ValueError unless the arrays belong together."""
    sizes = {0: (), 1: None, 2: arrays["images"].shape + arrays["names"].shape}
    for name, dimensions in _ARRAYS.items():
        shape = arrays[name].shape
        if len(shape) != dimensions or sizes[dimensions] not in (None, shape):
            raise ValueError(f"{name} has the shape {shape}")
    kinds = {name: arrays[name].dtype.kind for name in ("scores", "present", "pixels", "topk")}
    if kinds != {"scores": "f", "present": "b", "pixels": "i", "topk": "i"}:
        raise ValueError(f"arrays of the kinds {kinds}")
