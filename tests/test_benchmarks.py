"""The benchmarks are scripts: run here as processes, with tiny settings."""

import json
import os
import subprocess
import sys

import pytest
from support import own_data
from support.paths import ROOT

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


def test_every_benchmark_can_be_imported():
    run("-c", IMPORT_ALL, BENCHMARKS)


@pytest.mark.slow
def test_rankseg_vs_baseline_goes_on_and_reports(tmp_path):
    description, _ = own_data.panoptic(tmp_path)
    output = tmp_path / "output"

    def compare(seeds, *models):
        """Cells of the report's table, by the first one."""
        words = ["--seeds", seeds, "--models", *models, "--iterations", 1, "--output", output]
        opts = ["DATASETS.FILES", f"('{description}',)", "MODEL.RANKSEG.TOPK", 2]
        opts += ["SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0, "TEST.PICTURES", 0]
        return table_of(run(BENCHMARKS / "rankseg_vs_baseline.py", *words, *opts))

    table = compare(1, "baseline")
    result = json.loads((output / "baseline_0" / "result.json").read_text())
    column = table[""].index("PQ")
    assert table["baseline"][column] == f"{result['PQ']:.2f}"

    # As if an interrupted run had made these; a training that is done is not done again.
    found = {"baseline": [20.0, 22.0], "RankSeg": [21.0, 24.0]}
    for model, values in found.items():
        for seed, value in enumerate(values):
            options = ["SEED", str(seed), *result["options"][2:]]
            file = output / f"{model}_{seed}" / "result.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({**result, "options": options, "PQ": value}))
    table = compare(2, "baseline", "RankSeg")
    assert table["baseline"][column] == "21.00 ± 1.41"
    assert table["RankSeg"][column] == "22.50 ± 2.12"
    assert table["RankSeg - baseline, by seed"][column] == "+1.50 ± 0.71"
    rows = json.loads((output / "results.json").read_text())
    assert [(row["model"], row["seed"], row["PQ"]) for row in rows] == [
        ("baseline", 0, 20), ("RankSeg", 0, 21), ("baseline", 1, 22), ("RankSeg", 1, 24)
    ]  # fmt: skip


def table_of(report):
    """The cells of a report's rows, by the first one."""
    rows = [line.strip("|").split("|") for line in report.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.mark.slow
def test_pixel_training_reports_both_models():
    words = ["--repeats", 1, "--vit", "ti", "--size", 64, "--classes", 40, "--kappa", 5]
    report = run(BENCHMARKS / "pixel_training.py", *words)
    assert "40 classes" in report and "κ = 5, images of 64²" in report
    table = table_of(report)
    assert all(float(cell) >= 0 for name in ("baseline", "RankSeg") for cell in table[name])
    assert "Of the memory: 1/" in report


@pytest.mark.slow
def test_pixel_inference_reports_each_library_that_is_installed():
    pytest.importorskip("transformers", reason="compares with transformers")
    words = ["--repeats", 1, "--size", 64, "--only", "B0"]
    row = table_of(run(BENCHMARKS / "pixel_inference.py", *words))["SegFormer-B0"]
    assert row[0] == "transformers"
    assert all(float(seconds) > 0 for seconds in row[1:4])
    assert float(row[6].rstrip("%")) >= 99.9 and int(row[7]) > 1
