"""The benchmarks are scripts: run here as processes, with tiny settings."""

import importlib
import importlib.util
import json
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats
from support import own_data
from support.paths import ROOT

from rankseg_d2.drawing import GAP

BENCHMARKS = ROOT / "benchmarks"
IMPORT_ALL = """
import pathlib, runpy, sys
sys.path.insert(0, sys.argv[1])
for script in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    runpy.run_path(str(script))
"""


def run(*words):
    """What a Python process writes to standard output."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def here(monkeypatch, capsys):
    """Runs a script in this process, which has imported what it needs: its exit code and texts."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run_here(script, *words):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        code = 0
        try:
            runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        return (code, *capsys.readouterr())

    yield run_here
    torch.set_num_threads(threads)
    logging.disable(logging.NOTSET)


def test_every_benchmark_can_be_imported():
    run("-c", IMPORT_ALL, BENCHMARKS)


@pytest.fixture
def study(tmp_path):
    """A study of two trainings of one step, and the folder of its output."""
    description, _ = own_data.panoptic(tmp_path)
    keys = {"DATASETS.FILES": f"('{description}',)", "MODEL.RANKSEG.TOPK": 2, "SOLVER.MAX_ITER": 1}
    keys |= {"SOLVER.IMS_PER_BATCH": 2, "SOLVER.WARMUP_ITERS": 0, "TEST.PICTURES": 0}
    content = {
        "title": "Two trainings",
        "seeds": 2,
        "keys": keys,
        "metrics": {"PQ": "panoptic_seg/PQ", "recall@1": "recall@1"},
        "runs": {
            "baseline": {"config": "shapes/panoptic/r10t"},
            "RankSeg": {"config": "shapes/panoptic/r10t_rankseg"},
            "RankSeg, 1": {"weights_of": "RankSeg", "keys": {"MODEL.RANKSEG.TOPK": 1}},
        },
        "differences": [["RankSeg", "baseline"]],
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    return file, tmp_path / "output"


@pytest.mark.slow
def test_a_study_trains_goes_on_and_evaluates_the_same_weights_again(study):
    file, output = study
    words = [BENCHMARKS / "study.py", file, "--output", output, "--seeds", 1]
    first = table_of(run(*words, "--only", "baseline"))
    assert first["baseline"][1:] == ["-", "1"]  # it has no ranking, and one seed
    weights = (output / "baseline_0" / "model_final.pth").stat().st_mtime
    table = table_of(run(*words))
    assert (output / "baseline_0" / "model_final.pth").stat().st_mtime == weights
    assert table["baseline"] == first["baseline"]
    for name in ("RankSeg", "RankSeg, 1"):  # one set of scores, so the lists are the same
        result = json.loads((output / f"{name.replace(', ', '__')}_0/result.json").read_text())
        assert table[name][1] == f"{result['recall@1']:.2f}" != "-"
    assert not (output / "RankSeg__1_0" / "model_final.pth").exists()
    assert table["RankSeg - baseline"][2] == "1"
    # A training with other options is another one.
    changed = yaml.safe_load(file.read_text())
    changed["keys"]["SOLVER.BASE_LR"] = 0.5
    file.write_text(yaml.safe_dump(changed))
    assert "baseline" not in table_of(run(*words, "--report"))


def test_a_study_reports_standard_errors_and_paired_t(study, here):
    file, output = study
    values = {"baseline": [20.0, 22.5], "RankSeg": [21.0, 24.0]}
    script = runpy.run_path(str(BENCHMARKS / "study.py"))

    def report(*words):
        code, text, _ = here("study.py", file, "--report", *words)
        assert not code
        return table_of(text)

    content = script["read_study"](file)
    for name, found in values.items():  # as if these trainings were done
        for seed, value in enumerate(found):
            folder = output / f"{name}_{seed}"
            folder.mkdir(parents=True)
            options = script["options_of"](content, output, name, seed)
            (folder / "options.json").write_text(json.dumps(options))
            (folder / "result.json").write_text(json.dumps({"panoptic_seg/PQ": value}))
    table = report("--output", output)
    error = np.std(values["RankSeg"], ddof=1) / 2**0.5
    assert table["RankSeg"] == [f"22.50 ± {error:.2f}", "-", "2"]
    with Image.open(output / "report.png") as picture:
        assert picture.size == (560 * 2 + GAP, picture.height)
    found = json.loads((output / "results.json").read_text())
    assert {name: run["values"]["panoptic_seg/PQ"] for name, run in found.items()} == values
    # Another machine knows these results, as long as the study asks for the same.
    elsewhere = ["--output", output / "new", "--known", output / "results.json"]
    assert report(*elsewhere) == table
    changed = yaml.safe_load(file.read_text())
    changed["runs"]["RankSeg"]["keys"] = {"MODEL.RANKSEG.TOPK": 1}
    file.write_text(yaml.safe_dump(changed))
    assert set(report(*elsewhere)) & set(values) == {"baseline"}
    t, p = stats.ttest_rel(values["RankSeg"], values["baseline"])
    assert table["RankSeg - baseline"][0] == f"+1.25 ± 0.25 (t {t:.1f}, p {p:.1g})"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {}}, "setting: 'run' is not known; the nearest names are runs"),
        ({"runs": {"a": {}}}, "run a needs either config or weights_of"),
        ({"runs": {"a": {"weights_of": "b"}}}, "run a: weights_of: 'b' is not known"),
        ({"differences": [["RankSeg", "basline"]]}, "'basline' is not known; the nearest names"),
        ({"seeds": None}, "the setting seeds is missing"),
    ],
)
def test_a_wrong_study_is_one_sentence(study, here, change, message):
    file, output = study
    content = yaml.safe_load(file.read_text()) | change
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    code, _, errors = here("study.py", file, "--output", output)
    assert code == 1 and not output.exists()
    assert message in errors.splitlines()[-1] and "Traceback" not in errors


