"""Trainings of several options with paired seeds: means, standard errors, paired differences.

    python benchmarks/study.py benchmarks/studies/shapes_pixels.yaml
    python benchmarks/study.py benchmarks/studies/shapes_pixels.yaml --seeds 2 --only baseline
    python benchmarks/study.py benchmarks/studies/shapes_pixels.yaml --report

A study is a yaml file:

    title: What is asked
    text: Under which conditions.
    seeds: 5
    keys: {SOLVER.MAX_ITER: 600}       # config keys of every run
    metrics: {mIoU: sem_seg/mIoU, recall@20: recall@20}
    runs:
      baseline: {config: shapes/semantic/segformer_b0}
      RankSeg: {config: shapes/semantic/segformer_b0_rankseg, keys: {MODEL.RANKSEG.TOPK: 20}}
      RankSeg, 10: {weights_of: RankSeg, keys: {MODEL.RANKSEG.TOPK: 10}}    # evaluated once more
    differences: [[RankSeg, baseline]]

Every seed trains every run, several at once, each in a process with one thread: by the same seed,
runs see the same images in the same order. Started again, the study goes on where it stopped, and
repeats what has other options now. The report goes to standard output and to OUTPUT/report.md, the
values to OUTPUT/results.json, and a plot of the first two metrics to OUTPUT/report.png. With
`--known results.json` a study goes on from the results that another machine has found.
"""

import argparse
import contextlib
import functools
import io
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import nan
from pathlib import Path
from typing import Any

import torch
from common import make_parser, write_heading, write_table
from PIL import Image
from scipy import stats

from rankseg_d2._yaml import read_yaml
from rankseg_d2.drawing import beside, dot_chart
from rankseg_d2.engine import end_in_a_sentence
from rankseg_d2.errors import unknown_name
from rankseg_d2.files import write_json

TRAIN = Path(__file__).resolve().parents[1] / "train_net.py"
SETTINGS = "title", "text", "seeds", "keys", "metrics", "runs", "differences"
RUN_SETTINGS = "config", "keys", "weights_of"


def main(args: argparse.Namespace) -> None:
    study = read_study(args.study) | {"known": read(args.known) if args.known else {}}
    seeds = range(args.seeds or study["seeds"])
    names = args.only or list(study["runs"])
    for name in names:
        if name not in study["runs"]:
            raise unknown_name("--only", name, study["runs"])
    output = args.output or Path("output/studies", args.study.stem)
    trained = [name for name in names if "weights_of" not in study["runs"][name]]
    jobs = [(name, seed) for seed in seeds for name in trained]
    failed = []
    if not args.report:
        with ThreadPoolExecutor(args.jobs) as pool:
            done = pool.map(lambda job: run_with_evaluations(study, names, output, *job), jobs)
            failed = [message for messages in done for message in messages]
    found = {
        name: {seed: row for seed in seeds if (row := result_of(study, output, name, seed))}
        for name in names
    }
    found = {name: rows for name, rows in found.items() if rows}
    text = report(study, found)
    sys.stdout.write(text)
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.md").write_text(text)
    if found:
        plot(study, found, output / "report.png")
    write_json(output / "results.json", values_of(study, found), indent=1)
    if failed:
        sys.exit("\n".join(failed))


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("study", type=Path, help="a yaml file")
    parser.add_argument("--seeds", type=int, help="how many; default: the study's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at once")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="some runs, by name")
    parser.add_argument("--output", type=Path, help="default: output/studies/<name of the file>")
    parser.add_argument("--known", type=Path, help="results.json of the same study")
    parser.add_argument("--report", action="store_true", help="train nothing more")
    return parser.parse_args()


