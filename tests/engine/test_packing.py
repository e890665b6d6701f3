"""What a checkpoint says of its model, and the small file of it."""

import json
import os
import stat

import pytest
import torch
from detectron2.data import MetadataCatalog
from safetensors import safe_open
from support import own_data
from support.packed import OFFSET, make_run
from support.small import make_config

from rankseg_d2 import __version__
from rankseg_d2.checkpoints import read_checkpoint, read_metadata, write_metadata
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer, describe, pack


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a run")
    cfg, model = make_run(folder, "packed")
    return folder, cfg, model


def test_the_small_file_has_the_weights_alone_bit_for_bit(run, tmp_path):
    folder, _, model = run
    path = pack(folder / "run", tmp_path / "small.safetensors")
    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wanted = model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert os.path.getsize(path) < os.path.getsize(folder / "run/model_final.pth") / 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_small_file_says_what_a_prediction_needs_and_names_no_folder(run):
    folder, _, _ = run
    path = pack(folder / "run")
    assert path == folder / "run/model_best.safetensors"
    said = read_metadata(path)
    assert said == json.loads(json.dumps(read_metadata(folder / "run/model_final.pth")))
    assert [row["name"] for row in said["classes"]] == own_data.CLASSES
    assert [row["id"] for row in said["classes"]] == [OFFSET + i for i in range(5)]
    assert not any(row["isthing"] for row in said["classes"])
    assert said["datasets"]["train"] == ["packed_train"] and said["started_from"] == ""
    assert said["versions"]["rankseg_d2"] == __version__ and said["format"] == 1
    text = path.read_bytes()
    for name in (str(folder), str(folder.parent), "a run", os.path.expanduser("~") + "/"):
        assert name.encode() not in text
    os.remove(path)


def test_the_config_in_it_makes_the_same_model(run, write):
    folder, cfg, _ = run
    text = read_metadata(folder / "run/model_final.pth")["config"]
    again = get_config(write(text), ["DATASETS.TRAIN", (), "DATASETS.TEST", ()])
    assert again.MODEL.SEM_SEG_HEAD == cfg.MODEL.SEM_SEG_HEAD and cfg.INPUT == again.INPUT
    assert again.MODEL.RANKSEG == cfg.MODEL.RANKSEG


def test_calibration_stays_and_goes_along(run, tmp_path):
    folder, _, _ = run
    path = pack(folder / "run", tmp_path / "small.safetensors")
    write_metadata(path, calibration={"temperature": 2.0, "bias": [], "rules": []})
    assert read_metadata(path)["calibration"]["temperature"] == 2
    final = tmp_path / "model_final.pth"
    final.write_bytes((folder / "run/model_final.pth").read_bytes())
    write_metadata(final, calibration={"temperature": 3.0, "bias": [], "rules": []})
    said = read_metadata(pack(final, path))
    assert said["calibration"]["temperature"] == 3 and said["classes"]


def test_the_best_checkpoint_is_taken_then_the_last(run, tmp_path):
    folder, cfg, model = run
    checkpointer = Checkpointer(model, str(tmp_path), description=describe(cfg))
    with torch.no_grad():
        for name, value in (("model_0000009", 1.0), ("model_best", 2.0), ("model_0000019", 3.0)):
            model.pixel_mean.fill_(0)
            first = next(model.parameters())
            before = first.clone()
            first.fill_(value)
            checkpointer.save(name)
            first.copy_(before)
    first = next(iter(dict(model.named_parameters())))

    def packed():
        return read_checkpoint(pack(tmp_path, tmp_path / "x.safetensors"))["model"][first].mean()

    assert packed() == 2
    (tmp_path / "model_best.pth").unlink()
    assert packed() == 3
    (tmp_path / "model_0000019.pth").write_bytes(b"damaged")
    with pytest.raises(FileNotFoundError, match="has no checkpoint: no model_best.pth, model_fi"):
        pack(tmp_path)


def test_what_cannot_be_packed_says_why(run, tmp_path):
    folder, _, model = run
    Checkpointer(model, str(tmp_path)).save("model_final")
    with pytest.raises(ValueError, match="does not say what model and which classes it is of"):
        pack(tmp_path)
    with pytest.raises(ValueError, match=r"the file to write, .*best\.pth, must end in \.safet"):
        pack(folder / "run", tmp_path / "best.pth")
    with pytest.raises(FileNotFoundError, match="run does not exist"):
        pack(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no.pth"):
        pack(tmp_path / "no.pth")


def test_classes_of_all_tasks_are_described():
    metadata = MetadataCatalog.get("described")
    metadata.set(
        stuff_classes=["sky", "car", "bus"],
        stuff_colors=[(1, 2, 3), [4, 5, 6], (7, 8, 9)],
        thing_classes=["car", "bus"],
        thing_dataset_id_to_contiguous_id={30: 1, 50: 2},
        stuff_dataset_id_to_contiguous_id={20: 0, 30: 1, 50: 2},
        ignore_label=0,
    )
    test = "MODEL.MASK_FORMER.TEST."
    try:
        cfg = make_config({"DATASETS.TRAIN": ("described",), f"{test}PANOPTIC_ON": True})
        said = describe(cfg)
        assert said["classes"] == [
            {"name": "sky", "id": 20, "isthing": False, "color": [1, 2, 3]},
            {"name": "car", "id": 30, "isthing": True, "color": [4, 5, 6]},
            {"name": "bus", "id": 50, "isthing": True, "color": [7, 8, 9]},
        ]
        assert said["ignore_label"] == 0
    finally:
        MetadataCatalog.pop("described")


def test_classes_of_instances_are_all_things():
    metadata = MetadataCatalog.get("described")
    metadata.set(thing_classes=["car", "bus"], thing_dataset_id_to_contiguous_id={50: 1, 30: 0})
    only = {f"MODEL.MASK_FORMER.TEST.{x}_ON": x == "INSTANCE" for x in ("SEMANTIC", "INSTANCE")}
    try:
        said = describe(make_config({"DATASETS.TRAIN": ("described",)}, only))
    finally:
        MetadataCatalog.pop("described")
    assert said["classes"] == [
        {"name": "car", "id": 30, "isthing": True}, {"name": "bus", "id": 50, "isthing": True}
    ]  # fmt: skip


def test_without_names_nothing_is_described():
    assert describe(make_config({"DATASETS.TRAIN": ("nobody knows it",)})) is None
    assert "nobody knows it" not in MetadataCatalog.list()
