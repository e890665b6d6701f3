"""`rankseg-d2 predict`: a folder of images to a folder of results; videos are in another file."""

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from ..errors import sentence
from .predictor import Predictor
from .results import ImageResult
from .saving import ENDS, NO_PANOPTIC, files_of
from .sources import Item, Source, open_source, video_files

_Any = TypeVar("_Any")


def run(args: argparse.Namespace) -> int:
    """Predict all images or videos; the exit status is 1 if one could not be read or written."""
    if args.out:
        _check_writable(args.out)
    videos = [(args.source, "")] if args.video else video_files(args.source)
    if videos:
        from .video_folders import run_videos

        return run_videos(args, [pair for pair in videos if _is_outside(pair[1], args)])
    items = [item for item in open_source(args.source).items if _is_outside(item.name, args)]
    return run_images(args, part(items, args.shard or shard_of_torchrun()))


def run_images(
    args: argparse.Namespace, items: list[Item], predictor: Predictor | None = None
) -> int:
    """Predict those images whose files do not exist; without any, no model is loaded."""
    total, wanted = len(items), {name: name in args.save for name in ENDS}
    if args.out:
        items = _to_do(items, args, wanted)
    if not items:
        sys.stderr.write(f"nothing is left to do of {total} images\n")
        return 0
    predictor = predictor or make_predictor(args)
    if args.out and wanted["panoptic_png"] and not predictor.gives_panoptic:
        raise ValueError(NO_PANOPTIC)
    return _run_images(predictor, args, items, total, wanted)


def _run_images(
    predictor: Predictor,
    args: argparse.Namespace,
    items: list[Item],
    total: int,
    wanted: dict[str, bool],
) -> int:
    results = predictor(
        Source(items), batch=args.batch, threads=args.threads, skip_errors=True,
        explorable=wanted["explore"], **wishes(args),
    )  # fmt: skip
    failed, likely = 0, Counter()
    with tqdm(total=total, initial=total - len(items), desc="predict", unit="images") as bar:
        for item, error, result in _written(zip(items, results, strict=True), args, wanted):
            bar.update()
            if error is not None:
                failed += 1
                bar.write(f"skipped {_named(item, sentence(error))}", sys.stderr)
                continue
            likely.update(result.likely_excluded)
            if args.json:
                bar.write(json.dumps(result.to_dict()), sys.stdout)
    for name, count in likely.most_common():
        sys.stderr.write(f"{name} is excluded, but is likely present in {count} images\n")
    if failed:
        sys.stderr.write(f"{failed} of {total} images were skipped\n")
    return int(failed > 0)


def wishes(args: argparse.Namespace) -> dict[str, Any]:
    names = ("allow", "deny", "topk", "threshold", "recall")
    return {name: getattr(args, name) for name in names} | {"prior": dict(args.prior) or None}


def _named(item: Item, text: str) -> str:
    """The sentence, after the path of the image where that is not in it."""
    return text if item.path in text else f"{item.path}: {text}"


def _is_outside(name: str, args: argparse.Namespace) -> bool:
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


def make_predictor(args: argparse.Namespace) -> Predictor:
    device, rank = args.device, os.environ.get("LOCAL_RANK")
    if device == "auto" and rank is not None and torch.cuda.is_available():
        device = f"cuda:{int(rank) % torch.cuda.device_count()}"  # under torchrun
    how = {"device": device, "dtype": args.dtype}
    if args.config:
        return Predictor.from_config(args.config, args.weights, **how)
    return Predictor.from_checkpoint(args.weights, **how)


def part(items: Sequence[_Any], shard: tuple[int, int]) -> list[_Any]:
    """Every N-th image or video from the I-th on."""
    first, count = shard
    return list(items[first - 1 :: count])


def shard_of_torchrun() -> tuple[int, int]:
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return (1, 1) if rank is None or count is None else (int(rank) + 1, int(count))


def _check_writable(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {folder} cannot be made: {error.strerror}; name another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {folder} may not be written; name a folder where you may")


def _to_do(items: list[Item], args: argparse.Namespace, wanted: dict[str, bool]) -> list[Item]:
    """Without the images whose files exist; an error where two have the same files."""
    taken: dict[Any, Item] = {}
    left = []
    for item in items:
        files = files_of(item.name, args.out, wanted)
        for file in files:
            other = taken.setdefault(file, item)
            if other is not item:
                raise ValueError(
                    f"{other.path} and {item.path} would both be written to {file}; predict them "
                    "into different folders"
                )
        if is_to_do(files, args):
            left.append(item)
    return left


def is_to_do(files: Sequence[Path], args: argparse.Namespace) -> bool:
    """Whether to make the files, of which some may exist; an error if that is not said."""
    exist = [file for file in files if file.exists()]
    if exist and not args.go_on and not args.overwrite:
        raise FileExistsError(
            f"{exist[0]} exists; go on with what is missing by --continue, replace it by "
            "--overwrite, or name another --out"
        )
    return not args.go_on or len(exist) < len(files)


def _written(
    pairs: Iterable[tuple[Item, Any]], args: argparse.Namespace, wanted: dict[str, bool]
) -> Iterator[tuple[Item, Exception | None, ImageResult]]:
    """Each item with its error and its result; threads write files while the model runs."""
    with ThreadPoolExecutor(args.threads, "write") as pool:
        waiting: deque[tuple[Item, Any, Future]] = deque()
        for item, result in pairs:
            waiting.append((item, result, pool.submit(_write, result, args, wanted)))
            while len(waiting) > 2 * args.threads:
                one, done, error = waiting.popleft()
                yield one, error.result(), done
        while waiting:
            one, done, error = waiting.popleft()
            yield one, error.result(), done


def _write(
    result: ImageResult | Exception, args: argparse.Namespace, wanted: dict[str, bool]
) -> Exception | None:
    """Write the files of a result; the error of that, or that of the image."""
    if isinstance(result, Exception):
        return result
    try:
        if args.out:
            overwrite = args.overwrite or args.go_on
            result.save(args.out, own_ids=args.own_ids, overwrite=overwrite, **wanted)
    except Exception as error:
        return error
    return None
