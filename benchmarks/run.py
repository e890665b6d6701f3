"""Run the benchmarks that this machine can, and keep their results in one table, RESULTS.md.

    python benchmarks/run.py [--only WORD ...] [--again]
    python benchmarks/run.py --device cuda

Each part is a script of its own, which ends within 8 minutes or is ended. A part that has been
measured here at this commit is not measured again, so that an interrupted run goes on: `--again`
does it anyway. Reports go to output/benchmarks; results.json and RESULTS.md, beside this script,
keep the last result of each part, those of other machines too, and are meant to be committed.

With `--device cuda` the parts for a GPU are run: the op is built, its tests run, then the
benchmarks. A checkout of Mask2Former, for the comparison with its authors' code, is named by the
variable MASK2FORMER: `make bench MASK2FORMER=path/to/Mask2Former`.
"""

import argparse
import datetime
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from common import make_parser, processor

import rankseg_d2
from rankseg_d2.files import read_json, write_bytes, write_json

HERE = Path(__file__).resolve().parent
LIMIT = 480  # seconds of a part
NOT_MEASURED = "not measured"
REFERENCE = "MASK2FORMER"  # the variable that names a checkout; in a part's words its value


@dataclass(frozen=True)
class Part:
    """A command, and where its report has the result."""

    name: str
    what: str  # what is compared with what
    words: tuple[str, ...]  # behind python
    columns: tuple[str, ...] = ()  # their heads begin so; none: the last line of the report
    rows: str = ""  # rows whose labels have this
    labels: tuple[str, ...] = ()  # heads of the columns that name a row; by default the first
    needs: tuple[str, ...] = ()  # packages
    device: str = "cpu"


def _script(name: str, *options: str) -> tuple[str, ...]:
    return (str(HERE / f"{name}.py"), *options)


