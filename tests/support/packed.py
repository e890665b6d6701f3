"""Runs with a checkpoint of a small model, that know their classes."""

import torch
from support import own_data
from support.small import BASE, MASK2FORMER, RANKSEG

from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer, Trainer, describe

KEYS = BASE | MASK2FORMER | RANKSEG | {
    "MODEL.RANKSEG.TOPK": 3,
    "INPUT.MIN_SIZE_TEST": 40,
    "INPUT.FORMAT": "RGB",
}  # fmt: skip
OFFSET = 100  # of the values in label files


def make_run(folder, name="street", flip_pairs=(), **keys):
    """Write run/model_final.pth of a model for own data, with its optimizer: config and model."""
    data, _ = own_data.semantic(
        folder / "data", offset=OFFSET, name=name, flip_pairs=list(flip_pairs)
    )
    (folder / "config.yaml").write_text(f"DATASETS: {{FILES: ['{data}']}}\n")
    keys = KEYS | {"OUTPUT_DIR": str(folder / "run")} | keys
    keys.pop("MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    cfg = get_config(str(folder / "config.yaml"), [word for pair in keys.items() for word in pair])
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its moments
    (folder / "run").mkdir()
    checkpointer = Checkpointer(
        model, str(folder / "run"), class_names=own_data.CLASSES, description=describe(cfg),
        optimizer=optimizer,
    )  # fmt: skip
    checkpointer.save("model_final")
    return cfg, model
