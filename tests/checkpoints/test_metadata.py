"""Metadata of checkpoints: set without a change of anything else."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from rankseg_d2.checkpoints import read_checkpoint, read_metadata, write_metadata
from rankseg_d2.engine import Checkpointer

CONTENT = {"temperature": 0.1 + 0.2, "bias": [1e-30, -3.0], "names": ["Straße"], "none": None}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_a_pth_keeps_all_else_and_still_loads(tmp_path, model):
    Checkpointer(model, str(tmp_path), class_names=["a", "b"]).save("model", iteration=7)
    path = tmp_path / "model.pth"
    before = torch.load(path, weights_only=True)
    assert read_metadata(path) == {}
    write_metadata(path, calibration=CONTENT)
    write_metadata(path, other=1)
    write_metadata(path, other=2)
    assert read_metadata(path) == {"calibration": CONTENT, "other": 2}
    after = torch.load(path, weights_only=True)
    assert after.pop("rankseg") == {"calibration": CONTENT, "other": 2}
    assert after.keys() == before.keys() and after["class_names"] == ["a", "b"]
    assert after["model"]._metadata == before["model"]._metadata
    for name, value in before["model"].items():
        assert torch.equal(after["model"][name], value)
    fresh = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    rest = Checkpointer(fresh).load(str(path))
    assert rest["iteration"] == 7
    assert torch.equal(fresh[0].weight, model[0].weight)
    assert os.listdir(tmp_path).count("model.pth") == 1 and not list(tmp_path.glob(".*"))


def test_a_file_of_bare_weights_gets_them_under_model(tmp_path, model):
    path = tmp_path / "bare.pth"
    torch.save(model.state_dict(), path)
    write_metadata(path, calibration=CONTENT)
    checkpoint = read_checkpoint(path)
    assert checkpoint["model"].keys() == model.state_dict().keys()
    assert read_metadata(path) == {"calibration": CONTENT}


def test_a_safetensors_file_keeps_its_tensors_and_its_other_metadata(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, {"format": "pt"})
    assert read_metadata(path) == {}
    write_metadata(path, calibration=CONTENT)
    write_metadata(path, other=1)
    assert read_metadata(path) == {"calibration": CONTENT, "other": 1}
    for name, value in load_file(path).items():
        assert torch.equal(value, model.state_dict()[name])
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
    assert read_checkpoint(path)["model"].keys() == model.state_dict().keys()


def test_a_link_stays_a_link(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "real.pth")
    (tmp_path / "link.pth").symlink_to("real.pth")
    write_metadata(tmp_path / "link.pth", one=1)
    assert (tmp_path / "link.pth").is_symlink()
    assert read_metadata(tmp_path / "real.pth") == {"one": 1}


def test_what_cannot_be_stored_leaves_the_file_as_it_was(tmp_path, model):
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_metadata(path, tensor=torch.zeros(1))
    with pytest.raises(ValueError):
        write_metadata(path, nan=float("nan"))
    assert path.read_bytes() == before


def test_bad_files_are_told(tmp_path, monkeypatch):
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match=r"old.pkl is a pickle file.*\.pth or \.safetensors"):
        write_metadata(tmp_path / "old.pkl", one=1)
    with pytest.raises(FileNotFoundError, match="none.pth does not exist"):
        write_metadata(tmp_path / "none.pth", one=1)
    torch.save({"model": {}}, tmp_path / "model.pth")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="the folder of model.pth, cannot be written"):
        write_metadata(tmp_path / "model.pth", one=1)
    torch.save({"model": {}, "rankseg": [1]}, tmp_path / "list.pth")
    with pytest.raises(ValueError, match="a list under 'rankseg'"):
        read_metadata(tmp_path / "list.pth")