PARTS = (
    Part("inference", "Mask2Former Swin-T, image to label map: times as fast as transformers",
         _script("inference", "--repeats", "7"),
         ("times faster", "with RankSeg", "than compiled", "in bfloat16"),
         needs=("transformers",)),
    Part("pixel inference", "pixel classifiers, image to label map: times as fast as the peer",
         _script("pixel_inference"), ("times faster",), labels=("model", "compared with"),
         needs=("transformers",)),
    Part("training step", "small Mask2Former, 100 categories: RankSeg's step over the baseline's",
         _script("train_step", "shapes/panoptic/lite0_rankseg", "stickers/panoptic/lite0_rankseg"),
         ("with / without",)),
    Part("training step, reference", "Mask2Former R50, batch 2: times as fast as its authors' code",
         _script("train_step", "--reference", REFERENCE, "--threads", "2", "--repeats", "5"),
         ("times faster", "RankSeg"), needs=("detectron2",)),
    Part("pixel training", "Segmenter ViT-S, 1,284 categories: RankSeg's step against the baseline",
         _script("pixel_training", "--repeats", "3"), ("times as fast",), "RankSeg"),
    Part("latency", "Mask2Former R50, 150 categories: what RankSeg adds to an image",
         _script("rankseg_latency", "--repeats", "11"), ("RankSeg adds",)),
    Part("large vocabularies", "Mask2Former R50 with RankSeg: 10,000 categories over 150",
         _script("large_vocabulary", "--repeats", "3"), ("10,000 / 150",)),
    Part("semantic results", "1,284 categories: the best 100 over all, the simple way",
         _script("semantic_inference"), ("of the time",), "the best", ("input", "output", "way")),
    Part("attention", "deformable attention: times as fast as PyTorch's grid_sample",
         _script("ms_deform_attn"), ("times faster than reference",),
         labels=("image", "dtype", "points", "pass")),
    Part("criterion", "matcher and losses: times as fast as a call per layer and image",
         _script("criterion"), ("seconds",), "times faster"),
    Part("mapper", "COCO panoptic with jitter to 1024: times as fast as the simple way",
         _script("mapper"), ("times as fast as the simple way",)),
    Part("folder", "Predictor on a folder of files: share of the bare model's speed",
         _script("predict"), ("share of the bare",)),
    Part("memory of videos", "whole videos in windows: memory over that of 50 frames",
         _script("video_memory"), ("ratio",), "windows", ("way", "frames")),
    Part("memory of inference", "windows, scales, one clip: MiB above the model",
         _script("inference_memory"), ("peak above the model",)),
    Part("export", "the network in onnxruntime: times as fast as our eager",
         _script("export"), ("times as fast",), needs=("onnxruntime",)),
    Part("overlays", "drawing 1080p results: times as fast as detectron2's Visualizer",
         _script("overlay"), ("times faster",), needs=("detectron2", "matplotlib")),
    Part("panoptic evaluation", "PQ: times as fast as detectron2 with panopticapi",
         _script("panoptic_evaluation"), ("all",), "times faster",
         needs=("detectron2", "panopticapi")),
    Part("semantic evaluation", "mIoU: times as fast as detectron2's SemSegEvaluator",
         _script("semantic_evaluation"), ("times faster",), needs=("detectron2",)),
    Part("video consistency", "VSPW's VC8 and VC16: times as fast as the plain way",
         _script("vspw_evaluation"), ("times faster",)),
    Part("build", "the op for this GPU",
         ("-m", "pip", "install", "--no-build-isolation", "--no-deps", "-e", str(HERE.parent)),
         device="cuda"),
    Part("tests", "tests that need a GPU",
         ("-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", str(HERE.parent / "tests")),
         device="cuda"),
    Part("attention, GPU", "deformable attention: times as fast as PyTorch's grid_sample",
         _script("ms_deform_attn", "--device", "cuda"), ("times faster than reference",),
         labels=("image", "batch", "dtype", "points", "pass"), device="cuda"),
    Part("criterion, GPU", "matcher and losses: times as fast as a call per layer and image",
         _script("criterion", "--device", "cuda"), ("seconds",), "times faster", device="cuda"),
    Part("inference, GPU", "Mask2Former Swin-T, image to label map: times as fast as transformers",
         _script("inference", "--device", "cuda", "--compile"),
         ("times faster", "with RankSeg", "than compiled", "in bfloat16"),
         needs=("transformers",), device="cuda"),
    Part("training step, GPU", "small Mask2Former: RankSeg's step over the baseline's",
         _script("train_step", "shapes/panoptic/lite0_rankseg", "--set", "MODEL.DEVICE=cuda"),
         ("with / without",), device="cuda"),
    Part("training step, reference, GPU",
         "Mask2Former R50, batch 16: times as fast as its authors' code",
         _script("train_step", "--reference", REFERENCE, "--device", "cuda", "--amp",
                 "--batch", "16", "--sizes", "1024", "--repeats", "7"),
         ("times faster", "RankSeg / plain", "rankseg_d2 / reference"), needs=("detectron2",),
         device="cuda"),
)  # fmt: skip


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="of the names")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--again", action="store_true", help="measure what is measured, too")
    parser.add_argument("--output", type=Path, default=HERE, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("run.py: there is no GPU that PyTorch could use; without --device it is the CPU")
    chosen = [
        part
        for part in PARTS
        if part.device == args.device and any(word in part.name for word in args.only)
    ]
    if not chosen:
        sys.exit(f"run.py: no part has one of these in its name: {' '.join(args.only)}")
    file = args.output / "results.json"
    results = read_json(file) if file.is_file() else {}
    failed = []
    for part in chosen:
        if (reason := missing(part)) is not None:
            results.setdefault(part.name, {"result": f"{NOT_MEASURED}: {reason}"})
        elif args.again or not is_measured(results.get(part.name, {}), args.device):
            sys.stderr.write(f"{part.name} …\n")
            try:
                results[part.name] = measure(part)
            except RuntimeError as error:
                failed.append(str(error))
        write_json(file, results, indent=1)
        write_bytes(args.output / "RESULTS.md", page(results).encode())
    for line in failed:
        sys.stderr.write(f"{line}\n")
    return bool(failed)


def missing(part: Part) -> str | None:
    """Why a part cannot be measured here, None if it can."""
    if REFERENCE in part.words and not os.environ.get(REFERENCE):
        return f"{REFERENCE} names no checkout of Mask2Former"
    for package in part.needs:
        if package == "detectron2" and rankseg_d2.engine_name() != "detectron2":
            return "detectron2 is only embedded here"
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return None


def is_measured(found: dict, device: str) -> bool:
    return found.get("commit") == commit() and found.get("machine") == machine(device)


def commit() -> str:
    """The commit of the source; "" outside of a repository."""
    words = ["git", "-C", str(HERE), "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def machine(device: str) -> str:
    cores = "" if device == "cuda" else f", {os.cpu_count()} cores"
    return f"{processor(device)}{cores}, PyTorch {torch.__version__}"


def measure(part: Part) -> dict[str, str]:
    """Run a part, keep its report, and return its entry; RuntimeError says why there is none."""
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
    words = [os.environ[REFERENCE] if word == REFERENCE else word for word in part.words]
    words = [sys.executable, *words]
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{part.name}: ended after {LIMIT // 60} minutes") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or done.stdout.strip().splitlines()[-1:]
        raise RuntimeError(f"{part.name}: {' '.join(last)}")
    folder = Path("output/benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part.name.replace(', ', '_').replace(' ', '_')}.md").write_text(done.stdout)
    return {
        "result": headline(part, done.stdout),
        "date": datetime.date.today().isoformat(),
        "machine": machine(part.device),
        "commit": commit(),
    }


def headline(part: Part, report: str) -> str:
    """What the report's tables say: `label: value`, without the spread in brackets."""
    if not part.columns:
        return report.strip().splitlines()[-1].strip("= ")
    found = []
    for heads, *rows in tables(report):
        starts = [[head.startswith(column) for head in heads] for column in part.columns]
        places = [start.index(True) for start in starts if True in start]
        if not places:
            continue
        named = [i for i, head in enumerate(heads) if head in part.labels] or [0]
        for row in rows:
            label = " ".join(row[i] for i in named)
            first, *others = ((heads[i], re.sub(r" \(.*?\)", "", row[i])) for i in places)
            value = ", ".join([first[1], *(f"{number} {head}" for head, number in others)])
            if part.rows in label and value:
                found.append((label, value))
    if not found:
        raise RuntimeError(f"{part.name}: the report has no column {part.columns[0]!r}")
    if len(found) == 1:
        return found[0][1]
    return "; ".join(f"{label}: {value}" for label, value in found)


def tables(report: str) -> Iterator[list[list[str]]]:
    """The tables of a report in Markdown: rows of cells, the heads first."""
    rows: list[list[str]] = []
    for line in (*report.splitlines(), ""):
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if set(line) - set("|-: "):
                rows.append(cells)
        elif rows:
            yield rows
            rows = []


def page(results: dict[str, dict[str, str]]) -> str:
    """RESULTS.md: a line for each part, measured or not."""
    lines = [
        "# Results of the benchmarks",
        "",
        "The last result of each part of `make bench` and, with a GPU, `make gpu`. Medians of runs",
        "in turn with the peer; the reports beside this file have their spread and conditions.",
        "",
        "| part | what | result | date | machine |",
        "|---|---|---|---|---|",
    ]
    for part in PARTS:
        found = {"result": NOT_MEASURED, "date": "", "machine": ""} | results.get(part.name, {})
        cells = [part.name, part.what, found["result"], found["date"], found["machine"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