def read_study(path: Path) -> dict[str, Any]:
    study = {"text": "", "keys": {}, "differences": []} | read_yaml(path)
    for name in study:
        if name not in SETTINGS:
            raise unknown_name(f"{path}: setting", name, SETTINGS)
    for missing in {"title", "seeds", "metrics", "runs"} - set(study):
        raise ValueError(f"{path}: the setting {missing} is missing.")
    for name, run in study["runs"].items():
        for key in run:
            if key not in RUN_SETTINGS:
                raise unknown_name(f"{path}: run {name}", key, RUN_SETTINGS)
        source = run.get("weights_of")
        if ("config" in run) == (source is not None):
            raise ValueError(f"{path}: run {name} needs either config or weights_of.")
        if source is not None and "config" not in study["runs"].get(source, {}):
            raise unknown_name(f"{path}: run {name}: weights_of", source, study["runs"])
    for pair in study["differences"]:
        for name in pair:
            if name not in study["runs"]:
                raise unknown_name(f"{path}: differences", name, study["runs"])
    return study


# ------------------------------------------------------------------------------- trainings


def run_with_evaluations(
    study: dict, names: Sequence[str], output: Path, name: str, seed: int
) -> list[str]:
    """Train a run, and evaluate the runs that share its weights; returns what failed."""
    dependent = [other for other in names if study["runs"][other].get("weights_of") == name]
    missing = [each for each in (name, *dependent) if not result_of(study, output, each, seed)]
    if missing and not (folder_of(output, name, seed) / "model_final.pth").is_file():
        missing = list(dict.fromkeys([name, *missing]))
    for each in missing:
        folder, options = folder_of(output, each, seed), options_of(study, output, each, seed)
        start_or_go_on(folder, options)
        sys.stderr.write(f"{each}, seed {seed}: {folder}\n")
        words = [sys.executable, str(TRAIN), *options]
        with open(folder / "output.txt", "a") as log:
            code = subprocess.run(words, env=environment(), stdout=log, stderr=log).returncode
        if code:
            last = (folder / "output.txt").read_text().strip().splitlines()[-1:]
            return [f"{each}, seed {seed}, failed: {' '.join(last)} ({folder / 'output.txt'})"]
        write_json(folder / "result.json", metrics_of(folder), indent=1)
    return []


def start_or_go_on(folder: Path, options: list[str]) -> None:
    """Make the folder of a run; what other options left there is removed."""
    file = folder / "options.json"
    if not (file.is_file() and read(file) == options):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(file, options)


def folder_of(output: Path, name: str, seed: int) -> Path:
    plain = "".join(c if c.isalnum() else "_" for c in name)
    return output / f"{plain}_{seed}"


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TRAIN.parent), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path.rstrip(os.pathsep)}


def options_of(study: dict, output: Path, name: str, seed: int) -> list[str]:
    """The options of train_net.py by which a run is trained, or evaluated."""
    keys = {"SEED": seed, "OUTPUT_DIR": str(folder_of(output, name, seed))}
    source = study["runs"][name].get("weights_of")
    if source is not None:
        keys["MODEL.WEIGHTS"] = str(folder_of(output, source, seed) / "model_final.pth")
    return setting_of(study, name) + [str(word) for pair in keys.items() for word in pair]


def setting_of(study: dict, name: str) -> list[str]:
    """The options that all seeds of a run have."""
    run = study["runs"][name]
    source = run.get("weights_of")
    trained = run if source is None else study["runs"][source]
    keys = study["keys"] | trained.get("keys", {}) | run.get("keys", {})
    words = ["--config-file", trained["config"], "--resume" if source is None else "--eval-only"]
    return words + [str(word) for pair in keys.items() for word in pair]


def result_of(study: dict, output: Path, name: str, seed: int) -> dict[str, float] | None:
    """The metrics of a run that is done, or known, with the options of now."""
    folder = folder_of(output, name, seed)
    if (folder / "result.json").is_file():
        same = read(folder / "options.json") == options_of(study, output, name, seed)
        return read(folder / "result.json") if same else None
    known = study["known"].get(name, {})
    if known.get("setting") != setting_of(study, name) or seed not in known["seeds"]:
        return None
    number = known["seeds"].index(seed)
    return {metric: values[number] for metric, values in known["values"].items()}


