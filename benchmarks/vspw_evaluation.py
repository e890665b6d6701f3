"""Time of VSPW's video consistency, against its public script.

    python benchmarks/vspw_evaluation.py [--script VC_perclip.py] [--frames 60] [--repeats 5]

The script is github.com/VSPW-dataset/VSPW_baseline's; of it `get_common` is run, on maps in memory,
once for VC8 and once for VC16; `whole_clips`, below, does the same with less waste. Ours computes
both, and the corrected kind of both, on the same maps frame by frame, in turn. VC8 and VC16 must be
equal to 1e-12. Seconds are of CPU time, on one thread.
"""

import argparse
import ast
import os
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from semantic_evaluation import processor

from rankseg_d2.evaluation.video_consistency import Consistency

HEIGHT, WIDTH, CLIPS = 480, 853, (8, 16)


def make_video(frames):
    """Values as in VSPW's files, and labels near them, which flicker."""
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(2, 15, 30, 12)).astype(np.float32)
    enlarge = [cv2.resize(one, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for one in fields]
    values, labels = [], []
    for frame in range(frames):
        moved = np.roll(enlarge[0], frame // 2, 1)
        values.append(moved.argmax(2).astype(np.uint8))  # 0 is void
        noisy = moved + 0.2 * np.roll(enlarge[1], 7 * (frame % 3), 1)
        labels.append((noisy[..., 1:].argmax(2)).astype(np.uint8))
    classes = [np.where(one > 0, one - 1, 255).astype(np.uint8) for one in values]
    return values, classes, labels


def whole_clips(values, labels, length, height, width):
    """The plain way: each clip compares all of its frames with its first one."""
    shares = []
    for start in range(len(values) - length):
        steady, steadily_labelled = np.ones((height, width), bool), np.ones((height, width), bool)
        for frame in range(start + 1, start + length):
            steady &= values[frame] == values[start]
            steadily_labelled &= labels[frame] == labels[start]
        shares.append((steady & steadily_labelled).sum() / steady.sum())
    return shares


def load_script(path):
    """The script's function; the script itself would start to read files."""
    tree = ast.parse(Path(path).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", "") == "get_common"]
    names = {"np": np}
    exec(compile(tree, path, "exec"), names)
    return names["get_common"]


def ours(values, classes, labels):
    consistency = Consistency(CLIPS, ignore=255)
    for maps in zip(values, classes, labels, strict=True):
        consistency.add(*maps)
    return consistency.totals()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--script", help="VC_perclip.py of VSPW_baseline")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    peers = {"the plain way, whole clips": whole_clips}
    if args.script:
        peers = {"public script": load_script(args.script)} | peers
    values, classes, labels = make_video(args.frames)
    seconds = {name: [] for name in (*peers, "rankseg_d2")}
    for _ in range(args.repeats):
        start = time.process_time()
        totals = ours(values, classes, labels)
        seconds["rankseg_d2"].append(time.process_time() - start)
        for name, peer in peers.items():
            start = time.process_time()
            shares = {n: peer(values, labels, n, HEIGHT, WIDTH) for n in CLIPS}
            seconds[name].append(time.process_time() - start)
            for n in CLIPS:
                total, count = totals[f"VC{n}"]
                if not abs(total / count - np.nanmean(shares[n])) < 1e-12:
                    sys.exit(f"VC{n} differs: {total / count} and {np.nanmean(shares[n])}")
    rows = [("rankseg_d2", "VC8, VC16, corrected VC8, VC16")]
    rows = [(name, "VC8, VC16") for name in peers] + rows
    table = "\n".join(
        f"| {name} | {what} | {1000 * statistics.median(seconds[name]) / args.frames:.2f} |"
        for name, what in rows
    )
    ratios = "\n".join(
        f"| {name} | {ratio_text(seconds[name], seconds['rankseg_d2'])} |" for name in peers
    )
    sys.stdout.write(
        f"""# VSPW's video consistency

One video of {args.frames} frames of {WIDTH} x {HEIGHT}, labels of 8 bits in memory; CPU time on one
thread, median of {args.repeats}, in turn; VC8 and VC16 are equal to 1e-12.
{processor()}, NumPy {np.__version__}, Python {sys.version.split()[0]}; load average \
{os.getloadavg()[0]:.1f}.

| | computes | milliseconds per frame |
|---|---|---|
{table}

| times faster than, median of pairs (lowest, highest) | |
|---|---|
{ratios}
"""
    )


def ratio_text(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})"


if __name__ == "__main__":
    main()
