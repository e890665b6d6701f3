"""Baseline, RankSeg and oracle on the built-in data set shapes, over seeds: are they in order?

    python benchmarks/rankseg_vs_baseline.py                              # 3 seeds, 9 trainings
    python benchmarks/rankseg_vs_baseline.py --seeds 1 --iterations 300   # a quick look
    python benchmarks/rankseg_vs_baseline.py --categories 1000 MODEL.RANKSEG.LOSS_WEIGHT 5

Started again, it goes on where it was interrupted; another --output, or other options, start anew.
The results go to standard output as a table, and to OUTPUT/results.json.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common import make_parser, write_heading, write_table
from detectron2.data import DatasetCatalog
from detectron2.utils.env import seed_all_rng

from rankseg_d2.config import get_config
from rankseg_d2.engine import Trainer
from rankseg_d2.files import write_json

MODELS = {
    "baseline": "shapes/panoptic/r10t",
    "RankSeg": "shapes/panoptic/r10t_rankseg",
    "oracle": "shapes/panoptic/r10t_rankseg_gt",
}
METRICS = {
    "mIoU": "sem_seg/mIoU",
    "PQ": "panoptic_seg/PQ",
    "multi-label mAP": "multilabel/mAP",
    "recall@κ": "multilabel/recall@k",
}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of each model")
    parser.add_argument("--iterations", type=int, help="of each training; default: the config's")
    parser.add_argument("--categories", type=int, default=100, help="10 to 2000")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--output", type=Path, default=Path("output/rankseg_vs_baseline"))
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys: KEY VALUE pairs")
    args = parser.parse_args()
    runs = {
        (model, seed): options(args, seed) for seed in range(args.seeds) for model in args.models
    }
    results = {}
    for (model, seed), opts in runs.items():
        folder = args.output / f"{model}_{seed}"
        sys.stderr.write(f"{model}, seed {seed}: {folder}\n")
        results[model, seed] = result_of(MODELS[model], opts, folder)
    write_report(args, results)
    table = [{"model": model, "seed": seed, **row} for (model, seed), row in results.items()]
    write_json(args.output / "results.json", table, indent=1)


def options(args, seed: int) -> list:
    opts = ["SEED", seed]
    if args.categories != 100:
        names = [f"('shapes{args.categories}_panoptic_{split}',)" for split in ("train", "val")]
        opts += ["DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1]]
    if args.iterations:
        opts += ["SOLVER.MAX_ITER", args.iterations]
    return [*opts, *args.opts]


def result_of(config: str, opts: list, folder: Path) -> dict:
    """The metrics of one training; of an earlier one, if it had the same options."""
    done = folder / "result.json"
    words = [str(word) for word in opts]
    if done.is_file():
        earlier = json.loads(done.read_text())
        if earlier.pop("options") == words:
            return earlier
    cfg = get_config(config, [*opts, "OUTPUT_DIR", str(folder)])
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        DatasetCatalog.get(name)  # drawn now, if it is absent: no part of the time
    seed_all_rng(cfg.SEED)
    start = time.perf_counter()
    Trainer(cfg).train()
    found = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()][-1]
    row = {name: found.get(metric) for name, metric in METRICS.items()}
    row |= {"minutes": (time.perf_counter() - start) / 60, "κ": cfg.MODEL.RANKSEG.TOPK}
    row |= {"iterations": cfg.SOLVER.MAX_ITER, "batch": cfg.SOLVER.IMS_PER_BATCH}
    write_json(done, {"options": words, **row}, indent=1)
    return row


def write_report(args, results: dict) -> None:
    first = next(iter(results.values()))
    topk = next((row["κ"] for row in results.values() if row["κ"]), 0)
    write_heading(
        "RankSeg against its baseline and the oracle",
        f"""shapes with {args.categories} categories, κ = {topk}, {first["iterations"]} iterations
        of {first["batch"]} images, {args.seeds} seeds, mean ± standard deviation. Options:
        {" ".join(args.opts) or "none"}.""",
    )
    write_table(["", *METRICS, "minutes"], table_rows(args, results))


def table_rows(args, results: dict) -> Iterator[list[str]]:
    for model in args.models:
        rows = [row for (name, _), row in results.items() if name == model]
        yield [model, *(spread([row[metric] for row in rows]) for metric in (*METRICS, "minutes"))]
    baseline = args.models[0]
    for model in args.models[1:]:
        cells = [
            spread([
                results[model, seed][metric] - results[baseline, seed][metric]
                for seed in range(args.seeds)
            ], "+")
            for metric in ("mIoU", "PQ")
        ]  # fmt: skip
        empty = ["-"] * (len(METRICS) - len(cells) + 1)
        yield [f"{model} - {baseline}, by seed", *cells, *empty]


def spread(values: list, sign: str = "") -> str:
    """Mean ± sample standard deviation."""
    if None in values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
