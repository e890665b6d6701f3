"""What most training scripts share: arguments, setup, the default trainer and predictor."""

import argparse
import logging
import os
import sys
import weakref
from collections import OrderedDict

import torch

from ..._trainer_steps import construct
from ..checkpoint import DetectionCheckpointer
from ..data import MetadataCatalog, build_detection_test_loader, build_detection_train_loader
from ..data import transforms as T
from ..evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format, verify_results
from ..modeling import build_model
from ..solver import build_lr_scheduler, build_optimizer
from ..utils import comm
from ..utils.collect_env import collect_env_info
from ..utils.env import seed_all_rng
from ..utils.events import default_writers
from ..utils.file_io import PathManager
from ..utils.logger import setup_logger
from . import hooks
from .launch import create_ddp_model
from .train_loop import AMPTrainer, SimpleTrainer, TrainerBase

__all__ = [
    "create_ddp_model", "default_argument_parser", "default_setup", "default_writers",
    "DefaultPredictor", "DefaultTrainer",
]  # fmt: skip

logger = logging.getLogger(__name__)


def default_argument_parser(epilog=None):
    """The options that detectron2's training scripts share."""
    parser = argparse.ArgumentParser(
        epilog=epilog or EXAMPLES.format(prog=sys.argv[0]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="path of the config")
    add("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--num-gpus", type=int, default=1, help="number of GPUs per machine")
    add("--num-machines", type=int, default=1, help="number of machines")
    add("--machine-rank", type=int, default=0, help="rank of this machine, from 0")
    # A port that the users of one machine do not share.
    port = 2**15 + 2**14 + hash(os.getuid() if hasattr(os, "getuid") else 1) % 2**14
    url = f"tcp://127.0.0.1:{port}"
    add("--dist-url", default=url, help="where the processes meet (see torch.distributed)")
    add("opts", default=None, nargs=argparse.REMAINDER, help="config options: KEY VALUE pairs")
    return parser


EXAMPLES = """examples:
  {prog} --config-file cfg.yaml --num-gpus 8 SOLVER.BASE_LR 0.001
  two machines, a line on each:
  {prog} --num-machines 2 --machine-rank 0 --dist-url URL [other options]
  {prog} --num-machines 2 --machine-rank 1 --dist-url URL [other options]
"""


def default_setup(cfg, args):
    """Log to OUTPUT_DIR, say what runs here, write config.yaml, seed, set torch's switches."""
    output_dir, rank = cfg.OUTPUT_DIR, comm.get_rank()
    if comm.is_main_process() and output_dir:
        PathManager.mkdirs(output_dir)
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)
    logger.info("Rank of current process: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if path := getattr(args, "config_file", ""):
        with PathManager.open(path, "r") as file:
            logger.info("Contents of args.config_file=%s:\n%s", path, file.read())
    if comm.is_main_process() and output_dir:
        logger.info("Running with full config:\n%s", cfg.dump())
        path = os.path.join(output_dir, "config.yaml")
        with PathManager.open(path, "w") as file:
            file.write(cfg.dump())
        logger.info("Full config saved to %s", path)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    # Evaluation sees images of many sizes; a benchmark for each would cost more than it saves.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)


class DefaultPredictor:
    """Model, weights and test-time resizing of a config, for one image at a time."""

    def __init__(self, cfg):
        self.cfg = cfg.clone()
        self.model = build_model(self.cfg)
        self.model.eval()
        if len(cfg.DATASETS.TEST):
            self.metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        min_size = cfg.INPUT.MIN_SIZE_TEST
        self.aug = T.ResizeShortestEdge([min_size, min_size], cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = cfg.INPUT.FORMAT
        if self.input_format not in ("RGB", "BGR"):
            raise ValueError(
                f"INPUT.FORMAT must be RGB or BGR for the predictor, not {self.input_format!r}"
            )

    def __call__(self, original_image):
        """The model's output for an image (H, W, 3), uint8, in BGR order."""
        with torch.no_grad():
            if self.input_format == "RGB":
                original_image = original_image[:, :, ::-1]
            height, width = original_image.shape[:2]
            image = self.aug.get_transform(original_image).apply_image(original_image)
            image = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))  # (3, h, w)
            image = image.to(self.cfg.MODEL.DEVICE)
            return self.model([{"image": image, "height": height, "width": width}])[0]


def _of_inner(name):
    """A property of DefaultTrainer that is its inner trainer's."""
    return property(
        lambda self: getattr(self._trainer, name),
        lambda self, value: setattr(self._trainer, name, value),
    )


