"""`rankseg-d2 kappa` from a checkpoint to its files, and its errors."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.end_to_end import SMALL, small_config
from support.paths import ROOT
from support.small import CLASSES, MASK2FORMER, make_config

from rankseg_d2 import cli
from rankseg_d2.checkpoints import read_metadata
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Checkpointer, Trainer
from rankseg_d2.ranking import (
    Calibration,
    choose_threshold,
    choose_topk,
    conformal,
    image_shares,
)
from rankseg_d2.report import cli as kappa_cli
from rankseg_d2.report import kappa
from rankseg_d2.report.image_scores import ImageScores
from rankseg_d2.report.plan import describe, plan

CONFIG, TOPK = "shapes/panoptic/r10t_rankseg", 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with model.pth, and 24 drawn images to evaluate it on."""
    folder = tmp_path_factory.mktemp("kappa")
    register_shapes(20, root=str(folder), num_images={"train": 1, "val": 24})
    torch.manual_seed(0)
    cfg = small_config(CONFIG, folder, MODEL__SEM_SEG_HEAD__NUM_CLASSES=20, **DATA)
    Checkpointer(Trainer.build_model(cfg), str(folder)).save("model")
    return folder


DATA = {
    "DATASETS__TRAIN": ("shapes20_panoptic_train",),
    "DATASETS__TEST": ("shapes20_panoptic_val",),
}


@pytest.fixture
def drawn(monkeypatch):
    """The series of each plot, by file name, which is not drawn."""
    plots = {}
    monkeypatch.setattr(
        kappa, "draw_curves", lambda path, series, *labels: plots.update({path.name: series})
    )
    return plots


def words(folder, *more, config=CONFIG, **keys):
    keys = SMALL | {"OUTPUT_DIR": folder / "out", "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 20} | keys
    keys = {key.replace("__", "."): value for key, value in (keys | DATA).items()}
    keys.pop("MODEL.WEIGHTS")
    pairs = [f"{key}={value}" for key, value in keys.items()]
    more = [*more, "--thresholds", "0.4"]
    return ["kappa", config, "--weights", str(folder / "model.pth"), *more, "--set", *pairs]


def test_from_a_checkpoint_to_curves_scores_and_rules_in_it(folder, drawn, capsys):
    options = ["--kappas", "1", "12", "--recall", "0.3", "0.99", "--of", "categories", "pixels"]
    assert cli.main(words(folder, *options, "--write")) == 0
    text = capsys.readouterr().out
    out = folder / "out/kappa"
    images = ImageScores.load(out / "scores.npz")
    assert images.topk == TOPK and len(images.images) == 24

    rows = list(csv.DictReader((out / "kappa.csv").open()))
    assert [row["kappa"] for row in rows] == ["1", "12"]
    assert float(rows[1]["multilabel/recall@k"]) > float(rows[0]["multilabel/recall@k"]) > 0
    assert {"sem_seg/mIoU", "panoptic_seg/PQ", "pixels/recall", "pixels/precision"} < set(rows[0])
    assert list(csv.DictReader((out / "threshold.csv").open()))[0]["threshold"] == "0.4"
    assert drawn["kappa.png"]["mIoU"][0] == [1, 12]
    assert drawn["kappa.png"]["recall"][1] == [float(row["multilabel/recall@k"]) for row in rows]
    assert set(drawn) == {"kappa.png", "threshold.png", "calibration.png"}

    stored = Calibration.from_json(read_metadata(folder / "model.pth")["calibration"])
    assert [(rule.unit, rule.by) for rule in stored.rules] == [
        (unit, by) for unit in ("categories", "pixels") for by in ("topk", "threshold")
    ]
    shares = image_shares(images.present)
    assert stored.rule(0.3) == choose_topk(images.scores, shares, 0.3, TOPK)
    assert stored.rule(0.3, by="threshold") == choose_threshold(images.scores, shares, 0.3, TOPK)
    assert json.loads((out / "calibration.json").read_text())["calibration"] == stored.to_json()
    assert "at least 30 % of the image's pixels are kept, on average" in text
    assert "No rule: a recall of 0.99 needs at least 99 labelled images, but there are 24" in text
    Checkpointer(kappa.load_model(small_config(
        CONFIG, folder, MODEL__SEM_SEG_HEAD__NUM_CLASSES=20, **DATA
    ))).load(str(folder / "model.pth"))  # fmt: skip


def test_scores_alone_are_enough_to_choose_again(folder, drawn, capsys, tmp_path):
    assert cli.main(words(folder, "--kappas", "12", "--recall", "0.3")) == 0
    capsys.readouterr()
    scores = str(folder / "out/kappa/scores.npz")
    assert cli.main(["kappa", "--scores", scores, "--recall", "0.3", "0.2"]) == 0
    text = capsys.readouterr().out
    assert "30 %" in text and "20 %" in text
    assert cli.main(["kappa", "--scores", scores, "--recall", "0.999"]) == 1
    assert "needs at least 999" in capsys.readouterr().out
    weights = tmp_path / "weights.pth"
    torch.save({"model": {}}, weights)
    again = ["kappa", "--scores", scores, "--recall", "0.3", "--write", "--weights", str(weights)]
    assert cli.main(again) == 0
    assert Calibration.from_json(read_metadata(weights)["calibration"]).rule(0.3).images == 24


def error(capsys, argv):
    assert cli.main(argv) == 1
    return capsys.readouterr().err.strip().split("\n")[-1]


def test_errors_before_any_work(folder, capsys, tmp_path):
    message = error(capsys, words(folder, config="shapes/panoptic/r10t"))
    assert "the model of this config has no ranking head, so it has no κ to choose" in message
    message = error(capsys, words(folder, config=f"{CONFIG}_gt"))
    assert "has no ranking head" in message
    message = error(capsys, words(folder, "--kappas", "3", "13"))
    assert "--kappas 13 is not in [1, 12]: 12 is the κ that the model was trained with" in message
    message = error(capsys, words(folder, "--kappas", "11", MODEL__RANKSEG__TOPK=10))
    assert "--kappas 11 is not in [1, 10]: the config keeps 10; raise MODEL.RANKSEG.TOPK" in message
    message = error(capsys, words(folder, MODEL__RANKSEG__TOPK=15))
    assert "MODEL.RANKSEG.TOPK 15 is not in [1, 12]: 12 is the κ" in message
    assert "give CONFIG and --weights FILE" in error(capsys, ["kappa", CONFIG])
    assert "give CONFIG and --weights FILE" in error(capsys, ["kappa"])
    message = error(capsys, ["kappa", "--scores", "x.npz", "--write"])
    assert "--write needs --weights with a local file" in message
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}q\x00.")
    message = error(capsys, ["kappa", CONFIG, "--weights", str(tmp_path / "old.pkl"), "--write"])
    assert "old.pkl is a pickle file, which is only read" in message
    missing = words(folder)
    missing[missing.index("--weights") + 1] = str(tmp_path / "none.pth")
    assert "none.pth does not exist" in error(capsys, missing)


