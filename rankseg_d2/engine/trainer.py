"""The trainer: detectron2's DefaultTrainer with AMP types, accumulation and an exact resume."""

import contextlib
import logging
import os
import tempfile
import time
import weakref
from collections import defaultdict
from types import SimpleNamespace

import torch
from detectron2.engine import (
    DefaultTrainer,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    default_setup,
)
from detectron2.engine import hooks as d2_hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.nn.parallel import DistributedDataParallel

from .. import __version__, engine_name
from ..config import check_datasets, check_num_classes, class_names
from ..data.loading.loader import (
    ResumableLoader,
    batch_size_per_rank,
    build_test_loader,
    build_train_loader,
    seed_step,
)
from ..evaluation import build_evaluator
from ..modeling.passes import SlidingWindow, TestTimeAugmentation
from .checkpointer import Checkpointer
from .hooks import hooks_after_evaluation
from .launch import check_num_gpus
from .optimizer import build_optimizer
from .scheduler import build_lr_scheduler

logger = logging.getLogger(__name__)

AMP_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def setup(cfg, args) -> None:
    """detectron2's default_setup, for our logs too; `args.config_file` may be a shipped name."""
    check_output_dir(cfg.OUTPUT_DIR)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="rankseg_d2")
    logger.info("rankseg_d2 %s on the %s engine", __version__, engine_name())
    args = SimpleNamespace(**vars(args))
    if not os.path.isfile(args.config_file):
        args.config_file = ""  # detectron2 would open it, only to log its text
    default_setup(cfg, args)


def check_run(cfg, args) -> None:
    """Raise the error of a run that cannot start, before any process is started or model built."""
    check_num_gpus(args.num_gpus)
    check_datasets(cfg)
    check_num_classes(cfg)
    check_output_dir(cfg.OUTPUT_DIR)


def check_output_dir(path: str) -> None:
    """Make the folder and try to write there, so that a long training does not end in an error."""
    if not comm.is_main_process():
        return
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise RuntimeError(
            f"OUTPUT_DIR {path!r} cannot be written ({error.strerror}); "
            "set OUTPUT_DIR to a folder where you may write"
        ) from error


