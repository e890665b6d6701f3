"""What a multi-label head reads of the training samples, from a frozen model: computed once.

Each training image is taken once, as the training's mapper crops and flips it: so images, clips and
label maps are all read by the code of a training, and the labels are those of what is seen.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from ..data.loading.loader import build_train_loader
from ..files import replacing
from ..modeling.meta_arch.rankseg import RankSeg
from ..ranking import multi_hot

logger = logging.getLogger(__name__)

PART = 256  # samples of a file: a run that is killed loses at most so many
_BATCH = 8  # samples of a pass, a divisor of PART


class Features(NamedTuple):
    """N samples."""

    values: Tensor  # (N, M, D) float16
    present: Tensor  # (N, C) bool, which categories are in each sample
    by_masks: Tensor  # (N, C) float16, scores of the categories by masks

    @property
    def bytes_each(self) -> int:
        """The bytes of a sample."""
        return sum(tensor.nbytes for tensor in self) // len(self.present)


@contextmanager
def scored_by(model: RankSeg, weights: tuple[float, float]) -> Iterator[None]:
    """Rank by other weights of the head and of masks; scores of weight 0 are not computed."""
    before, model.score_weights = model.score_weights, weights
    try:
        yield
    finally:
        model.score_weights = before


def cached_features(
    cfg: CfgNode, model: RankSeg, weights: str, folder: Path, count: int, most_bytes: float
) -> Features:
    """Features of `count` training samples, or fewer: as many as there are and as fit.

    Parts that are in `folder` already are read. They lie in a folder of their own for each file of
    `weights` and each config `cfg`, which says how the plain model sees the images.
    """
    loader = build_train_loader(_in_plain_order(cfg))
    count = min(count, len(loader.dataset))
    folder = folder / _digest(cfg, weights, len(loader.dataset))
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_stored_parts(folder, count))
    done = sum(len(part.present) for part in parts)
    if done:
        logger.info("%d samples have their features in %s", done, folder)
    batches = loader.batches(max(cfg.SEED, 0), done // _BATCH)
    with tqdm(total=count, initial=done, desc="features", unit="images") as bar:
        while done < (count := _fitting(count, parts, most_bytes)):
            part = _next_part(model, batches, min(PART, count - done), bar)
            _save(folder / f"{len(parts):05d}.npz", part)
            parts.append(part)
            done += len(part.present)
    _check(parts)
    return Features(*(torch.cat(tensors)[:count] for tensors in zip(*parts, strict=True)))


def _fitting(count: int, parts: list[Features], most_bytes: float) -> int:
    """So many of `count` samples fit the memory, by the size of the first; one part at least."""
    if not parts:
        return count
    room = max(int(most_bytes / parts[0].bytes_each), len(parts[0].present))
    if room < count:
        logger.warning("features of %d samples fit the memory, not of %d", room, count)
    return min(room, count)


def _in_plain_order(cfg: CfgNode) -> CfgNode:
    """The config of a loader that gives each image once before any comes again."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainingSampler"
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS = _BATCH, 1
    return cfg


def _digest(cfg: CfgNode, weights: str, images: int) -> str:
    """A name for what the features depend on."""
    model = cfg.MODEL.clone()
    model.defrost()
    model.WEIGHTS = ""
    parts = [model, cfg.INPUT, cfg.DATASETS, cfg.SEED, images]
    found = hashlib.sha256("\n".join(map(str, parts)).encode())
    with open(weights, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()[:16]


def _stored_parts(folder: Path, count: int) -> Iterator[Features]:
    """The parts from the first on that an earlier run has written whole."""
    for start in range(0, count, PART):
        try:
            with np.load(folder / f"{start // PART:05d}.npz", allow_pickle=False) as file:
                part = Features(*(torch.from_numpy(file[name]) for name in Features._fields))
        except Exception:  # damaged bytes make zipfile and numpy raise anything
            return
        if len(part.present) < min(PART, count - start):
            return
        yield Features(*(tensor[: count - start] for tensor in part))


def _save(path: Path, part: Features) -> None:
    with replacing(path) as temporary:
        np.savez(temporary, **{name: x.numpy() for name, x in part._asdict().items()})


@torch.no_grad()
def _next_part(model: RankSeg, batches: Iterator[list[dict]], count: int, bar: tqdm) -> Features:
    """The features of the next `count` samples."""
    found = []
    with scored_by(model, (0.0, 1.0)):
        for _ in range(0, count, _BATCH):
            samples = next(batches)
            found.append(_features_of(model, samples[: count - _BATCH * len(found)]))
            bar.update(len(found[-1].present))
    _check(found)
    return Features(*map(torch.cat, zip(*found, strict=True)))


def _features_of(model: RankSeg, samples: list[dict]) -> Features:
    clips = model.preprocess(samples)
    outputs = model.run_network(clips)
    present = multi_hot(model.labels_of(model.prepare_targets(samples, clips)), model.num_classes)
    found = Features(model.rank_features(outputs).half(), present, outputs.scores.half())
    return Features(*(tensor.cpu() for tensor in found))


def _check(parts: list[Features]) -> None:
    if len({part.values.shape[1:] for part in parts}) > 1:
        raise ValueError(
            "the training images give maps of several sizes, which cannot be kept together; add "
            "--set MODEL.RANKSEG.POOL=16, so that the head reads maps of one size"
        )
    if not all(part.values.isfinite().all() for part in parts):
        raise FloatingPointError(
            "the features of the plain model are not finite, or too large for float16, so no head "
            "can be trained on them; check --weights"
        )
