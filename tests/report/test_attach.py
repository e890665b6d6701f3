"""`rankseg-d2 attach-ranker`: a head for a trained model, whose own weights stay as they are."""

import csv
import json
import re

import pytest
import torch
from support.golden import fill
from support.small import make_config  # noqa: F401  (registers the models)

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Checkpointer, Trainer
from rankseg_d2.report.kappa import load_model

CLASSES, IMAGES, KAPPA = 20, 21, 5
CONFIG = "shapes/panoptic/r10t"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The keys of a small plain model, its checkpoint, and a folder."""
    folder = tmp_path_factory.mktemp("attach")
    register_shapes(CLASSES, root=str(folder), num_images={"train": IMAGES, "val": 4})
    keys = {
        "DATASETS.TRAIN": "('shapes20_panoptic_train',)",
        "DATASETS.TEST": "('shapes20_panoptic_val',)",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
        "OUTPUT_DIR": folder / "run",
    }
    settings = [f"{key}={value}" for key, value in keys.items()]
    model = Trainer.build_model(get_config(CONFIG, settings))
    constants = model.criterion.empty_weight.clone()
    fill(model)
    model.criterion.empty_weight.copy_(constants)
    Checkpointer(model, str(folder)).save("model")
    return settings, folder / "model.pth", folder


def attach(plain, out, *more, config=CONFIG):
    settings, weights, _ = plain
    words = [config, "--weights", str(weights), "--out", str(out), *more]
    return cli.main(["attach-ranker", *words, "--set", *settings])


@pytest.fixture(scope="module")
def attached(plain):
    """The folder of a model with a head."""
    out = plain[2] / "ranks"
    assert attach(plain, out, "--kappa", str(KAPPA), "--iterations", "8") == 0
    return out


def table_in(folder):
    with open(folder / "attached.csv") as file:
        return list(csv.DictReader(file))


def weights_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_the_plain_weights_are_kept_bit_by_bit_beside_a_head(plain, attached):
    before, after = weights_of(plain[1]), weights_of(attached / "model_final.pth")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"ml_head"}


def test_the_table_has_the_plain_model_and_each_list(plain, attached):
    rows = table_in(attached)
    names = [row[""] for row in rows]
    assert names == ["plain", "κ = 5, head", "κ = 5, masks", "κ = 5, both"]
    assert [float(row["kept"]) for row in rows] == [CLASSES, *3 * [KAPPA]]
    assert all(float(row["recall@10"]) >= float(row["recall@κ"]) for row in rows[1:])


def test_an_evaluation_of_the_written_config_gives_the_table(attached, tmp_path):
    words = [str(attached / "config.yaml"), "OUTPUT_DIR", str(tmp_path), "TEST.PICTURES", "0"]
    assert cli.main(["eval", *words]) == 0
    results = json.loads((tmp_path / "evaluation.json").read_text())
    results = results["results"]["shapes20_panoptic_val"]
    scores = get_config(words[0]).MODEL.RANKSEG.SCORES
    (row,) = (row for row in table_in(attached) if row[""] == f"κ = 5, {scores}")
    for task, metric, column in (
        ("sem_seg", "mIoU", "mIoU"),
        ("panoptic_seg", "PQ", "PQ"),
        ("multilabel", "mAP", "mAP"),
        ("multilabel", "recall@k", "recall@κ"),
    ):
        assert results[task][metric] == pytest.approx(float(row[column]), abs=1e-3)


def test_with_all_categories_the_results_are_those_of_the_plain_model(plain, attached):
    settings, weights, _ = plain
    cfg = get_config(CONFIG, [*settings, f"MODEL.WEIGHTS={weights}"])
    ranked = get_config(str(attached / "config.yaml"), [f"MODEL.RANKSEG.TOPK={CLASSES}"])
    sample = {"image": torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0)) * 255}
    with torch.no_grad():
        one, other = (load_model(c)([sample])[0]["sem_seg_labels"] for c in (cfg, ranked))
    assert torch.equal(one, other)


def test_another_head_and_loss_on_the_same_features(plain, attached, tmp_path, capsys):
    settings, weights, folder = plain
    plain = [*settings, "DATASETS.TEST=()"], weights, folder
    options = ["--head", "group", "--loss", "balanced_asymmetric", "--iterations", "2"]
    before = {path: path.stat().st_mtime_ns for path in attached.rglob("*.npz")}
    assert attach(plain, tmp_path, *options, "--features", str(attached / "features")) == 0
    assert "No table: DATASETS.TEST names no data set" in capsys.readouterr().out
    after = weights_of(tmp_path / "model_final.pth")
    assert after["ml_loss.images"].sum() > 0  # of each category, counted in the training
    assert all(torch.equal(x, after[name]) for name, x in weights_of(weights).items())
    assert before and {path: path.stat().st_mtime_ns for path in before} == before
    assert not (tmp_path / "features").exists()


def pixel_model(folder, name):
    """The words of `plain` of a pixel classifier, and its config."""
    register_shapes(CLASSES, root=str(folder), num_images={"train": 4, "val": 2})
    settings = [
        f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={CLASSES}",
        "DATASETS.TRAIN=('shapes20_sem_seg_train',)",
        "DATASETS.TEST=('shapes20_sem_seg_val',)",
        "MODEL.VIT.DEPTH=1",
    ]
    config = f"shapes/semantic/{name}"
    Checkpointer(Trainer.build_model(get_config(config, settings)), str(folder)).save("model")
    return (settings, folder / "model.pth", folder), config


@pytest.mark.slow
def test_a_pixel_classifier_gets_a_head(tmp_path):
    plain, config = pixel_model(tmp_path, "segformer_b0")
    words = ["--kappa", "5", "--head", "pooling", "--width", "64", "--iterations", "2"]
    assert attach(plain, tmp_path / "out", *words, config=config) == 0
    before, after = (weights_of(path) for path in (plain[1], tmp_path / "out/model_final.pth"))
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert len(table_in(tmp_path / "out")) == 4


def test_a_classifier_over_the_kept_categories_is_refused(tmp_path, capsys):
    plain, config = pixel_model(tmp_path, "segmenter_vit")
    expected = "class logits of SegmenterMaskHead depend on the categories that are kept"
    check_error(plain, tmp_path / "out", capsys, expected, config=config)


@pytest.mark.parametrize(
    "more, expected",
    [
        (["--kappa", "0"], r"--kappa must be in \[1, 20\], the number of classes; got 0"),
        (["--kappa", "21"], r"--kappa must be in \[1, 20\], the number of classes; got 21"),
        (["--head", "decodr"], "--head: 'decodr' is not known; the nearest names are decoder"),
        (["--loss", "bec"], "--loss: 'bec' is not known; the nearest names are bce"),
        (["--head", "block"], "--head block is a part of Segmenter's decoder"),
        (["--width", "200"], "HIDDEN_DIM: hidden_dim must be a multiple of its 3 .*; got 200"),
        (["--images", "0"], "'0' is not a number from 1 on"),
        (["--rate", "nan"], "'nan' is not a number above 0"),
    ],
)
def test_a_wrong_option_is_told(plain, tmp_path, capsys, more, expected):
    check_error(plain, tmp_path, capsys, expected, *more)


def check_error(plain, tmp_path, capsys, expected, *more, config=CONFIG):
    """One sentence, and no model."""
    try:
        assert attach(plain, tmp_path, *more, config=config) == 1
    except SystemExit as end:  # of argparse
        assert end.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(expected, said), said
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.parametrize(
    "key, expected",
    [
        ("MODEL.RANKSEG.FLAG=True", "ranks already; give the config of the plain model"),
        ("MODEL.RANKSEG.USE_GT=True", "the oracle ranks by the labels"),
        ("MODEL.META_ARCHITECTURE=RankSegMaskFormer", "ranks already"),
        ("DATASETS.TRAIN=()", "DATASETS.TRAIN names no data set, but the head learns from one"),
        ("MODEL.MASK_FORMER.HIDDEN_DIM=32", "does not fit the model of this .*; and .* more"),
    ],
)
def test_a_wrong_config_is_told(plain, tmp_path, capsys, key, expected):
    settings, weights, folder = plain
    check_error(([*settings, key], weights, folder), tmp_path, capsys, expected)


def test_a_model_with_a_head_is_told(plain, attached, tmp_path, capsys):
    settings, _, folder = plain
    ranked = (settings, attached / "model_final.pth", folder)
    check_error(ranked, tmp_path, capsys, r"has a multi-label head already \(ml_head")


def test_missing_weights_are_told(plain, tmp_path, capsys):
    settings, _, folder = plain
    check_error((settings, folder / "no.pth", folder), tmp_path, capsys, "no.pth does not exist")


def test_a_model_in_the_folder_is_kept(plain, attached, capsys):
    before = (attached / "model_final.pth").read_bytes()
    assert attach(plain, attached) == 1
    assert "exists; name another --out" in capsys.readouterr().err
    assert (attached / "model_final.pth").read_bytes() == before