def metrics_of(folder: Path) -> dict[str, float]:
    """All metrics of an evaluation by "task/metric", recall@<k> for all k, and seconds per step."""
    ((dataset, results),) = read(folder / "evaluation.json")["results"].items()
    found = {f"{task}/{name}": v for task, own in results.items() for name, v in own.items()}
    ranks = folder / "inference" / dataset / "multilabel_ranks.json"
    if ranks.is_file():
        found |= {f"recall@{row['rank']}": row["recall"] for row in read(ranks)["rows"]}
    if (folder / "metrics.json").is_file():
        lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
        times = [line["time"] for line in lines if "time" in line]
        if times:
            found["seconds per step"] = statistics.median(times)
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# ------------------------------------------------------------------------------- statistics


def report(study: dict, found: dict[str, dict[int, dict]]) -> str:
    """A table of the runs, and one of the differences, in Markdown."""
    columns = study["metrics"]
    torch.set_num_threads(1)  # as each training has, which the heading says
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        write_heading(study["title"], study["text"])
        sys.stdout.write("Mean ± standard error over seeds.\n\n")
        write_table(["", *columns, "seeds"], rows_of_runs(columns, found))
        pairs = [pair for pair in study["differences"] if all(name in found for name in pair)]
        if pairs:
            sys.stdout.write("\nDifferences, by seed: mean ± standard error (paired t).\n\n")
            write_table(["", *columns, "seeds"], rows_of_pairs(columns, found, pairs))
    return text.getvalue()


def plot(study: dict, found: dict[str, dict[int, dict]], path: Path) -> None:
    """A picture of the first two metrics: each seed, and mean ± standard error of each run."""
    charts = [
        dot_chart(
            {name: [row.get(metric, nan) for row in rows.values()] for name, rows in found.items()},
            title,
        )
        for title, metric in list(study["metrics"].items())[:2]
    ]
    Image.fromarray(functools.reduce(beside, charts)).save(path)


def values_of(study: dict, found: dict[str, dict[int, dict]]) -> dict[str, dict[str, Any]]:
    """run -> its options, its seeds, and the values of each metric, one for each seed."""
    return {
        name: {
            "setting": setting_of(study, name),
            "seeds": list(rows),
            "values": {
                metric: values
                for metric in study["metrics"].values()
                if None not in (values := [row.get(metric) for row in rows.values()])
            },
        }
        for name, rows in found.items()
    }


def rows_of_runs(columns: dict, found: dict) -> Iterator[list[str]]:
    for name, rows in found.items():
        values = [[row.get(metric) for row in rows.values()] for metric in columns.values()]
        yield [name, *(cell(each, mean_and_error) for each in values), str(len(rows))]


def rows_of_pairs(columns: dict, found: dict, pairs: list) -> Iterator[list[str]]:
    for one, other in pairs:
        seeds = sorted(found[one].keys() & found[other].keys())
        values = [
            [difference(found[one][seed].get(metric), found[other][seed].get(metric))
             for seed in seeds]
            for metric in columns.values()
        ]  # fmt: skip
        cells = [cell(each, mean_error_and_t) for each in values]
        yield [f"{one} - {other}", *cells, str(len(seeds))]


def difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def cell(values: list, write: Callable[[list[float]], str]) -> str:
    return "-" if None in values or not values else write(values)


def mean_and_error(values: list[float]) -> str:
    mean, error = spread(values)
    return f"{mean:.2f}" + ("" if error is None else f" ± {error:.2f}")


def mean_error_and_t(values: list[float]) -> str:
    mean, error = spread(values)
    if error is None:
        return f"{mean:+.2f}"
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    p = 2 * stats.t.sf(abs(t), len(values) - 1)
    return f"{mean:+.2f} ± {error:.2f} (t {t:.1f}, p {p:.1g})"


def spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and its standard error, None for a single value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.mean(values), error


if __name__ == "__main__":
    arguments = parse()
    end_in_a_sentence("study.py", lambda: main(arguments))