class Trainer(DefaultTrainer):
    """Trains what a config says; call `resume_or_load`, then `train`.

    Override the build_* methods to change a part. A `build_train_loader` of your own resumes
    exactly if it returns `rankseg_d2.engine.build_train_loader(cfg, mapper=...)`.
    """

    def __init__(self, cfg):
        TrainerBase.__init__(self)
        check_output_dir(cfg.OUTPUT_DIR)
        for name in ("detectron2", "rankseg_d2"):
            if not logging.getLogger(name).isEnabledFor(logging.INFO):
                setup_logger(name=name)
        check_datasets(cfg)
        check_num_classes(cfg)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        if cfg.TEST.AUG.ENABLED:
            logger.info("TEST.AUG is for --eval-only; evaluations during the training go without")
            cfg = changed(cfg, "TEST.AUG.ENABLED", False)
        batch_size_per_rank(cfg)  # raises its error before anything is built
        device = torch.device(cfg.MODEL.DEVICE)
        model = self.build_model(cfg)
        in_passes(cfg, model)  # raises its error before the training, not after it
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        self.check_evaluation(cfg)
        check_num_classes(cfg)  # once more: some data sets name their classes when they are read
        ddp = {"broadcast_buffers": False} | ({"device_ids": None} if device.type == "cpu" else {})
        model = create_ddp_model(model, **ddp)
        self._trainer = StepTrainer(
            model,
            data_loader,
            optimizer,
            device=device,
            seed=comm.shared_random_seed() if cfg.SEED < 0 else cfg.SEED,
            amp_dtype=amp_dtype(cfg, device),
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, class_names=class_names(cfg), trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def check_evaluation(cls, cfg):
        """Raise now what would end the training at its first evaluation, such as missing files."""
        for name in cfg.DATASETS.TEST:
            cls.build_test_loader(cfg, name)
            with contextlib.suppress(NotImplementedError):  # of who evaluates nothing
                cls.build_evaluator(cfg, name)

    def state_dict(self):
        # After training, `iter` is one past the last iteration that was done.
        return super().state_dict() | {"iteration": min(self.iter, self.max_iter - 1)}

    def build_hooks(self):
        """detectron2's, and after the evaluation those that look at it."""
        built = super().build_hooks()
        kinds = [isinstance(hook, d2_hooks.EvalHook) for hook in built]
        place = kinds.index(True) + 1
        return built[:place] + hooks_after_evaluation(self.cfg, self.checkpointer) + built[place:]

    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_optimizer(cls, cfg, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """Evaluate on DATASETS.TEST, by the passes of TEST.SLIDING_WINDOW and TEST.AUG."""
        model = in_passes(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            cfg = changed(cfg, "INPUT.MIN_SIZE_TEST", 0)  # images come at their native size
        return super().test(cfg, model, evaluators)


class StepTrainer(SimpleTrainer):
    """One step: forward and backward over `accumulation_steps` equal parts, then the optimizer.

    The losses are averaged over the parts, so that the gradient is that of the whole batch (where
    the model's losses are means over the images).
    """

    def __init__(
        self, model, data_loader, optimizer, *, device, seed, amp_dtype=None, accumulation_steps=1
    ):
        super().__init__(model, data_loader, optimizer)
        self.device = device
        self.seed = seed
        self.amp_dtype = amp_dtype
        self.accumulation_steps = accumulation_steps
        self.grad_scaler = torch.amp.GradScaler(
            device.type, enabled=amp_dtype is torch.float16 and device.type == "cuda"
        )
        self._batches = None

    def run_step(self):
        assert self.model.training, "the model is in eval mode"
        start = time.perf_counter()
        if self._batches is None:  # only now are seed and iteration known, and workers needed
            self._batches = self._batches_from(self.iter)
        batch = next(self._batches)
        data_time = time.perf_counter() - start

        seed_step(self.seed, self.iter)
        self.optimizer.zero_grad()
        means = defaultdict(float)
        parts = self._split(batch)
        for part in parts:
            with contextlib.nullcontext() if part is parts[-1] else self._no_sync():
                with self._autocast():
                    losses = self.model(part)
                if isinstance(losses, torch.Tensor):
                    losses = {"total_loss": losses}
                self.grad_scaler.scale(sum(losses.values()) / len(parts)).backward()
            for name, loss in losses.items():
                means[name] += loss.detach() / len(parts)
        self.after_backward()
        self.write_metrics(means, data_time, self.iter)  # raises where a loss is not finite
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _batches_from(self, iteration):
        if isinstance(self.data_loader, ResumableLoader):
            return self.data_loader.batches(self.seed, iteration)
        if iteration > 0:
            logger.warning(
                "The training loader is not from rankseg_d2.engine.build_train_loader: it starts "
                "anew, so that the samples differ from those of an uninterrupted run"
            )
        return iter(self.data_loader)

    def _split(self, batch):
        size, rest = divmod(len(batch), self.accumulation_steps)
        if rest or not size:
            raise ValueError(
                f"a batch of {len(batch)} does not split into SOLVER.ACCUMULATION_STEPS "
                f"({self.accumulation_steps}) equal parts; change SOLVER.IMS_PER_BATCH or that key"
            )
        return [batch[i : i + size] for i in range(0, len(batch), size)]

    def _no_sync(self):
        """The gradients of all ranks are averaged once, with the last part."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _autocast(self):
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.amp_dtype)

    def state_dict(self):
        state = super().state_dict() | {"seed": self.seed}
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.seed = state_dict.get("seed", self.seed)
        logger.info("Resuming with the seed of the checkpoint, %d", self.seed)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def in_passes(cfg, model):
    """The model in the passes of TEST.SLIDING_WINDOW and TEST.AUG, or as it is."""
    if cfg.TEST.SLIDING_WINDOW.ENABLED:
        model = SlidingWindow.from_config(cfg, model)
    return TestTimeAugmentation.from_config(cfg, model) if cfg.TEST.AUG.ENABLED else model


def changed(cfg, key: str, value):
    """A copy of the config with another value of one key."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([key, value])
    return cfg


def amp_dtype(cfg, device: torch.device) -> torch.dtype | None:
    """The type of SOLVER.AMP, None if it is off; bf16 for fp16 where there is no CUDA GPU."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    name = cfg.SOLVER.AMP.DTYPE
    if name not in AMP_DTYPES:
        raise ValueError(
            f"SOLVER.AMP.DTYPE must be one of {', '.join(AMP_DTYPES)}, not {name!r}; "
            "SOLVER.AMP.ENABLED False turns mixed precision off"
        )
    if name == "fp16" and device.type != "cuda":
        logger.warning("SOLVER.AMP.DTYPE fp16 needs a CUDA GPU; on %s bf16 is taken", device.type)
        return torch.bfloat16
    return AMP_DTYPES[name]
