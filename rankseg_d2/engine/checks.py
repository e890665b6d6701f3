"""What must be true of a config before a run starts."""

import contextlib
import glob
import logging
import os
from argparse import Namespace
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from .._yaml import settable_keys
from ..checkpoints import locate, read_checkpoint, rename
from ..data.loading.loader import batch_size_per_rank
from ..data.loading.records import load_records, require_labels
from ..data.mappers import build_mapper
from ..data.own.config_defaults import register_files
from ..errors import cut, nearest
from ..evaluation import build_evaluator, check_evaluation
from ..modeling.meta_arch import model_class
from ..modeling.passes import in_passes
from ..tasks import class_list
from .checkpointer import Checkpointer
from .hooks import hooks_after_evaluation
from .launch import check_num_gpus, count_processes
from .loggers import check_loggers
from .optimizer import build_optimizer
from .run_folder import check_room, check_writable, last_checkpoint, lock
from .scheduler import build_lr_scheduler

_SYNC_NORMS = ("SyncBN", "nnSyncBN")


def check_run(cfg: CfgNode, args: Namespace) -> None:
    """Raise the error of a run that cannot start, before any process is started or model built."""
    check_num_gpus(args.num_gpus)
    check_datasets(cfg)
    if not args.eval_only:
        require_labels(cfg.DATASETS.TRAIN)
    check_num_classes(cfg)
    under_torchrun = "WORLD_SIZE" in os.environ
    ranks = int(os.environ["WORLD_SIZE"]) if under_torchrun else count_processes(args)
    if not args.eval_only:
        batch_size_per_rank(cfg, ranks)
    if args.machine_rank != 0 or os.environ.get("RANK", "0") != "0":
        return  # the first process checks the rest for all
    check_folder(cfg.OUTPUT_DIR, args.resume, args.eval_only)
    with _quiet():
        model = build_on_meta(cfg)
        check_weights(cfg, model, args.resume, args.eval_only)
        check_data(cfg, args.eval_only)
        for name in cfg.DATASETS.TEST:
            check_evaluation(build_evaluator(cfg, name))
        if model is not None:
            in_passes(cfg, model)
        if model is not None and not args.eval_only:
            check_norms(cfg, model, ranks)
            check_room(cfg.OUTPUT_DIR, model, has_average=cfg.SOLVER.EMA.DECAY > 0)
            build_lr_scheduler(cfg, build_optimizer(cfg, model))
        if not args.eval_only:
            hooks_after_evaluation(cfg, checkpointer=None)
            check_loggers(cfg)


