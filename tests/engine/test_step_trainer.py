"""One training step: its losses, its seeds, and how often it waits for the device."""

import random
import warnings

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from support.small import CLASSES, MASK2FORMER, MASKFORMER, RANKSEG, count_copies, image_sample
from support.small import make_model as make_small_model
from torch import nn

from rankseg_d2.engine import step_trainer
from rankseg_d2.engine.step_trainer import StepTrainer
from rankseg_d2.ops.ms_deform_attn import backends


class Draws(nn.Module):
    """Notes what Python, NumPy and torch draw in a step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.drawn = []

    def forward(self, batch):
        self.drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
        return {"loss_a": self.weight.sum() * batch, "loss_b": self.weight.sum()}


def make_trainer(model, batches, device="cpu", **options):
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    device = torch.device(device)
    return StepTrainer(model, batches, optimizer, device=device, seed=3, **options)


def run(trainer, iterations):
    """The scalars of these iterations, as (value, iteration) by name."""
    trainer._split = lambda batch: [batch]
    with EventStorage() as storage:
        for trainer.iter in iterations:
            trainer.run_step()
    return {name: history.values() for name, history in storage.histories().items()}


# --- seeds ----------------------------------------------------------------------------------------


def test_each_rank_and_each_step_draws_other_numbers(monkeypatch):
    drawn = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        model = Draws()
        run(make_trainer(model, [1.0] * 2), range(2))
        drawn.append(model.drawn)
    assert drawn[2] == drawn[0]  # the same rank again
    numbers = [number for steps in drawn[:2] for step in steps for number in step]
    assert len(set(numbers)) == len(numbers) == 12


# --- losses of all ranks --------------------------------------------------------------------------


def test_losses_of_one_process_are_put_in_each_step():
    scalars = run(make_trainer(Draws(), [1.0, 2.0]), range(2))
    assert scalars["loss_a"] == [(1.0, 0), (2.0, 1)]
    assert scalars["total_loss"] == [(2.0, 0), (3.0, 1)]


def test_losses_of_all_ranks_meet_only_when_they_are_written(monkeypatch):
    gathered = []

    def gather(rows):
        gathered.append(len(rows))
        others = [(i, 9.0, {name: x + 2 for name, x in losses.items()}) for i, _, losses in rows]
        return [rows, others]

    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "gather", gather)
    trainer = make_trainer(Draws(), [float(i) for i in range(45)], max_iter=45)
    scalars = run(trainer, range(45))
    assert gathered == [20, 20, 5]
    assert scalars["loss_a"] == [(i + 1.0, i) for i in range(45)]
    assert scalars["total_loss"] == [(i + 3.0, i) for i in range(45)]
    assert {value for value, _ in scalars["data_time"]} == {9.0}
    assert step_trainer.WRITE_PERIOD == 20


def test_a_loss_that_is_not_finite_changes_no_weight_and_is_named():
    model = Draws()
    trainer = make_trainer(model, [float("nan")])
    trainer.optimizer.param_groups[0]["lr"] = 1.0
    with pytest.raises(FloatingPointError, match="iteration 0: {'loss_a': nan, 'loss_b': 1.0}"):
        run(trainer, [0])
    assert model.weight.item() == 1.0


# --- copies ---------------------------------------------------------------------------------------


def make_model(*options):
    model = make_small_model(*options, RANKSEG).train()
    batch = [image_sample(0, range(CLASSES)), image_sample(1, [2]), image_sample(2, [])]
    return model, batch


@pytest.mark.parametrize("kind", [MASKFORMER, MASK2FORMER], ids=["maskformer", "mask2former"])
def test_a_step_copies_three_times_to_the_host(kind, monkeypatch):
    """What the ranking keeps, the matching costs, and all losses."""
    model, batch = make_model(kind)
    trainer = make_trainer(model, [batch])
    copies = count_copies(monkeypatch)
    scalars = run(trainer, [0])
    assert len(copies) == 3
    assert "loss_ml" in scalars and "loss_mask_0" in scalars


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [MASKFORMER, MASK2FORMER], ids=["maskformer", "mask2former"])
def test_a_step_waits_three_times_for_the_gpu(kind):
    if kind is MASK2FORMER and all(b.why_not for b in backends() if b.name == "cuda"):
        pytest.skip("needs the compiled CUDA kernels")
    model, batch = make_model(kind)
    trainer = make_trainer(model.cuda(), [batch] * 2, "cuda")
    run(trainer, [0])
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(trainer, [1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]
    assert len(waits) <= 3, waits
