import logging
import os
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from fvcore.common.param_scheduler import CosineParamScheduler
from iopath.common.file_io import HTTPURLHandler
from torch import nn

from rankseg_d2.checkpoints.reading import read_weights
from rankseg_d2.engine.checkpointer import Checkpointer, plain


def build_model():
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))


def same(state, other):
    assert state.keys() == other.keys()
    return all(torch.equal(state[name], other[name]) for name in state)


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def save_steps(folder, names):
    """Checkpoints of one model whose first weight is the number of the step."""
    checkpointer = Checkpointer(build_model(), str(folder))
    for step, name in enumerate(names):
        nn.init.constant_(checkpointer.model.conv.weight, step)
        checkpointer.save(name, iteration=step)
        os.utime(folder / f"{name}.pth", (step, step))
    return Checkpointer(build_model(), str(folder))


@pytest.fixture(params=[Checkpointer, DetectionCheckpointer])
def checkpointer_class(request):
    return request.param


# --- saving and resuming --------------------------------------------------------------------------


def test_everything_saved_comes_back_without_running_code(tmp_path):
    from detectron2.solver import LRMultiplier

    def build():
        model = build_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        scheduler = LRMultiplier(optimizer, CosineParamScheduler(1, 0), max_iter=10)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        parts = {"optimizer": optimizer, "scheduler": scheduler, "grad_scaler": scaler}
        return model, parts, Checkpointer(model, str(tmp_path), **parts)

    model, parts, checkpointer = build()
    for _ in range(3):
        model(torch.randn(2, 3, 5, 5)).sum().backward()
        parts["optimizer"].step()
        parts["scheduler"].step()
    checkpointer.save("model_0000002", iteration=2, seen=np.int64(6))

    content = read_weights(tmp_path / "model_0000002.pth")  # torch's weights_only
    assert content.keys() == {"model", *parts, "iteration", "seen"}
    model2, parts2, checkpointer2 = build()
    rest = checkpointer2.resume_or_load("", resume=True)
    assert rest == {"iteration": 2, "seen": 6}
    assert same(model.state_dict(), model2.state_dict())
    assert parts2["scheduler"].last_epoch == 3
    assert parts2["grad_scaler"].state_dict() == parts["grad_scaler"].state_dict()
    before, after = parts["optimizer"].state_dict(), parts2["optimizer"].state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert all(same(before["state"][i], after["state"][i]) for i in before["state"])


def test_layer_versions_are_saved(tmp_path):
    ema = build_model()
    Checkpointer(build_model(), str(tmp_path), ema=ema).save("model_final")
    content = read_weights(tmp_path / "model_final.pth")
    for state in (content["model"], content["ema"]):
        assert state._metadata["norm"] == {"version": 2}


def test_plain_values_replace_what_could_not_be_loaded_again():
    class Number(int):
        pass

    value = {"a": np.float32(0.5), "b": (Counter(x=1), [np.arange(2)]), 3: torch.ones(1)}
    result = plain(value, "trainer")
    assert type(result["a"]) is float and type(result["b"][0]) is dict
    assert torch.equal(result["b"][1][0], torch.arange(2)) and result[3] is value[3]
    with pytest.raises(ValueError, match=r"trainer\['hooks'\]\[1\] of the checkpoint is a Number"):
        plain({"hooks": [1, Number(2)]}, "trainer")


