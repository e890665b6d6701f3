"""A multi-label head for a trained model without one: config, checks, and the head's training."""

import copy
import logging
import os
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints import differences, locate, read_checkpoint, rename
from ..data.loading.records import require_labels
from ..errors import unknown_name
from ..modeling.meta_arch import WITHOUT_RANKING, model_class
from ..ranking import HEADS, LOSSES, class_ap, rank, recall_at_k
from .checks import build_on_meta, check_datasets, check_num_classes
from .features import Features
from .optimizer import build_optimizer
from .scheduler import build_lr_scheduler

logger = logging.getLogger(__name__)

BATCH = 32  # samples of a step of the head
_LARGEST_WIDTH = 512  # the paper's, of a head that reads 256 channels
_HELD_OUT = 0.1  # share of the samples by which the best state of the head is chosen
_CHECKS = 10  # so often it is looked at


def check_plain(cfg: CfgNode) -> nn.Module:
    """Raise unless this is the config of a trained model without a ranking; the model, on meta."""
    options, kind = cfg.MODEL.RANKSEG, model_class(cfg)
    if options.USE_GT:
        raise ValueError("the oracle ranks by the labels and needs no head; give the config of a "
                         "plain model, with MODEL.RANKSEG.USE_GT False")  # fmt: skip
    if options.FLAG or kind is not None and kind.ranks:
        raise ValueError("the model of this config ranks already; give the config of the plain "
                         "model, with MODEL.RANKSEG.FLAG False")  # fmt: skip
    if kind not in WITHOUT_RANKING:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} cannot rank; a head can be "
            f"attached to {', '.join(one.__name__ for one in WITHOUT_RANKING)}"
        )
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN names no data set, but the head learns from one; add "
                         "--set \"DATASETS.TRAIN=('NAME',)\"")  # fmt: skip
    check_datasets(cfg)
    require_labels(cfg.DATASETS.TRAIN)
    check_num_classes(cfg)
    model = build_on_meta(cfg)
    if getattr(model.sem_seg_head, "refines", False):
        raise ValueError(
            f"the class logits of {cfg.MODEL.SEM_SEG_HEAD.NAME} depend on the categories that are "
            "kept and are normalised over them, so it must be trained with its ranking; train its "
            "config with MODEL.RANKSEG.FLAG True from these weights"
        )
    _check_weights(cfg.MODEL.WEIGHTS, model)
    return model


def _check_weights(path: str, model: nn.Module) -> None:
    """Raise unless the file has exactly the weights of the plain model, which are kept."""
    weights = read_checkpoint(locate(path, PathManager)[0])["model"]
    rename(weights, model.state_dict())
    if any(name.startswith("ml_head.") for name in weights):
        raise ValueError(
            f"{path} has a multi-label head already (ml_head.*); give the weights of a plain "
            "model, or train this one on with its own config"
        )
    own = dict(model.named_parameters())
    found = differences({name: weights[name] for name in own if name in weights}, own)
    if found:
        raise ValueError(
            f"{path} does not fit the model of this config ({'; '.join(found[:3])}"
            f"{f'; and {len(found) - 3} more' if found[3:] else ''}); give the config that it was "
            "trained with"
        )


def ranking_config(
    cfg: CfgNode,
    model: nn.Module,
    folder: str,
    *,
    kappa: int,
    head: str = "encoder",
    loss: str = "asymmetric",
    width: int = 0,
) -> CfgNode:
    """The config of the plain model with a head: its own classifier, among the κ best only.

    Args:
        model: the plain one.
        folder: where the new checkpoint is to lie.
        width: of the head; 0: twice that of its input, as in the paper, at most 512.
    """
    _check_options(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, kappa, head, loss)
    cfg = cfg.clone()
    cfg.defrost()
    options = cfg.MODEL.RANKSEG
    options.FLAG, options.TOPK, options.HEAD, options.LOSS = True, kappa, head, loss
    options.LOSS_WEIGHT, options.SHARE_EMBEDDING, options.NORM = 10, False, False
    channels, _ = model_class(cfg).rank_widths(model.sem_seg_head)
    options.HIDDEN_DIM = width or min(_LARGEST_WIDTH, 2 * channels)
    options.SCORES = "both"
    cfg.MODEL.SEM_SEG_HEAD.USE_LAYERNORM = False
    cfg.MODEL.TIMM.PRETRAINED = None  # the weights bring all
    cfg.OUTPUT_DIR = folder
    cfg.MODEL.WEIGHTS = os.path.join(folder, "model_final.pth")
    cfg.freeze()
    return cfg


