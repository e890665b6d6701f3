"""A split's folder: made on first use, whole or not at all, by one process.

A split is built in a hidden folder beside its own, which is renamed when it is complete. The
process that builds it holds a lock; the system releases the lock if the process dies.
"""

import json
import logging
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...files import locked, read_json
from ..prepare.processes import run_jobs, usable_cpus
from .layout import Vocabulary

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
MIN_AREA = 16  # pixels; smaller segments are ignored
JPEG_QUALITY = 92


@dataclass(frozen=True)
class SplitSpec:
    """The parameters of a split; they determine its files.

    Two subclasses, of images and of videos, say which files these are. A data set derives from
    both and says what they show, by the methods that raise NotImplementedError here.
    """

    name: ClassVar[str]  # of the data set

    num_categories: int
    split: str

    @property
    def vocabulary(self) -> Vocabulary:
        """The categories; raises ValueError for a wrong number of them."""
        raise NotImplementedError

    def make_scene(self, seed: tuple[int, ...]) -> Any:
        """Has `vocabulary`, and `grounds` and `things`, each with a category."""
        raise NotImplementedError

    def draw(self, scene: Any, time: float = 0) -> tuple[np.ndarray, np.ndarray]:
        """RGB picture (H, W, 3) uint8, and the number of the ground or thing at each pixel (H, W).

        Grounds are numbered first, then things.
        """
        raise NotImplementedError

    def write(self, folder: Path, num_workers: int) -> None:
        """Make the files."""
        raise NotImplementedError

    def facts(self) -> dict:
        """What spec.json holds; a split with other facts is made again."""
        return asdict(self)

    def _check(self, count: int, what: str) -> None:
        _ = self.vocabulary  # raises for a wrong number of categories
        if self.split not in SPLITS or count < 1:
            raise ValueError(
                f"a split of {self.name} must be one of {', '.join(SPLITS)} with 1 {what} or more, "
                f"got {self.split!r} with {count}"
            )


def ensure_split(folder: Path, spec: SplitSpec, num_workers: int | None = None) -> None:
    """Make the split in `folder` unless it exists; one process makes it, others wait."""
    if is_made(folder, spec):
        return
    try:
        with locked(folder.with_name(f".{folder.name}.lock"), f"writes {spec.name} to {folder}"):
            if not is_made(folder, spec):
                _build(folder, spec, num_workers or usable_cpus())
    except OSError as error:
        raise RuntimeError(
            f"{spec.name} cannot be written to {folder} ({error.strerror}); set the environment "
            "variable DETECTRON2_DATASETS to a folder that you can write to, on a disk with space"
        ) from error


def is_made(folder: Path, spec: SplitSpec) -> bool:
    """Whether the folder holds this split; RuntimeError if it holds files of somebody else."""
    if not folder.exists():
        return False
    file = folder / "spec.json"
    if not file.is_file():
        raise RuntimeError(
            f"{spec.name} would be written to {folder}, but that holds other files (no spec.json); "
            "move it, or set the environment variable DETECTRON2_DATASETS to another folder"
        )
    return read_json(file) == spec.facts()


def _build(folder: Path, spec: SplitSpec, num_workers: int) -> None:
    _remove_leftovers(folder)
    logger.info("Drawing %s, once, into %s", spec.name, folder)
    # Not the name of a killed build, whose workers may write for a moment after it.
    making = folder.with_name(f".{folder.name}.making.{secrets.token_hex(8)}")
    making.mkdir()
    spec.write(making, num_workers)
    (making / "spec.json").write_text(json.dumps(spec.facts()))
    if folder.exists():  # of another version or size
        folder.rename(making.with_suffix(".old"))
    making.rename(folder)
    _remove_leftovers(folder)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.parent.glob(f".{folder.name}.making.*"):
        shutil.rmtree(path, ignore_errors=True)


def draw_all(
    draw_one: Callable[[int], dict], count: int, title: str, num_workers: int, per_process: int
) -> list[dict]:
    """The results of `draw_one` for 0 to count - 1; it writes files, in several processes.

    One process is used for every `per_process` calls, because its start takes as long as these.
    """
    workers = min(num_workers, 1 + count // per_process)
    return [drawn for _, drawn in run_jobs(draw_one, range(count), count, title, workers)]
