"""SOLVER.IMS_PER_BATCH auto: a batch runs in as few parts as memory allows."""

import logging

import pytest
import torch
from detectron2.utils import comm
from support.toy import toy_config, train
from torch import nn

from rankseg_d2 import get_config
from rankseg_d2.config_files import parse_opts
from rankseg_d2.engine import fitting
from rankseg_d2.engine.fitting import parts_that_fit

CPU = torch.device("cpu")
MIB = 2**20


class Memory:
    """A machine with so much free memory, where a step of n images takes first + more (n - 1)."""

    def __init__(self, monkeypatch, free, first, more, of_gpu=None):
        self.first, self.more, self.of_gpu = first, more, of_gpu
        self.sizes, self.peak = [], 0
        monkeypatch.setattr(fitting, "free_memory", lambda device: free)
        monkeypatch.setattr(fitting, "watch_memory", lambda device: 0)
        monkeypatch.setattr(fitting, "highest_memory", lambda device: self.peak)

    def step(self, part):
        need = self.first + self.more * (len(part) - 1)
        if self.of_gpu is not None and need > self.of_gpu:
            raise torch.OutOfMemoryError
        self.sizes.append(len(part))
        self.peak = max(self.peak, need)

    def parts(self, number, model=None):
        model = model or nn.Linear(1, 1)
        optimizer = torch.optim.AdamW(model.parameters())
        return parts_that_fit(self.step, [{}] * number, model, optimizer, CPU)


@pytest.mark.parametrize("number", [1, 2, 6, 7, 16])
@pytest.mark.parametrize("free", [0, 5, 11, 20, 40, 1000])
def test_parts_are_the_fewest_equal_ones_that_fit(monkeypatch, number, free):
    monkeypatch.setattr(fitting, "_SHARE", 1.0)
    memory = Memory(monkeypatch, free * MIB + 16, 5 * MIB, 3 * MIB)  # 16: AdamW of two numbers
    parts = memory.parts(number)
    fitting_sizes = [n for n in range(1, number + 1)
                     if number % n == 0 and 5 + 3 * (n - 1) <= free]  # fmt: skip
    assert parts == number // max(fitting_sizes, default=1)
    assert set(memory.sizes) <= {1, 2}


def test_what_the_optimizer_will_need_is_left_free(monkeypatch):
    weights = nn.Linear(MIB // 4, 4, bias=False)  # 4 MiB, and 8 for AdamW
    monkeypatch.setattr(fitting, "_SHARE", 1.0)
    assert Memory(monkeypatch, 12 * MIB, MIB, MIB).parts(8, weights) == 2
    assert Memory(monkeypatch, 16 * MIB, MIB, MIB).parts(8, weights) == 1


@pytest.mark.parametrize("of_gpu, parts", [(5, 12), (100, 1)])
def test_a_gpu_without_room_for_two_images_runs_one_at_a_time(monkeypatch, of_gpu, parts):
    assert Memory(monkeypatch, 1000, 5, 3, of_gpu).parts(12) == parts


def test_no_room_for_one_image_is_the_usual_error(monkeypatch):
    with pytest.raises(torch.OutOfMemoryError):
        Memory(monkeypatch, 1000, 5, 3, of_gpu=4).parts(12)


def test_a_batch_norm_sees_two_images_and_keeps_its_means(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    before = [buffer.clone() for buffer in model.buffers()]
    memory = Memory(monkeypatch, 0, 5, 3)
    take, images = memory.step, torch.randn(12, 3, 1, 1)

    def step(part):
        take(part)
        model(images[: len(part)]).sum().backward()

    memory.step = step
    assert memory.parts(12, model) == 6
    assert memory.parts(9, model) == 3
    assert memory.sizes == [2, 3, 2, 3]
    assert all(map(torch.equal, model.buffers(), before))
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    assert memory.parts(12, model) == 12


def test_the_largest_images_are_tried(monkeypatch):
    memory, tried = Memory(monkeypatch, 0, 5, 3), []
    memory.step = lambda part: tried.append([sample["image"].shape[-1] for sample in part])
    batch = [{"image": torch.zeros(3, 2, width)} for width in (4, 9, 7, 5)]
    model = nn.Linear(1, 1)
    parts_that_fit(memory.step, batch, model, torch.optim.SGD(model.parameters()), CPU)
    assert tried == [[9], [9, 7]]


def test_all_ranks_take_the_parts_of_the_smallest(monkeypatch):
    monkeypatch.setattr(comm, "all_gather", lambda parts: [parts, 4])
    assert Memory(monkeypatch, 1000 * MIB, 5, 3).parts(8) == 4


def test_unknown_memory_is_a_warning(monkeypatch, caplog):
    memory = Memory(monkeypatch, None, 5, 3)
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    assert memory.parts(8) == 1 and not memory.sizes
    assert "is not known on this system" in caplog.text


@pytest.mark.parametrize("free, parts", [(1e12, 1), (0, 4)])
def test_a_training_is_that_with_so_many_parts(tmp_path, monkeypatch, free, parts):
    """Memory is measured, and what was found is said."""
    said = []
    monkeypatch.setattr(fitting, "free_memory", lambda device: free)
    monkeypatch.setattr(fitting.logger, "info", lambda text, *args: said.append(text % args))
    fixed = train(toy_config(tmp_path / "fixed", "SOLVER.ACCUMULATION_STEPS", parts))
    found = train(toy_config(tmp_path / "found", "SOLVER.FIT_MEMORY", True))
    assert found._trainer.accumulation_steps == parts
    assert all(map(torch.equal, found.model.parameters(), fixed.model.parameters()))
    assert len(said) == 1
    assert f"auto: {4 // parts} of 4 images at a time (needed for 1: " in said[0]


def test_auto_keeps_the_batch(tmp_path):
    name = "ade20k/semantic/r50"
    own = tmp_path / "own.yaml"
    own.write_text(f"_BASE_: {name}\nSOLVER:\n  IMS_PER_BATCH: auto\n")
    plain = get_config(name).SOLVER
    assert not plain.FIT_MEMORY
    for cfg in (get_config(name, ["SOLVER.IMS_PER_BATCH", "auto"]), get_config(own)):
        assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.FIT_MEMORY) == (plain.IMS_PER_BATCH, True)
    assert get_config(own, ["SOLVER.IMS_PER_BATCH", 24]).SOLVER.IMS_PER_BATCH == 24


@pytest.mark.parametrize("word", ["Auto", "max", "", "auto "])
def test_other_words_for_a_batch_are_an_error(word):
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH must be of type int"):
        get_config("ade20k/semantic/r50", ["SOLVER.IMS_PER_BATCH", word])


def test_a_training_of_own_data_keeps_the_batch_that_was_chosen():
    assert parse_opts(["SOLVER.IMS_PER_BATCH=auto", "SEED", 3]) == {
        "SOLVER.FIT_MEMORY": True, "SEED": 3
    }  # fmt: skip