def _check_options(num_classes: int, kappa: int, head: str, loss: str) -> None:
    if not 1 <= kappa <= num_classes:
        raise ValueError(
            f"--kappa must be in [1, {num_classes}], the number of classes; got {kappa}"
        )
    for option, name, known in (("--head", head, HEADS), ("--loss", loss, LOSSES)):
        if name not in known:
            raise unknown_name(option, name, known)
    if head == "block":
        raise ValueError("--head block is a part of Segmenter's decoder, which must be trained "
                         "with it; take another head, such as encoder")  # fmt: skip


def split(data: Features) -> tuple[Features, Features]:
    """The samples to train on, and the last tenth, which is held out."""
    count = len(data.present)
    if count < 2:
        raise ValueError("one training image is not enough for a head; raise --images")
    end = count - max(1, int(_HELD_OUT * count))
    return Features(*(x[:end] for x in data)), Features(*(x[end:] for x in data))


def train_head(
    cfg: CfgNode,
    head: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    training: Features,
    held_out: Features,
    iterations: int,
    rate: float,
) -> float:
    """Train the head on the features; the mAP of its best state, which it keeps, on held-out ones.

    `cfg` gives the weight decay and the clipping of gradients.
    """
    device = next(head.parameters()).device
    cfg = _solver(cfg, iterations, rate)
    optimizer = build_optimizer(cfg, head)
    scheduler = build_lr_scheduler(cfg, optimizer)
    generator = torch.Generator().manual_seed(max(cfg.SEED, 0))
    best, kept = -1.0, head.state_dict()
    if isinstance(loss, nn.Module):
        loss.train()  # it counts categories
    with tqdm(range(1, iterations + 1), desc="head", unit="it") as steps:
        for step in steps:
            rows = torch.randint(len(training.present), (BATCH,), generator=generator)
            values, present = (tensor[rows].to(device) for tensor in training[:2])
            value = loss(head.train()(values.float()), present)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
            if step * _CHECKS // iterations > (step - 1) * _CHECKS // iterations:
                found = mean_ap(head, held_out)
                steps.set_postfix(loss=f"{value.item():.4f}", mAP=f"{found:.1f}")
                if found > best:
                    best, kept = found, copy.deepcopy(head.state_dict())
    head.load_state_dict(kept)
    head.eval()
    return best


def _solver(cfg: CfgNode, iterations: int, rate: float) -> CfgNode:
    """The config by which a head alone is trained."""
    cfg = cfg.clone()
    cfg.defrost()
    solver = cfg.SOLVER
    solver.OPTIMIZER, solver.BASE_LR, solver.MAX_ITER = "ADAMW", rate, iterations
    solver.REFERENCE_BATCH_SIZE, solver.LAYER_DECAY = 0, 1.0
    solver.LR_SCHEDULER_NAME, solver.WARMUP_ITERS = "WarmupPolyLR", iterations // 10
    return cfg


def better_scores(
    head: nn.Module, held_out: Features, kappa: int, weights: tuple[float, float]
) -> str:
    """MODEL.RANKSEG.SCORES, head or both, by the recall at κ on held-out samples."""
    by_head = head_scores(head, held_out)
    both = weights[0] * by_head + weights[1] * held_out.by_masks.float()
    recalls = {
        name: recall_at_k(rank(scores, kappa), held_out.present).nanmean().nan_to_num().item()
        for name, scores in (("both", both), ("head", by_head))
    }
    logger.info("recall at κ = %d on held-out images: %s", kappa, recalls)
    return max(recalls, key=recalls.get)


def mean_ap(head: nn.Module, data: Features) -> float:
    """The mean average precision of the head's scores, in percent; 0 where nothing is present."""
    return 100 * class_ap(head_scores(head, data), data.present).nanmean().nan_to_num().item()


@torch.no_grad()
def head_scores(head: nn.Module, data: Features) -> Tensor:
    """Logits of the categories (N, C) of all samples."""
    device = next(head.parameters()).device
    head.eval()
    return torch.cat([head(x.to(device).float()).cpu() for x in data.values.split(BATCH)])
