"""Time and peak memory of semantic results with a ranking, against computing all categories.

    python benchmarks/semantic_inference.py [--repeats 5]

Times: all ways in turn in one process, on the same predictions. Memory: each way once in a process
of its own, how far its peak rises above what was there before the call; inputs are not counted.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from rankseg_d2.modeling.results.options import ResultOptions, Shape, image_result
from rankseg_d2.ranking import rank, restrict

CLASSES, KAPPA, QUERIES, THREADS = 1284, 100, 100, 2
CASES = [(512, 512, True), (640, 640, True), (512, 640, False)]  # input, output, resize first
WAYS = {
    "plain": "all categories, the simple way",
    "ours": "all categories, rankseg_d2",
    "ranked": f"the best {KAPPA}, rankseg_d2",
}


def plain_result(logits, masks, size, output, resize_first):
    """Scores and labels, the simple way: enlarge all masks, multiply, argmax."""
    masks = enlarge(masks, size)  # (Q, 1, H, W)
    if resize_first:
        masks = enlarge(masks, output)
    probabilities = logits.softmax(-1)[:, :-1]
    scores = torch.einsum("qc,qhw->chw", probabilities, masks[:, 0].sigmoid())
    if not resize_first:
        scores = enlarge(scores[:, None], output)[:, 0]
    return scores, scores.argmax(0)


def enlarge(maps, size):
    if maps.shape[-1] == size:  # what is not needed, the simple way leaves out as well
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)


def our_result(logits, masks, ranking, size, output, resize_first):
    shape = Shape((size, size), (size, size), (output, output))
    options = ResultOptions(resize_first=resize_first)
    result = image_result(logits, masks, ranking, shape, options)
    scores = result["sem_seg"] if ranking is None else result["sem_seg_scores"]
    return scores, result["sem_seg_labels"]


def make_ways(case):
    """Functions of nothing that return scores and labels, and the simple way with few columns."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    logits = 3 * torch.randn(1, QUERIES, CLASSES + 1)
    masks = enlarge(6 * torch.randn(QUERIES, 1, 16, 16), case[0] // 4)
    ranking = rank(logits[..., :-1].amax(1), KAPPA)
    few = restrict(logits, ranking)[0]
    ways = {
        "plain": partial(plain_result, logits[0], masks, *case),
        "ours": partial(our_result, logits[0], masks, None, *case),
        "ranked": partial(our_result, few, masks, ranking, *case),
    }
    return ways, partial(plain_result, few, masks, *case)


def largest_difference(case):
    """Of scores, to the simple way with the same columns."""
    ways, plain_few = make_ways(case)
    pairs = (ways["plain"], ways["ours"]), (plain_few, ways["ranked"])
    return max((one()[0] - other()[0]).abs().max().item() for one, other in pairs)


def times(case, repeats):
    """Seconds of each way, all in turn."""
    ways, _ = make_ways(case)
    found = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if i:  # the first round warms up
                found[name].append(time.perf_counter() - start)
    return found


def peak_memory(case, name):
    """MiB by which the process grows while it computes a result."""
    small, _ = make_ways((32, 32, True))
    small[name]()  # what libraries load on first use does not count
    way = make_ways(case)[0][name]
    before = resident()
    way()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def resident():
    """MiB of memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    out = sys.stdout
    out.write(
        f"""# Semantic results with many categories

{CLASSES:,} categories, κ = {KAPPA}, {QUERIES} queries, one image, float32; scores and label map.
{processor()}, {THREADS} threads, PyTorch {torch.__version__}, Python {platform.python_version()};
times are medians of {repeats} runs in turn, memory is the peak above the inputs.

| input | output | masks resized | way | seconds | peak MiB | of the time | of the memory |
|---|---|---|---|---|---|---|---|
"""
    )
    difference = 0.0
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case in CASES:
            difference = max(difference, pool.apply(largest_difference, (case,)))
            seconds = pool.apply(times, (case, repeats))
            peaks = {name: pool.apply(peak_memory, (case, name)) for name in WAYS}
            size, output, resize_first = case
            for name, text in WAYS.items():
                pairs = zip(seconds["plain"], seconds[name], strict=True)
                ratio = statistics.median(plain / other for plain, other in pairs)
                out.write(
                    f"| {size}² | {output}² | {'first' if resize_first else 'last'} | {text} "
                    f"| {statistics.median(seconds[name]):.3f} | {peaks[name]:.0f} "
                    f"| 1/{ratio:.1f} | 1/{peaks['plain'] / peaks[name]:.1f} |\n"
                )
    out.write(f"\nLargest difference to the simple way with the same columns: {difference:.1g}.\n")


if __name__ == "__main__":
    main()