def check_folder(folder: str, resume: bool, eval_only: bool) -> None:
    """Raise where OUTPUT_DIR cannot be written, is in use, or holds a run to go on from."""
    check_writable(folder)
    if eval_only:
        return
    lock(folder, keep=False)
    last = last_checkpoint(folder) or next(glob.iglob(os.path.join(folder, "model_*.pth")), None)
    if last is not None and not resume:
        raise RuntimeError(
            f"OUTPUT_DIR {folder!r} holds a run already, with {os.path.basename(last)}; go on from "
            "it with --resume, or set another OUTPUT_DIR"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings, which the run itself gives once more, and into its log."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def build_on_meta(cfg: CfgNode) -> nn.Module | None:
    """The model without memory for its weights, which raises what is wrong with its options.

    None for models of other projects, which may need more than names and shapes.
    """
    kind = model_class(cfg)
    if kind is None:
        return None
    try:
        with torch.device("meta"):
            return kind(cfg)
    except RuntimeError:  # a backbone of the user may compute while it is built
        return None


def check_norms(cfg: CfgNode, model: nn.Module, ranks: int) -> None:
    """Raise ValueError where several processes would train SyncBN on the CPU."""
    count = _count_sync_norms(model)
    if ranks == 1 or torch.device(cfg.MODEL.DEVICE).type != "cpu" or count == 0:
        return
    names = [name for name, key in settable_keys(cfg).items() if key.value in _SYNC_NORMS]
    # Of keys that the model does not read, such as those of other backbones, nothing is said.
    names = [name for name in names if _count_sync_norms(_with_batch_norm(cfg, name)) < count]
    change = "".join(f"set {name} BN, " for name in names)
    raise ValueError(
        f"SyncBN trains on GPUs only, but {ranks} processes would train it on the CPU: "
        f"{change}{'or ' if names else ''}use one process"
    )


def _count_sync_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def _with_batch_norm(cfg: CfgNode, key: str) -> nn.Module:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([key, "BN"])
    return build_on_meta(cfg)


def check_weights(cfg: CfgNode, model: nn.Module | None, resume: bool, eval_only: bool) -> None:
    """Raise where the weights of the run are missing, damaged, or not for it."""
    checkpointer = Checkpointer(model or nn.Module(), cfg.OUTPUT_DIR)
    path = cfg.MODEL.WEIGHTS
    if resume and checkpointer.has_checkpoint():
        checkpointer.check_resumable([] if eval_only else ["trainer"], has_model=model is not None)
    elif path:
        weights = read_checkpoint(locate(path, checkpointer.path_manager)[0])["model"]
        if eval_only and model is not None:
            rename(weights, model.state_dict())
            fresh = [name for name, _ in model.named_parameters() if name not in weights]
            if fresh:
                raise ValueError(
                    f"--eval-only: MODEL.WEIGHTS {path} lacks {len(fresh)} weights of the model, "
                    f"such as {fresh[0]}, so it is no trained checkpoint of it; {_trained(cfg)}"
                )
    elif eval_only:
        raise ValueError(f"--eval-only needs weights, but MODEL.WEIGHTS is empty; {_trained(cfg)}")


def _trained(cfg):
    """Where trained weights are, for the end of an error."""
    final = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    if os.path.isfile(final):
        return f"this run has trained MODEL.WEIGHTS {final}"
    return "set MODEL.WEIGHTS to a trained model, or OUTPUT_DIR to a run and add --resume"


def check_data(cfg: CfgNode, eval_only: bool) -> None:
    """Raise where records of the data sets are missing or cannot be loaded."""
    if not eval_only:
        if not cfg.DATASETS.TRAIN:
            raise ValueError("DATASETS.TRAIN names no data set to train on")
        build_mapper(cfg, is_train=True)
        load_records(cfg.DATASETS.TRAIN, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    elif not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST names no data set to evaluate on")
    for name in cfg.DATASETS.TEST:
        build_mapper(cfg, False, name)
        load_records([name])


def check_datasets(cfg: CfgNode) -> None:
    """Raise KeyError if DATASETS.TRAIN or DATASETS.TEST names a data set that is not registered."""
    register_files(cfg)
    registered = DatasetCatalog.list()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in registered:
                near = ", ".join(nearest(name, registered)) or "none, as no data set is registered"
                raise KeyError(
                    f"DATASETS.{key}: data set {cut(name)!r} is not registered; the nearest names "
                    f"are {near}. Register it with DatasetCatalog.register."
                )


def check_num_classes(cfg: CfgNode) -> None:
    """Raise ValueError if a data set of DATASETS does not have NUM_CLASSES classes.

    Data sets without class names, and models of other projects, are not checked.
    """
    if model_class(cfg) is None:
        return
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for key in ("TRAIN", "TEST"):
        for dataset in cfg.DATASETS[key]:
            names = _class_names(cfg, dataset)
            if names is not None and len(names) != num_classes:
                raise ValueError(
                    f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}, but the data set {dataset} "
                    f"of DATASETS.{key} has {len(names)} {class_list(cfg)} in its metadata; set "
                    f"the key to {len(names)}, or choose another data set"
                )


def class_names(cfg: CfgNode) -> list[str] | None:
    """The names of the classes that the model learns, from DATASETS.TRAIN; None if unknown."""
    found = (_class_names(cfg, dataset) for dataset in cfg.DATASETS.TRAIN)
    return next((list(names) for names in found if names is not None), None)


def _class_names(cfg: CfgNode, dataset: str) -> list[str] | None:
    if dataset not in MetadataCatalog.list():
        return None
    return MetadataCatalog.get(dataset).get(class_list(cfg))
