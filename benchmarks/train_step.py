"""Time of a training step with RankSeg and without, in turn, on batches of the config's data.

    python benchmarks/train_step.py shapes/panoptic/lite0_rankseg [CONFIG ...] [--repeats 15]
        [--threads 1] [--set MODEL.RANKSEG.TOPK_SCHEDULE=[]]

The baseline is the same config without `_rankseg`. Both see the same batches, in one process. Times
are of the processor, over all threads, so that other work on the machine counts little.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from common import make_parser, ratios, time_in_turn, write_heading, write_table
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from rankseg_d2 import build_model, get_config
from rankseg_d2.engine import Trainer, end_in_a_sentence

BATCHES = 8


def make_step(cfg: CfgNode, batches: list[list[dict]]) -> Callable[[int], None]:
    """A function that trains on the batch of a round."""
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = Trainer.build_optimizer(cfg, model)

    def step(number: int) -> None:
        losses = model(batches[number % len(batches)])
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()

    return step


def time_pair(name: str, keys: list[str], repeats: int) -> tuple[list[float], list[float], CfgNode]:
    """Processor seconds without and with RankSeg, and the config of the latter."""
    ranked = get_config(name, keys)
    plain = get_config(name.removesuffix("_rankseg"), keys)
    loader = iter(Trainer.build_train_loader(ranked))
    batches = [next(loader) for _ in range(BATCHES)]
    ways = {key: make_step(cfg, batches) for key, cfg in (("plain", plain), ("ranked", ranked))}
    with EventStorage(10**9):  # after the last iteration of any schedule
        seconds, _ = time_in_turn(
            ways, repeats, arguments=lambda number: (number,), clock=time.process_time, warm_up=True
        )
    return seconds["plain"], seconds["ranked"], ranked


def rows(names: list[str], keys: list[str], repeats: int) -> Iterator[list[str]]:
    for name in names:
        plain, ranked, cfg = time_pair(name, keys, repeats)
        low, middle, high = statistics.quantiles(ratios(ranked, plain), n=4)
        yield [
            f"`{name}`",
            str(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),
            str(cfg.MODEL.RANKSEG.TOPK),
            f"{statistics.median(plain):.3f}",
            f"{statistics.median(ranked):.3f}",
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
        ]


def main() -> None:
    parser = make_parser(__doc__, repeats=15)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="with a ranking")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other keys")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    keys = [word for pair in args.set for word in pair.split("=", 1)]
    write_heading(
        "Training step with RankSeg",
        f"""κ at the end of its schedule; processor seconds of a step, data not counted, medians of
        {args.repeats} rounds in turn; the ratio's median, and its quartiles.""",
    )
    heads = ["config", "categories", "κ", "without", "with RankSeg", "with / without"]
    write_table(heads, rows(args.configs, keys, args.repeats))


if __name__ == "__main__":
    end_in_a_sentence(os.path.basename(__file__), main)
