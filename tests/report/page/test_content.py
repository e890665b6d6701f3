"""What the page shows is what training and evaluation have written."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from support.evaluation_data import NAMES, confusion_of, unregister
from support.runs import KEPT, make_run, predictions, write_scenes

from rankseg_d2 import cli
from rankseg_d2.evaluation.confusion import Confusion
from rankseg_d2.report.page import read_run, write_page
from rankseg_d2.report.page.content import confused_pairs, read_dataset

NAME = "test_report"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder, and the results of its evaluation."""
    folder = tmp_path_factory.mktemp("run")
    records = write_scenes(NAME, folder / "data")
    yield folder, make_run(folder, NAME, records, predictions(records))
    unregister(NAME)


@pytest.fixture(scope="module")
def data(run):
    (data,) = read_run(run[0])["datasets"]
    return data


def table(run, name):
    return json.loads((run[0] / "inference" / NAME / f"{name}.json").read_text())


def test_headlines_are_the_metrics_of_the_evaluation(run, data):
    values = {one["name"]: one["value"] for one in data["headlines"]}
    results = run[1]
    assert values["mIoU"] == results["sem_seg"]["mIoU"]
    assert values["PQ"] == results["panoptic_seg"]["PQ"]
    assert values["recall@κ"] == results["multilabel"]["recall@k"]
    assert values["kept"] == KEPT


def test_the_parts_of_each_metric_add_up(run, data):
    assert [split["metric"] for split in data["splits"]] == ["mIoU", "PQ"]
    for split in data["splits"]:
        parts = [split[name] for name in ("ranking", "classes", "masks")]
        assert split["value"] + sum(parts) == pytest.approx(100)
        assert min(parts) > 0


def test_curves_are_the_losses_and_the_main_results(run):
    losses, metrics = read_run(run[0])["curves"]
    assert losses["series"]["total"][0] == [0, 5]
    assert len(losses["series"]["total"]) == 40
    assert metrics["series"] == {"sem_seg/mIoU": [[39, 33]], "panoptic_seg/PQ": [[39, 22]]}


def test_long_curves_are_thinned(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "long")
    rows = [{"iteration": i, "total_loss": i % 2 or 3} for i in range(20_000)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "long/metrics.json").write_text(text)
    points = read_run(tmp_path / "long")["curves"][0]["series"]["total"]
    assert len(points) == 600
    assert np.mean([y for _, y in points]) == pytest.approx(2, abs=0.01)


def test_the_ranking_is_that_of_the_tables(run, data):
    ranking, rows = data["ranking"], table(run, "multilabel_ranks")["rows"]
    assert ranking["labels"] == [row["labels"] for row in rows]
    assert ranking["recall"][KEPT - 1] == pytest.approx(run[1]["multilabel"]["recall@k"])
    assert ranking["precision"][KEPT - 1] == pytest.approx(run[1]["multilabel"]["precision@k"])
    assert ranking["recall"][-1] == pytest.approx(100)
    assert ranking["calibration"] == table(run, "multilabel_calibration")


def test_each_class_has_a_row_with_its_parts(run, data):
    columns = [(column["task"], column["name"]) for column in data["classes"]["columns"]]
    rows = {row[0]: dict(zip(columns, row, strict=True)) for row in data["classes"]["rows"]}
    assert list(rows) == NAMES
    for task, metric in (("sem_seg", "IoU"), ("panoptic_seg", "PQ")):
        for own in table(run, f"{task}_errors")["rows"]:
            row = rows[own["class"]]
            assert row[task, metric] == (None if own[metric] is None else round(own[metric], 2))
            for step in ("ranking", "classes", "masks"):
                value = row[task, f"{metric} lost to {step}"]
                assert value == (None if own[step] is None else round(own[step], 2))


