"""Time and peak memory of semantic results with a ranking, against computing all categories.

    python benchmarks/semantic_inference.py [--repeats 5]

Times: all ways in turn in one process, on the same predictions. Memory: each way once in a process
of its own, how far its peak rises above what was there before the call; inputs are not counted.
"""

import statistics
from functools import partial

import torch
import torch.nn.functional as F
from common import (
    in_own_process,
    make_parser,
    peak_mib,
    ratios,
    resident_mib,
    time_in_turn,
    write,
    write_heading,
    write_table,
)

from rankseg_d2.modeling.results import ResultOptions, Sizes, mask_result
from rankseg_d2.ranking import rank, restrict

CLASSES, KAPPA, QUERIES, THREADS = 1284, 100, 100, 2
CASES = [(512, 512, True), (640, 640, True), (512, 640, False)]  # input, output, resize first
WAYS = {
    "plain": "all categories, the simple way",
    "ours": "all categories, rankseg_d2",
    "ranked": f"the best {KAPPA}, rankseg_d2",
    "ours, labels": "all categories, rankseg_d2, the label map alone",
    "ranked, labels": f"the best {KAPPA}, rankseg_d2, the label map alone",
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


def our_result(logits, masks, ranking, size, output, resize_first, with_scores=True):
    sizes = Sizes((size, size), (size, size), (output, output))
    options = ResultOptions(resize_first=resize_first, semantic_scores=with_scores)
    result = mask_result(logits, masks, ranking, sizes, options, is_video=False)
    scores = result.get("sem_seg" if ranking is None else "sem_seg_scores")
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
    ways |= {f"{name}, labels": partial(ways[name], with_scores=False) for name in list(ways)[1:]}
    return ways, partial(plain_result, few, masks, *case)


def largest_difference(case):
    """Of scores, to the simple way with the same columns."""
    ways, plain_few = make_ways(case)
    pairs = (ways["plain"], ways["ours"]), (plain_few, ways["ranked"])
    return max((one()[0] - other()[0]).abs().max().item() for one, other in pairs)


def times(case, repeats):
    """Seconds of each way, all in turn."""
    ways, _ = make_ways(case)
    runs = {name: partial(run, way) for name, way in ways.items()}
    return time_in_turn(runs, repeats, warm_up=True)[0]


def run(way):
    """Nothing, for kept scores would fill the memory."""
    way()


def peak_memory(case, name):
    """MiB by which the process grows while it computes a result."""
    small, _ = make_ways((32, 32, True))
    small[name]()  # what libraries load on first use does not count
    way = make_ways(case)[0][name]
    before = resident_mib()
    way()
    return peak_mib() - before


def table_rows(case, repeats):
    seconds = in_own_process(times, case, repeats)
    peaks = {name: in_own_process(peak_memory, case, name) for name in WAYS}
    size, output, resize_first = case
    for name, title in WAYS.items():
        yield [
            f"{size}²",
            f"{output}²",
            "first" if resize_first else "last",
            title,
            f"{statistics.median(seconds[name]):.3f}",
            f"{peaks[name]:.0f}",
            f"1/{statistics.median(ratios(seconds['plain'], seconds[name])):.1f}",
            f"1/{peaks['plain'] / peaks[name]:.1f}",
        ]


def main():
    repeats = make_parser(__doc__, repeats=5).parse_args().repeats
    torch.set_num_threads(THREADS)  # as in the processes that measure
    write_heading(
        "Semantic results with many categories",
        f"""{CLASSES:,} categories, κ = {KAPPA}, {QUERIES} queries, one image, float32; scores and
        label map; times are medians of {repeats} runs in turn, memory is the peak above the
        inputs.""",
    )
    heads = ["input", "output", "masks resized", "way", "seconds", "peak MiB"]
    heads += ["of the time", "of the memory"]
    write_table(heads, (row for case in CASES for row in table_rows(case, repeats)))
    difference = max(in_own_process(largest_difference, case) for case in CASES)
    write(f"\nLargest difference to the simple way with the same columns: {difference:.1g}.\n")


if __name__ == "__main__":
    main()
