"""A tiny model, data set, mapper, evaluator and trainer; as a script, a training to be killed.

Every kind of random choice is there: dropout, and augmentation by Python, NumPy and torch.
"""

import rankseg_d2  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import json
import os
import random
import signal

import numpy as np
import torch
from detectron2.config import configurable, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.engine import default_argument_parser, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from torch import nn

from rankseg_d2.config import add_rankseg_config
from rankseg_d2.engine import Trainer, build_train_loader, end_in_a_sentence, launch, setup
from rankseg_d2.evaluation import EVALUATORS, register_evaluator

NUM_IMAGES = 13
SIZE = 6


@META_ARCH_REGISTRY.register()
class ToyModel(nn.Module):
    """Says the mean of each of three colours, through a convolution and dropout."""

    @configurable
    def __init__(self, dropout, device="cpu"):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(8, 3)
        self.to(device)

    @classmethod
    def from_config(cls, cfg):
        return {"dropout": cfg.MODEL.MASK_FORMER.DROPOUT, "device": cfg.MODEL.DEVICE}

    def forward(self, batched_inputs):
        device = self.linear.weight.device
        images = torch.stack([x["image"] for x in batched_inputs]).to(device)  # (B, 3, h, w)
        features = self.dropout(self.conv(images).relu()).mean((2, 3))  # (B, 8)
        means = self.linear(features)  # (B, 3)
        if self.training:
            error = means - images.mean((2, 3))
            return {"loss_square": error.square().mean(), "loss_abs": 0.1 * error.abs().mean()}
        return [{"means": row} for row in means.cpu()]


def toy_dicts():
    return [
        {"image_id": i, "width": SIZE + i % 3, "height": SIZE + 1, "annotations": [{"iscrowd": 0}]}
        for i in range(NUM_IMAGES)
    ]


class ToyMapper:
    """The image of an image_id, with noise and turns if it is for training."""

    def __init__(self, is_train):
        self.is_train = is_train

    def __call__(self, dataset_dict):
        generator = torch.Generator().manual_seed(dataset_dict["image_id"])
        image = torch.rand(3, SIZE, SIZE, generator=generator)
        if self.is_train:
            image = torch.rot90(image, random.randrange(4), (1, 2))
            image = image * float(np.random.uniform(0.5, 1.5)) + 0.1 * torch.randn(3, 1, 1)
        return dataset_dict | {"image": image}


class ToyEvaluator(DatasetEvaluator):
    """The mean error over the images of all ranks."""

    def reset(self):
        self.errors = {}

    def process(self, inputs, outputs):
        for given, output in zip(inputs, outputs, strict=True):
            error = (output["means"] - given["image"].mean((1, 2))).abs().mean()
            self.errors[given["image_id"]] = error.item()

    def evaluate(self):
        torch.rand(comm.get_rank() + 1)  # a careless evaluator: it must not disturb the training
        errors = {k: v for part in comm.gather(self.errors) for k, v in part.items()}
        if not comm.is_main_process():
            return None
        assert sorted(errors) == list(range(NUM_IMAGES))
        return {"toy": {"error": sum(errors[k] for k in sorted(errors)) / NUM_IMAGES}}


if "toy" not in EVALUATORS:
    DatasetCatalog.register("toy", toy_dicts)
    MetadataCatalog.get("toy").set(evaluator_type="toy")
    register_evaluator("toy")(lambda cfg, dataset_name, output_folder: ToyEvaluator())


class ToyTrainer(Trainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_train_loader(cfg, mapper=ToyMapper(is_train=True))

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_detection_test_loader(
            dataset=DatasetCatalog.get(dataset_name), mapper=ToyMapper(is_train=False)
        )

    def build_hooks(self):
        return [*super().build_hooks(), *kill_hooks()]


def kill_hooks():
    """End this process by SIGKILL, or fail, where the environment says so."""
    if "TOY_FAIL_AT" in os.environ:
        return [hooks.CallbackHook(after_step=fail)]
    if "TOY_KILL_AT" not in os.environ:
        return []
    kill_at = int(os.environ["TOY_KILL_AT"])

    def kill(trainer):
        if trainer.iter == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return [hooks.CallbackHook(after_step=kill)]


def fail(trainer):
    if trainer.iter == int(os.environ["TOY_FAIL_AT"]):
        raise ValueError("the toy is broken")


def kill_in_save(count):
    """End this process by SIGKILL when it has written half of its `count`-th checkpoint."""
    save, saved = torch.save, []

    def save_half(data, file):
        save(data, file)
        saved.append(file)
        if len(saved) == count:
            file.flush()
            os.ftruncate(file.fileno(), file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_half


def toy_config(output_dir, *opts):
    """12 iterations of batch 4, a checkpoint every 3, an evaluation every 2."""
    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.merge_from_list(
        [
            "MODEL.META_ARCHITECTURE", "ToyModel",
            "MODEL.DEVICE", "cpu",
            "DATASETS.TRAIN", ("toy",),
            "DATASETS.TEST", ("toy",),
            "DATALOADER.NUM_WORKERS", 0,
            "SOLVER.IMS_PER_BATCH", 4,
            "SOLVER.MAX_ITER", 12,
            "SOLVER.BASE_LR", 0.1,
            "SOLVER.STEPS", (8,),
            "SOLVER.WARMUP_ITERS", 4,
            "SOLVER.CHECKPOINT_PERIOD", 3,
            "SOLVER.KEEP_CHECKPOINTS", 0,
            "TEST.EVAL_PERIOD", 2,
            "OUTPUT_DIR", str(output_dir),
            "SEED", 5,
            *opts,
        ]
    )  # fmt: skip
    return cfg


def train(cfg, resume=False, trainer_class=ToyTrainer):
    torch.manual_seed(cfg.SEED + comm.get_rank())
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def final_weights(output_dir):
    return torch.load(os.path.join(output_dir, "model_final.pth"), weights_only=True)["model"]


def main(args):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    output_dir, *opts = args.opts
    cfg = toy_config(output_dir, *opts)
    setup(cfg, args)
    if "TOY_KILL_IN_SAVE" in os.environ:
        kill_in_save(int(os.environ["TOY_KILL_IN_SAVE"]))
    trainer = train(cfg, resume=args.resume)
    results = trainer.test(cfg, trainer.model)
    if comm.is_main_process():
        with open(os.path.join(output_dir, "results.json"), "w") as file:
            json.dump({"toy": results, "world_size": comm.get_world_size()}, file)


if __name__ == "__main__":
    parser = default_argument_parser()
    end_in_a_sentence(parser.prog, lambda: launch(main, parser.parse_args()))
