"""What the options of `rankseg-d2 predict` ask for, of images and of videos."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from .predictor import Predictor

_Any = TypeVar("_Any")


def make_predictor(args: argparse.Namespace) -> Predictor:
    device, rank = args.device, os.environ.get("LOCAL_RANK")
    if device == "auto" and rank is not None and torch.cuda.is_available():
        device = f"cuda:{int(rank) % torch.cuda.device_count()}"  # under torchrun
    how = {"device": device, "dtype": args.dtype}
    if args.config:
        return Predictor.from_config(args.config, args.weights, **how)
    return Predictor.from_checkpoint(args.weights, **how)


def wishes(args: argparse.Namespace) -> dict[str, Any]:
    names = ("allow", "deny", "topk", "threshold", "recall")
    return {name: getattr(args, name) for name in names} | {"prior": dict(args.prior) or None}


def part(items: Sequence[_Any], shard: tuple[int, int]) -> list[_Any]:
    """Every N-th image or video from the I-th on."""
    first, count = shard
    return list(items[first - 1 :: count])


def shard_of_torchrun() -> tuple[int, int]:
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return (1, 1) if rank is None or count is None else (int(rank) + 1, int(count))


def is_outside(args: argparse.Namespace, name: str) -> bool:
    """Whether it is not in --out, which may lie in the folder of the images."""
    if not args.out or args.video or not os.path.isdir(args.source):
        return True
    source, out = os.path.realpath(args.source), os.path.realpath(args.out)
    if source == out:
        raise ValueError(
            "--out is the folder of the images, where results would be taken for images the next "
            "time; name another"
        )
    return not name.startswith(f"{os.path.relpath(out, source)}{os.sep}")


def check_writable(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {folder} cannot be made: {error.strerror}; name another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder} may not be written; name a folder where you may")


def is_to_do(files: Sequence[Path], args: argparse.Namespace) -> bool:
    """Whether to make the files, of which some may exist; an error if that is not said."""
    exist = [file for file in files if file.exists()]
    if exist and not args.go_on and not args.overwrite:
        raise FileExistsError(
            f"{exist[0]} exists; go on with what is missing by --continue, replace it by "
            "--overwrite, or name another --out"
        )
    return not args.go_on or len(exist) < len(files)