def test_confused_pairs_are_the_largest_shares():
    matrix = np.array([[6, 2, 0, 2], [0, 9, 1, 0], [0, 0, 0, 0]])
    confusion = confusion_of(matrix)
    pairs = confused_pairs(confusion, ["a", "b", "c", "no category"])
    assert pairs == [
        {"true": "a", "predicted": "b", "share": 20, "pixels": 2},
        {"true": "a", "predicted": "no category", "share": 20, "pixels": 2},
        {"true": "b", "predicted": "c", "share": 10, "pixels": 1},
    ]
    assert confused_pairs(confusion, "abcd", most=1) == pairs[:1]
    assert confused_pairs(Confusion(2), "abc") == []


def test_examples_have_four_pictures_each(data):
    assert [one["kind"] for one in data["examples"]] == ["worst"] * 3 + ["best"] * 3
    for one in data["examples"]:
        views = [np.asarray(Image.open(io.BytesIO(base64.b64decode(view.partition(",")[2]))))
                 for view in one["views"]]  # fmt: skip
        assert len({view.shape for view in views}) == 1
        assert len(views) == 4
        assert len({view.tobytes() for view in views}) == 4
        assert len(one["ranked"]) == KEPT
    errors = data["examples"][-1]["views"][3], data["examples"][0]["views"][3]
    white = [(np.asarray(Image.open(io.BytesIO(base64.b64decode(view.partition(",")[2])))) > 240)
             .all(-1).mean() for view in errors]  # fmt: skip
    assert white[0] > white[1]  # more is right in the best image


def test_a_model_without_ranking_has_a_page_without_it(tmp_path):
    records = write_scenes("test_report_plain", tmp_path / "data", 4)
    try:
        outputs = predictions(records, ranked=False)
        make_run(tmp_path, "test_report_plain", records, outputs, iterations=0)
    finally:
        unregister("test_report_plain")
    content = read_run(tmp_path)
    assert content["curves"] == []
    assert content["datasets"][0]["ranking"] is None
    assert [split["ranking"] for split in content["datasets"][0]["splits"]] == [0, 0]


def test_videos_have_a_page_without_images(tmp_path):
    results = {"sem_seg": {"mIoU": 30.0, "VC8": 80.0}, "segm": {"AP": 12.0, "AP50": 20.0}}
    data = read_dataset(tmp_path, "clips", results)
    assert [one["name"] for one in data["headlines"]] == ["mIoU", "VC8", "mask AP", "mask AP50"]
    assert (data["examples"], data["splits"], data["ranking"]) == ([], [], None)


def test_the_command_writes_one_page_that_needs_nothing_else(run, capsys):
    folder, _ = run
    assert cli.main(["report", str(folder)]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (folder / "report.html").read_text()
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "http://www.w3.org" in page  # the name of SVG, which is not fetched
    assert re.findall(r"https?://(?!www\.w3\.org)", page) == []
    assert cli.main(["report", str(folder)]) == 0  # an older page is replaced


def test_class_names_cannot_end_the_script(run, tmp_path):
    content = read_run(run[0])
    content["datasets"][0]["classes"]["rows"][0][0] = "</script><b>"
    page = write_page(content, tmp_path / "page.html").read_text()
    assert "</script><b>" not in page


def test_another_file_is_not_overwritten(run, tmp_path, capsys):
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    assert cli.main(["report", str(run[0]), "--out", str(tmp_path / "mine.html")]) == 1
    assert "mine.html exists and is no page of `rankseg-d2 report`" in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"


def test_a_run_without_evaluation_says_what_to_run(run, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path / "nothing")]) == 1
    assert "is no folder; give the OUTPUT_DIR" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "it is no run of rankseg_d2" in capsys.readouterr().err
    shutil.copy(run[0] / "config.yaml", tmp_path)
    for content in (None, "{}", '{"results": {}}'):
        if content is not None:
            (tmp_path / "evaluation.json").write_text(content)
        assert cli.main(["report", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        config = f"{tmp_path}/config.yaml"
        assert f"run `rankseg-d2 eval --resume {config} OUTPUT_DIR {tmp_path}` first" in error
        assert "Traceback" not in error
