"""`rankseg-d2 compare`: the table of one model at several κ, and rows of a study below."""

import csv
import json

import pytest
from support.golden import fill
from support.small import make_config  # noqa: F401  (registers the models)

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.engine import Checkpointer, Trainer

CLASSES = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The words that name a small model with a checkpoint, and its folder."""
    folder = tmp_path_factory.mktemp("compare")
    register_shapes(CLASSES, root=str(folder), num_images={"train": 1, "val": 4})
    keys = {
        "DATASETS.TRAIN": "('shapes20_panoptic_train',)",
        "DATASETS.TEST": "('shapes20_panoptic_val',)",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
        "MODEL.RANKSEG.TOPK": 12,
        "OUTPUT_DIR": folder / "run",
    }
    words = [str(word) for pair in keys.items() for word in pair]
    model = Trainer.build_model(get_config("shapes/panoptic/r10t_rankseg", words))
    fill(model)
    Checkpointer(model, str(folder)).save("model")
    settings = [f"{key}={value}" for key, value in keys.items()]
    words = ["shapes/panoptic/r10t_rankseg", "--weights", str(folder / "model.pth"), "--set"]
    return [*words, *settings], folder


def compare(words, capsys):
    assert cli.main(["compare", *words]) == 0
    table = capsys.readouterr().out.strip().splitlines()
    return table[table.index(next(line for line in table if "ms per image" in line)) :]


def test_the_table_has_each_kappa_a_threshold_and_the_oracle(model, capsys):
    words, folder = model
    table = compare([*words, "--kappas", "5", "2", "--threshold", "0.3"], capsys)
    assert [line.rsplit(maxsplit=5)[0].strip() for line in table[1:]] == [
        "κ = 12, as trained", "κ = 5", "κ = 2", "probability above 0.3", "oracle"
    ]  # fmt: skip
    with open(folder / "run" / "kappa" / "compare.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["kept"]) for row in rows[:3]] == [12, 5, 2]
    recalls = [float(row["recall@κ"]) for row in rows]
    assert recalls[0] >= recalls[1] >= recalls[2] and recalls[4] >= recalls[0]
    assert all(float(row["ms per image"]) > 0 for row in rows)


def test_rows_of_a_study_stand_below(model, capsys, tmp_path):
    study = tmp_path / "study.json"
    run = {"seeds": [0, 1], "values": {"sem_seg/mIoU": [40.0, 42.0]}}
    other = {"seeds": [0], "values": {}, "setting": ["--resume", "SOLVER.MAX_ITER", "500"]}
    study.write_text(json.dumps({"baseline": run, "other": other}))
    words = [*model[0], "--kappas", "2", "--beside", str(study)]
    *_, one, two = compare(words, capsys)
    assert one.split() == ["baseline", "(2", "trainings)", "41.00", "±", "1.00", *4 * "-"]
    assert two.split() == ["other", "(1", "trainings", "of", "500", "iterations)", *5 * "-"]
    *_, before, last = compare([*words, "baseline"], capsys)
    assert last.split() == one.split() and before.startswith("oracle")
    assert cli.main(["compare", *words, "basline"]) != 0
    assert "run: 'basline' is not known; the nearest names are baseline" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{}, 3", '{"baseline": 3}', '{"baseline": {}}'])
def test_another_file_is_told(model, tmp_path, content, capsys):
    study = tmp_path / "study.json"
    study.write_text(content)
    assert cli.main(["compare", *model[0], "--beside", str(study)]) != 0
    assert "study.json" in capsys.readouterr().err