def test_several_data_sets_and_videos_are_told(folder, monkeypatch):
    cfg = small_config(CONFIG, folder, MODEL__SEM_SEG_HEAD__NUM_CLASSES=20, **DATA)
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    cfg.DATASETS.TEST = (*cfg.DATASETS.TEST, "other")
    with pytest.raises(ValueError, match="one validation set, but DATASETS.TEST names 2"):
        kappa.check_kappa(cfg, [1])
    cfg.DATASETS.TEST = ("shapes_video_sem_seg_val",)
    monkeypatch.setattr(kappa, "check_run", lambda *args: None)
    with pytest.raises(ValueError, match="on images, but shapes_video_sem_seg_val has videos"):
        kappa.check_kappa(cfg, [1])


@pytest.mark.parametrize("option", ["--recall", "--thresholds"])
@pytest.mark.parametrize("value", ["0", "1", "1.5", "nan", "much"])
def test_shares_are_between_0_and_1(option, value, capsys):
    with pytest.raises(SystemExit):
        cli.main(["kappa", CONFIG, option, value])
    assert f"'{value}' is not a number between 0 and 1" in capsys.readouterr().err


def test_the_grid_of_kappa_ends_with_the_trained_one():
    assert kappa.default_kappas(1) == [1]
    assert kappa.default_kappas(12) == [1, 2, 3, 5, 7, 10, 12]
    assert kappa.default_kappas(100)[-4:] == [30, 50, 70, 100]


def test_help_says_all_and_loads_no_torch():
    code = (
        "import sys\n"
        "from rankseg_d2.cli import main\n"
        "try: main(['kappa', '--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--scores FILE" in done.stdout and "examples:" in done.stdout
    assert kappa_cli.UNITS == conformal.UNITS


def test_a_plan_refuses_only_what_cannot_be_had():
    torch.manual_seed(0)
    present = torch.rand(30, 6) < 0.4
    scores = torch.randn(30, 6) + 2 * present
    names, files = tuple("abcdef"), tuple(map(str, range(30)))
    images = ImageScores("mine", names, files, 6, scores, present, present.long())
    planned = plan(images, [0.5, 0.99], ["categories"])
    assert [rule.recall for rule in planned.rules] == [0.5, 0.5]
    assert len(planned.refused) == 1
    assert planned.after.nll < planned.before.nll
    assert f"{planned.before.nll:.4f} -> {planned.after.nll:.4f}" in describe(planned)
    assert describe(planned).count("at least 50 % of the image's categories") == 1


def test_curves_are_written_with_empty_cells_for_nan(tmp_path, drawn):
    results = {
        value: {"multilabel": {"recall@k": 10.0 * value, "AP-dog": 1.0}, "pixels": {"recall": nan}}
        for value, nan in ((1, 5.0), (2, float("nan")))
    }
    text = kappa.write_curves(Path(tmp_path), "kappa", results)
    assert (tmp_path / "kappa.csv").read_text() == (
        "kappa,multilabel/recall@k,pixels/recall\n1,10.0,5.0\n2,20.0,\n"
    )
    assert text.split("\n")[0].split() == ["kappa", "recall", "pixel", "recall"]


def test_without_a_temperature_any_kappa_can_be_chosen():
    free = {"FLAG": True, "TOPK": 2, "SCORES": "masks", "NORM": False}
    free = {f"MODEL.RANKSEG.{name}": value for name, value in free.items()}
    assert kappa.trained_kappa(make_config(MASK2FORMER, free)) == CLASSES
