"""`rankseg-d2 predict` of images: a folder of them to a folder of results."""

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from ..errors import sentence
from .asked import is_to_do, make_predictor, wishes
from .predictor import Predictor
from .results import ImageResult
from .saving import ENDS, NO_PANOPTIC, files_of
from .sources import Item, Source


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


def _named(item: Item, text: str) -> str:
    """The sentence, after the path of the image where that is not in it."""
    return text if item.path in text else f"{item.path}: {text}"


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