@pytest.fixture
def runner(monkeypatch):
    """The names of run.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "run.py")))


def test_each_part_finds_its_result_in_the_reports_that_are_kept(runner):
    found = {}
    for part in runner.PARTS:
        report = BENCHMARKS / Path(part.words[0]).with_suffix(".md").name
        if part.device == "cpu" and report.is_file():
            found[part.name] = runner.headline(part, report.read_text())
    assert len(found) > 10
    assert found["criterion"] == "2.79"
    assert found["pixel training"] == "2.3"
    assert found["attention"].startswith("384² float32 near forward: 54.5; 384² float32 near")
    assert found["large vocabularies"].startswith("an image, to its label map: seconds: 1.00; ")


def test_a_report_without_the_column_is_an_error(runner):
    (part,) = [part for part in runner.PARTS if part.name == "criterion"]
    with pytest.raises(RuntimeError, match="criterion: the report has no column 'seconds'"):
        runner.headline(part, "| a | b |\n|---|---|\n| c | d |\n")


def test_a_comparison_with_the_reference_needs_a_checkout(runner, monkeypatch):
    parts = [part for part in runner.PARTS if "--reference" in part.words]
    assert {part.device for part in parts} == {"cpu", "cuda"}
    monkeypatch.delenv("MASK2FORMER", raising=False)
    for part in parts:
        assert runner.missing(part) == "MASK2FORMER names no checkout of Mask2Former"
    monkeypatch.setenv("MASK2FORMER", "somewhere")
    (embedded,) = {runner.missing(part) for part in parts}
    assert embedded in (None, "detectron2 is only embedded here")


def test_the_table_of_results_keeps_what_is_measured_and_says_what_is_not(
    here, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    entry = {"result": "7", "date": "2020-01-01", "machine": "another", "commit": "x"}
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"criterion": entry}))
    words = ["--only", "video consistency", "overlays", "--output", tmp_path]
    assert here("run.py", *words)[0] == 0
    first = json.loads(file.read_text())
    assert first["criterion"] == entry
    assert float(first["video consistency"]["result"]) > 0
    assert (tmp_path / "output/benchmarks/video_consistency.md").is_file()
    rows = table_of((tmp_path / "RESULTS.md").read_text())
    assert rows["criterion"][1:] == ["7", "2020-01-01", "another"]
    assert rows["attention, GPU"][1:] == ["not measured", "", ""]
    if importlib.util.find_spec("panopticapi") is None:
        assert here("run.py", "--only", "panoptic", "--output", tmp_path)[0] == 0
        rows = table_of((tmp_path / "RESULTS.md").read_text())
        assert rows["panoptic evaluation"][1].startswith("not measured: ")
    _, _, progress = here("run.py", *words)  # nothing again
    assert "video consistency" not in progress
    assert json.loads(file.read_text())["video consistency"] == first["video consistency"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "no part has one of these in its name: nothing"),
        pytest.param(
            ["--device", "cuda"],
            "there is no GPU that PyTorch could use",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(here, words, message):
    code, _, _ = here("run.py", *words)
    assert message in code


def table_of(report):
    """The cells of a report's rows, by the first one."""
    rows = [line.strip("|").split("|") for line in report.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture
def small_models(here, monkeypatch):
    """Scripts measure small models, and in this process."""
    common = importlib.import_module("common")
    make_model = common.make_model
    small = {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}
    small |= {"MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1, "MODEL.MASK_FORMER.DEC_LAYERS": 4}
    monkeypatch.setattr(common, "make_model", lambda keys: make_model(keys | small))
    monkeypatch.setattr(common, "in_own_process", lambda function, *args: function(*args))


def test_memory_is_that_of_a_process_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    common = importlib.import_module("common")
    assert common.in_own_process(os.getpid) != os.getpid()


@pytest.mark.slow
def test_pixel_training_reports_both_models():
    words = ["--repeats", 1, "--vit", "ti", "--size", 64, "--classes", 40, "--kappa", 5]
    report = run(BENCHMARKS / "pixel_training.py", *words)
    assert "40 classes" in report and "κ = 5, images of 64²" in report
    table = table_of(report)
    assert all(float(cell) >= 0 for name in ("baseline", "RankSeg") for cell in table[name][:2])
    assert table["baseline"][2:] == ["1.0 (1.0, 1.0)", "1/1.0"]
    assert table["RankSeg"][3].startswith("1/")


@pytest.mark.slow
def test_pixel_inference_reports_each_library_that_is_installed(here):
    pytest.importorskip("transformers", reason="compares with transformers")
    words = ["--repeats", 1, "--size", 64, "--only", "B0"]
    code, report, _ = here("pixel_inference.py", *words)
    row = table_of(report)["SegFormer-B0"]
    assert not code and row[0] == "transformers"
    assert all(float(seconds) > 0 for seconds in row[1:4])
    assert float(row[6].rstrip("%")) >= 99.9 and int(row[7]) > 1


@pytest.mark.slow
def test_train_step_reports_a_ratio_for_each_config(tmp_path, here):
    description, _ = own_data.panoptic(tmp_path)
    keys = [f"DATASETS.FILES=('{description}',)", "MODEL.RANKSEG.TOPK=2", "SOLVER.IMS_PER_BATCH=2"]
    name = "shapes/panoptic/r10t_rankseg"
    words = [name, "--repeats", 2, "--set", *keys]
    code, report, _ = here("train_step.py", *words)
    row = table_of(report)[f"`{name}`"]
    assert not code
    assert row[1] == "2"
    assert all(float(seconds) > 0 for seconds in row[2:4])
    assert float(row[4].split()[0]) > 0


@pytest.mark.parametrize("words, message", [
    ([], "give configs, or --reference PATH"),
    (["toy/semantic/r18", "--reference", "x"], "give configs, or --reference PATH"),
    (["--reference", "nowhere"], "nowhere is no checkout of Mask2Former|the real detectron2"),
])  # fmt: skip
def test_train_step_needs_one_peer(here, words, message):
    code, _, errors = here("train_step.py", *words)
    assert code
    assert re.search(message, f"{code} {errors}")


def test_images_for_the_reference_have_objects(here):
    import reference_mask2former

    one, other = reference_mask2former.drawn_batch(60, 2)
    assert one["image"].shape == (3, 60, 60) and not one["image"].equal(other["image"])
    assert one["instances"].gt_masks.sum((1, 2)).tolist() == [400] * 8


def test_inference_reports_the_same_logits_as_transformers(here):
    pytest.importorskip("transformers", reason="compares with transformers")
    code, report, _ = here("inference.py", "--repeats", 1, "--sizes", 64)
    row = table_of(report)["64²"]
    assert not code
    assert len(row) == 5 and all(float(cell.split()[0]) > 0 for cell in row)


@pytest.mark.slow
def test_large_vocabulary_reports_a_ratio_for_each_number_of_categories(small_models, here):
    words = ["--repeats", 1, "--size", 64, "--classes", 60, 90]
    code, report, _ = here("large_vocabulary.py", *words)
    table = table_of(report)
    assert not code and table["categories"] == ["60", "90", "90 / 60"]
    assert all(float(cell) > 0 for name in table if ":" in name and "--" not in name
               for cell in table[name])  # fmt: skip
    assert sum("peak MiB" in name for name in table) == 2