def test_last_checkpoint_never_names_a_half_file(tmp_path, monkeypatch):
    checkpointer = save_steps(tmp_path, ["model_0000000"])

    def dies(data, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model_0000001")
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000000.pth"]
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000000.pth")


def test_only_the_process_that_saves_writes(tmp_path):
    Checkpointer(build_model(), str(tmp_path), save_to_disk=False).save("model_final")
    assert not os.listdir(tmp_path)


def test_periodic_checkpointer_keeps_the_newest(tmp_path):
    checkpointer = Checkpointer(build_model(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, 2, max_iter=8, max_to_keep=2)
    for iteration in range(8):
        periodic.step(iteration)
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000005.pth",
        "model_0000007.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


# --- damaged checkpoints --------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [damage, os.remove, lambda path: path.write_bytes(b"")])
def test_resume_takes_the_newest_whole_checkpoint(tmp_path, harm, caplog):
    names = ["model_0000000", "model_0000001", "model_0000002"]
    checkpointer = save_steps(tmp_path, names)
    harm(tmp_path / "model_0000002.pth")
    (tmp_path / "model_junk.pth").write_bytes(b"junk")
    with caplog.at_level(logging.WARNING):
        rest = checkpointer.resume_or_load("", resume=True)
    assert rest == {"iteration": 1} and checkpointer.model.conv.weight[0, 0, 0, 0] == 1
    assert "model_0000002.pth, which last_checkpoint names, is missing or damaged" in caplog.text
    assert "model_0000001.pth" in caplog.text


def test_resume_without_any_whole_checkpoint_is_an_error(tmp_path):
    checkpointer = save_steps(tmp_path, ["model_final"])
    damage(tmp_path / "model_final.pth")
    with pytest.raises(FileNotFoundError, match="last_checkpoint names .*model_final.pth, w"):
        checkpointer.resume_or_load("", resume=True)


def test_resume_starts_fresh_where_nothing_was_saved(tmp_path):
    checkpointer = Checkpointer(build_model(), str(tmp_path))
    assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""
    assert checkpointer.resume_or_load("", resume=True) == {}


# --- loading what others saved --------------------------------------------------------------------


def zoo_arrays(model, prefix=""):
    return {prefix + name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("wrapped", [True, False])
def test_zoo_file_loads_by_name(tmp_path, checkpointer_class, wrapped):
    source, model = build_model(), build_model()
    content = {"model": zoo_arrays(source, "module." if wrapped else ""), "__author__": "zoo"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    rest = checkpointer_class(model).load(str(tmp_path / "a.pkl"))
    assert same(source.state_dict(), model.state_dict()) and rest == {"__author__": "zoo"}


def test_zoo_file_with_heuristics_loads_into_a_submodule(tmp_path, checkpointer_class):
    source, model = build_model(), nn.ModuleDict({"backbone": build_model()})
    content = {"model": zoo_arrays(source), "__author__": "zoo", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    checkpointer_class(model).load(str(tmp_path / "a.pkl"))
    assert same(source.state_dict(), model["backbone"].state_dict())


@pytest.mark.parametrize("query", ["", "?matching_heuristics=True"])
def test_heuristics_can_be_asked_for_in_the_path(tmp_path, checkpointer_class, query):
    source, model = build_model(), nn.ModuleDict({"trunk": build_model()})
    torch.save(source.state_dict(), tmp_path / "a.pth")
    checkpointer_class(model).load(f"{tmp_path}/a.pth{query}")
    assert same(source.state_dict(), model["trunk"].state_dict()) == bool(query)


def test_caffe2_file_is_renamed_and_matched(tmp_path, checkpointer_class):
    stem = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3)})
    stem["conv1"].norm = nn.BatchNorm2d(4)
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"stem": stem})})
    blobs = {
        "conv1_w": np.full((4, 3, 3, 3), 2, "f4"),
        "res_conv1_bn_s": np.full(4, 3, "f4"),
        "res_conv1_bn_b": np.full(4, 4, "f4"),
        "conv1_w_momentum": np.zeros(1),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    checkpointer_class(model).load(str(tmp_path / "a.pkl"))
    conv = model["backbone"]["stem"]["conv1"]
    assert conv.weight.eq(2).all() and conv.norm.weight.eq(3).all() and conv.norm.bias.eq(4).all()


def test_missing_pixel_statistics_are_no_news(tmp_path, checkpointer_class):
    model = nn.Linear(2, 2)
    model.register_buffer("pixel_mean", torch.zeros(3))
    checkpointer = checkpointer_class(model)
    state = {"weight": torch.ones(2, 2), "anchor_generator.cell_anchors.0": torch.ones(1)}
    incompatible = checkpointer._load_model({"model": state})
    assert incompatible.missing_keys == ["bias"] and incompatible.unexpected_keys == []


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_malicious_file_does_not_run(tmp_path, suffix):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "proof"),)

    content = {"model": {"w": torch.ones(1)}, "extra": Attack()}
    path = tmp_path / f"a.{suffix}"
    torch.save(content, path) if suffix == "pth" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"asks for [\w.]+, so it cannot be trusted"):
        Checkpointer(build_model()).load(str(path))
    assert not (tmp_path / "proof").exists()


def test_missing_weights_are_named(tmp_path, monkeypatch):
    def fails(self, path, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(HTTPURLHandler, "_get_local_path", fails)
    checkpointer = Checkpointer(build_model())
    with pytest.raises(FileNotFoundError, match=r"a\.pth does not exist\. Correct MODEL\.WEIGHTS"):
        checkpointer.load(str(tmp_path / "a.pth"))
    with pytest.raises(FileNotFoundError, match="ImageNetPretrained/nope could not be downloaded"):
        checkpointer.load("detectron2://ImageNetPretrained/nope")
    torch.save(build_model().state_dict(), tmp_path / "a.pth")
    checkpointer.load(str(tmp_path / "a.pth"))  # goes on after errors


def test_ambiguous_suffix_is_an_error():
    model = {"a.x.w": torch.ones(2), "b.x.w": torch.ones(2)}
    with pytest.raises(ValueError, match="model"):
        align_and_update_state_dicts(model, {"x.w": torch.ones(2)}, c2_conversion=False)
