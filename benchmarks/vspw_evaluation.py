"""Time of VSPW's video consistency, against its public script.

    python benchmarks/vspw_evaluation.py [--script VC_perclip.py] [--frames 60] [--repeats 5]

The script is github.com/VSPW-dataset/VSPW_baseline's; of it `get_common` is run, on maps in memory,
once for VC8 and once for VC16; `whole_clips`, below, does the same with less waste. Ours computes
both, and the corrected kind of both, on the same maps frame by frame, in turn. VC8 and VC16 must be
equal to 1e-12. Seconds are of CPU time, on one thread.
"""

import ast
import statistics
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from common import (
    check_equal,
    make_parser,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)

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
        values.append(moved.argmax(2).astype(np.uint8))  # 0 is ignored
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


def load_function(path):
    """The script's function; the script itself would start to read files."""
    tree = ast.parse(Path(path).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", "") == "get_common"]
    names = {"np": np}
    exec(compile(tree, path, "exec"), names)
    return names["get_common"]


def by_peer(peer, values, labels):
    """VC8 and VC16: the mean of the clips' shares."""
    return {f"VC{n}": np.nanmean(peer(values, labels, n, HEIGHT, WIDTH)) for n in CLIPS}


def by_us(values, classes, labels):
    consistency = Consistency(CLIPS, ignore=255)
    for maps in zip(values, classes, labels, strict=True):
        consistency.add(*maps)
    return {name: total / count for name, (total, count) in consistency.totals().items()}


def main():
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--script", help="VC_perclip.py of VSPW_baseline")
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    peers = {"public script": load_function(args.script)} if args.script else {}
    peers["the plain way, whole clips"] = whole_clips
    values, classes, labels = make_video(args.frames)
    runs = {name: partial(by_peer, peer, values, labels) for name, peer in peers.items()}
    runs["rankseg_d2"] = partial(by_us, values, classes, labels)
    seconds, results = time_in_turn(runs, args.repeats, clock=time.process_time)
    for name in peers:
        check_equal(results["rankseg_d2"], results[name], 1e-12)
    write_heading(
        "VSPW's video consistency",
        f"""One video of {args.frames} frames of {WIDTH} x {HEIGHT}, labels of 8 bits in memory; CPU
        time on one thread, median of {args.repeats}, in turn; VC8 and VC16 are equal to 1e-12.""",
        NumPy=np.__version__,
    )
    computed = dict.fromkeys(peers, "VC8, VC16")
    computed["rankseg_d2"] = "VC8, VC16, corrected VC8, VC16"
    write_table(
        ["", "computes", "milliseconds per frame"],
        (
            [name, what, f"{1000 * statistics.median(seconds[name]) / args.frames:.2f}"]
            for name, what in computed.items()
        ),
    )
    write("\n")
    write_table(
        ["than", "times faster, median of pairs (lowest, highest)"],
        ([name, times_faster(seconds[name], seconds["rankseg_d2"])] for name in peers),
    )


if __name__ == "__main__":
    main()
