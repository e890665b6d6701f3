"""What RankSeg adds to the time of a model: Mask2Former R50 with and without it, on one image.

    python benchmarks/rankseg_latency.py [--pairs 21]

Both models have the same weights, as far as they share them, and run in turn in one process; every
other pair runs in the opposite order.
"""

import rankseg_d2.modeling  # noqa: F401  (first: it makes `import detectron2` work anywhere)

# isort: split
import argparse
import logging
import os
import platform
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from rankseg_d2.config import add_rankseg_config

CLASSES, KAPPA, SIZE, THREADS = 150, 50, 512, 2

MASK2FORMER = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 6,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.MASK_FORMER.DEC_LAYERS": 10,
}
RANKSEG = {
    "MODEL.RANKSEG.FLAG": True,
    "MODEL.RANKSEG.TOPK": KAPPA,
    "MODEL.RANKSEG.LOSS_WEIGHT": 10,
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True,
}


def make_model(keys):
    torch.manual_seed(0)
    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.merge_from_list([word for item in keys.items() for word in item])
    return build_model(cfg).eval()


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def time_pairs(functions, pairs):
    """Seconds of each of two functions, in turn."""
    found = [[], []]
    for function in functions:
        function()  # warm up
    for i in range(pairs):
        for which in (0, 1) if i % 2 else (1, 0):
            found[which].append(seconds(functions[which]))
    return found


def row(name, plain, ranked, whole=None):
    """A line of the table; the difference is given relative to `whole`, by default `plain`."""
    whole = plain if whole is None else whole
    ratios = [100 * (b - a) / c for a, b, c in zip(plain, ranked, whole, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return (
        f"| {name} | {statistics.median(plain) * 1e3:.1f} | {statistics.median(ranked) * 1e3:.1f} "
        f"| {statistics.median(ratios):+.1f} % ({low:+.1f} to {high:+.1f}) |\n"
    )


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=21)
    pairs = parser.parse_args().pairs
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    load = os.getloadavg()[0]  # other work on the machine, before ours

    models = plain, ranked = make_model(MASK2FORMER), make_model(MASK2FORMER | RANKSEG)
    ranked.load_state_dict(plain.state_dict(), strict=False)
    image = torch.randint(256, (3, SIZE, SIZE), dtype=torch.uint8)
    frames = plain.preprocess([{"image": image}]).tensor
    outputs = [model.sem_seg_head(model.backbone(frames)) for model in models]

    whole = time_pairs([partial(model, [{"image": image}]) for model in models], pairs)
    network = time_pairs([partial(model.predict, frames) for model in models], pairs)
    decide = time_pairs(
        [partial(m.decide, some) for m, some in zip(models, outputs, strict=True)], pairs
    )
    sys.stdout.write(
        f"""# Latency of RankSeg

Mask2Former R50, {SIZE} x {SIZE}, batch 1, {CLASSES} categories, κ = {KAPPA}, float32, semantic.
{processor()}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}, Python \
{platform.python_version()}, medians of {pairs} pairs in turn
(in brackets, the quartiles of the pairs); load average {load:.1f} from other work before the start.

| milliseconds | without | with RankSeg | RankSeg adds, median of pairs |
|---|---|---|---|
"""
        + row("whole forward, image to label map", *whole)
        + row("network, image to class logits and masks", *network)
        + row("of this, ranking and class logits", *decide, network[0])
    )


if __name__ == "__main__":
    main()