class DefaultTrainer(TrainerBase):
    """Everything that a config needs to be trained; override the steps of `construct` to change it.

    Call `resume_or_load`, then `train`.
    """

    model = _of_inner("model")
    data_loader = _of_inner("data_loader")
    optimizer = _of_inner("optimizer")

    def __init__(self, cfg):
        super().__init__()
        construct(self, cfg)

    def prepare_cfg(self, cfg):
        """The config to train by: scaled to the number of processes."""
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        return self.auto_scale_workers(cfg, comm.get_world_size())

    def check_parts(self, cfg, model):
        """To be overridden: raise here, before the training, what would end it later."""

    def wrap_model(self, cfg, model):
        return create_ddp_model(model, broadcast_buffers=False)

    def build_step_trainer(self, cfg, model, data_loader, optimizer):
        kind = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        return kind(model, data_loader, optimizer)

    def build_checkpointer(self, cfg, model):
        # By a weak reference: the trainer is to be freed without the garbage collector.
        return DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))

    def resume_or_load(self, resume=True):
        """Resume from the last checkpoint in OUTPUT_DIR, or else load MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1  # what is saved is the last finished iteration

    def build_hooks(self):
        """Timing, learning rate, precise BN, checkpoints, evaluation, writers: in this order."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # for the second loader, that of precise BN
        is_main = comm.is_main_process()
        built = [hooks.IterationTimer(), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED:
            loader = self.build_train_loader(cfg)
            period, num_iter = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER
            built.append(hooks.PreciseBN(period, self.model, loader, num_iter))
        # Before the evaluation, which may fail.
        if is_main:
            period = cfg.SOLVER.CHECKPOINT_PERIOD
            built.append(hooks.PeriodicCheckpointer(self.checkpointer, period))

        def test_and_save_results():
            self._last_eval_results = self.test(self.cfg, self.model)
            return self._last_eval_results

        built.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, test_and_save_results))
        # Last, so that it writes what the evaluation has put.
        if is_main:
            built.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return built

    def build_writers(self):
        return default_writers(self.cfg.OUTPUT_DIR, self.max_iter)

    def train(self):
        """Train from start_iter on; the last evaluation's results if the config expects some."""
        super().train(self.start_iter, self.max_iter)
        if not self.cfg.TEST.EXPECTED_RESULTS or not comm.is_main_process():
            return None
        verify_results(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def run_step(self):
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self):
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg):
        model = build_model(cfg)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg, model):
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_detection_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        """The DatasetEvaluator of a data set: to be overridden."""
        raise NotImplementedError("override build_evaluator, or pass evaluators to test()")

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """Evaluate on DATASETS.TEST: the results of the one data set, or a dict by its name."""
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if evaluators is not None and len(evaluators) != len(cfg.DATASETS.TEST):
            raise ValueError(
                f"{len(evaluators)} evaluators are given for the {len(cfg.DATASETS.TEST)} data "
                "sets of DATASETS.TEST; give one for each"
            )
        results = OrderedDict()
        for index, name in enumerate(cfg.DATASETS.TEST):
            data_loader = cls.build_test_loader(cfg, name)
            try:
                evaluator = evaluators[index] if evaluators else cls.build_evaluator(cfg, name)
            except NotImplementedError:
                logger.warning("There is no evaluator for %s: it is passed over", name)
                results[name] = {}
                continue
            results[name] = inference_on_dataset(model, data_loader, evaluator)
            if comm.is_main_process():
                logger.info("Evaluation results for %s in csv format:", name)
                print_csv_format(results[name])
        return next(iter(results.values())) if len(results) == 1 else results

    @staticmethod
    def auto_scale_workers(cfg, num_workers: int):
        """Scale batch size, rate and lengths if SOLVER.REFERENCE_WORLD_SIZE is another number.

        The config itself is left as it is. 0 turns this off.
        """
        old = cfg.SOLVER.REFERENCE_WORLD_SIZE
        if old in (0, num_workers):
            return cfg
        if cfg.SOLVER.IMS_PER_BATCH % old:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH}) must be a multiple of "
                f"SOLVER.REFERENCE_WORLD_SIZE ({old})"
            )
        frozen, cfg = cfg.is_frozen(), cfg.clone()
        cfg.defrost()
        scale = num_workers / old
        solver = cfg.SOLVER
        solver.REFERENCE_WORLD_SIZE = num_workers
        solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * scale)
        solver.BASE_LR *= scale
        solver.STEPS = tuple(round(step / scale) for step in solver.STEPS)
        for key in ("MAX_ITER", "WARMUP_ITERS", "CHECKPOINT_PERIOD"):
            solver[key] = round(solver[key] / scale)
        cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / scale)
        logger.info("Scaled from %d to %d workers:\n%s", old, num_workers, solver)
        if frozen:
            cfg.freeze()
        return cfg
