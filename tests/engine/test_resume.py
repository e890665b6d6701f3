"""A training that ends suddenly and resumes comes to the weights of one that was not disturbed."""

import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.engine import hooks
from support.paths import ROOT, SUPPORT
from support.toy import ToyMapper, ToyTrainer, final_weights, toy_config, train

from rankseg_d2.engine import build_train_loader

TOY = SUPPORT / "toy.py"


def start_toy(*args, **env):
    """Run toy.py to its end; the exit status."""
    root = str(ROOT)
    env = {str(k): str(v) for k, v in env.items()} | {"PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, str(TOY), *map(str, args)], env=os.environ | env, stdout=subprocess.DEVNULL
    ).returncode


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(toy_config(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_training_resumes_to_the_same_weights(tmp_path, undisturbed, num_workers):
    opts = ("DATALOADER.NUM_WORKERS", num_workers)
    assert start_toy(tmp_path, *opts, TOY_KILL_AT=7) == -signal.SIGKILL
    assert not (tmp_path / "model_0000008.pth").exists()
    trainer = train(toy_config(tmp_path, *opts), resume=True)
    assert trainer.start_iter == 6
    assert_same_weights(final_weights(tmp_path), final_weights(undisturbed))


@pytest.mark.slow
def test_death_while_saving_leaves_a_whole_last_checkpoint(tmp_path, undisturbed):
    assert start_toy(tmp_path, TOY_KILL_IN_SAVE=2) == -signal.SIGKILL
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    torch.load(tmp_path / "model_0000002.pth", weights_only=True)
    assert not (tmp_path / "model_0000005.pth").exists()
    left_over = [p for p in tmp_path.iterdir() if ".tmp." in p.name]
    assert left_over, "the half file should lie there under another name"
    trainer = train(toy_config(tmp_path), resume=True)
    assert trainer.start_iter == 3
    assert_same_weights(final_weights(tmp_path), final_weights(undisturbed))


def resume_from(name, folder, new_folder, *opts):
    """Go on from one checkpoint of a finished run."""
    new_folder.mkdir()
    shutil.copy(folder / name, new_folder)
    (new_folder / "last_checkpoint").write_text(name)
    return train(toy_config(new_folder, *opts), resume=True)


@pytest.mark.parametrize(
    "opts",
    [
        ("SEED", -1),
        ("DATALOADER.ASPECT_RATIO_GROUPING", False),
        ("SOLVER.ACCUMULATION_STEPS", 2),
        ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bf16"),
        ("SOLVER.OPTIMIZER", "ADAMW", "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"),
    ],
    ids=lambda opts: opts[0].rpartition(".")[2].lower(),
)
def test_every_checkpoint_leads_to_the_same_weights(tmp_path, opts):
    train(toy_config(tmp_path / "whole", *opts))
    for name in ("model_0000002.pth", "model_0000008.pth"):
        new_folder = tmp_path / name.removesuffix(".pth")
        trainer = resume_from(name, tmp_path / "whole", new_folder, *opts)
        assert trainer.start_iter == int(name[6:13]) + 1
        assert_same_weights(final_weights(new_folder), final_weights(tmp_path / "whole"))


def test_evaluation_does_not_change_the_training(tmp_path, undisturbed):
    train(toy_config(tmp_path, "TEST.EVAL_PERIOD", 0))
    assert_same_weights(final_weights(tmp_path), final_weights(undisturbed))


def test_another_seed_is_another_training(tmp_path, undisturbed):
    class SameStart(ToyTrainer):
        @classmethod
        def build_model(cls, cfg):
            torch.manual_seed(5)  # undisturbed's SEED
            return super().build_model(cfg)

    train(toy_config(tmp_path, "SEED", 6), trainer_class=SameStart)
    here, there = final_weights(tmp_path), final_weights(undisturbed)
    assert not torch.equal(here["linear.bias"], there["linear.bias"])


def test_a_longer_training_goes_on_after_the_end(tmp_path):
    constant = ("SOLVER.STEPS", (100,))
    train(toy_config(tmp_path / "long", "SOLVER.MAX_ITER", 12, *constant))
    ended = train(toy_config(tmp_path / "short", "SOLVER.MAX_ITER", 7, *constant))
    ended.checkpointer.save("model_best")  # as BestCheckpointer does, after the last evaluation
    cfg = toy_config(tmp_path / "short", "SOLVER.MAX_ITER", 12, *constant)
    assert train(cfg, resume=True).start_iter == 7
    assert_same_weights(final_weights(tmp_path / "short"), final_weights(tmp_path / "long"))


def test_resuming_a_finished_training_only_evaluates(tmp_path):
    cfg = toy_config(tmp_path)
    train(cfg)
    before = final_weights(tmp_path)
    trainer = train(cfg, resume=True)
    assert trainer.start_iter == 12
    assert_same_weights(final_weights(tmp_path), before)


def test_last_checkpoint_names_a_whole_file_after_every_step(tmp_path):
    class Watched(ToyTrainer):
        def build_hooks(self):
            return [*super().build_hooks(), hooks.CallbackHook(after_step=check)]

    def check(trainer):
        name = tmp_path / "last_checkpoint"
        if trainer.iter >= 2:
            saved = torch.load(tmp_path / name.read_text(), weights_only=True)
            assert saved["trainer"]["iteration"] == saved["iteration"] <= trainer.iter
            seen.append(saved["iteration"])

    seen = []
    train(toy_config(tmp_path), trainer_class=Watched)
    assert seen == [2, 2, 2, 5, 5, 5, 8, 8, 8, 11]


def same_sample(a, b):
    return a["image_id"] == b["image_id"] and torch.equal(a["image"], b["image"])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_loader_started_late_gives_the_same_batches(tmp_path, num_workers):
    whole = build_train_loader(toy_config(tmp_path), mapper=ToyMapper(True)).batches(seed=4)
    expected = [next(whole) for _ in range(9)]
    cfg = toy_config(tmp_path, "DATALOADER.NUM_WORKERS", num_workers)
    late = build_train_loader(cfg, mapper=ToyMapper(True)).batches(seed=4, start=5)
    for batch in expected[5:]:
        assert all(map(same_sample, batch, next(late)))


def test_the_same_image_is_augmented_anew_in_each_pass(tmp_path):
    cfg = toy_config(tmp_path)
    batches = build_train_loader(cfg, mapper=ToyMapper(True)).batches(seed=4)
    images = [x["image"] for _ in range(30) for x in next(batches) if x["image_id"] == 2]
    assert len(images) > 5 and not torch.equal(images[0], images[1])


def test_loading_draws_no_random_numbers_of_the_main_process(tmp_path):
    cfg = toy_config(tmp_path)
    batches = build_train_loader(cfg, mapper=ToyMapper(True)).batches(seed=4)
    next(batches)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    next(batches)
    assert torch.equal(torch.rand(2), expected)


def test_a_foreign_loader_resumes_with_a_warning(tmp_path, caplog, monkeypatch):
    class Foreign(ToyTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return build_detection_train_loader(cfg, mapper=ToyMapper(True))

    train(toy_config(tmp_path / "a"), trainer_class=Foreign)
    assert "starts anew" not in caplog.text
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / "model_0000008.pth", tmp_path / "b")
    (tmp_path / "b" / "last_checkpoint").write_text("model_0000008.pth")
    train(toy_config(tmp_path / "b"), resume=True, trainer_class=Foreign)
    assert "starts anew" in caplog.text
