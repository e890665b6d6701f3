"""What RankSeg adds to the time of a model: Mask2Former R50 with and without it, on one image.

    python benchmarks/rankseg_latency.py [--repeats 21]

Both models have the same weights, as far as they share them, and run in turn in one process.
"""

import logging
import statistics
from dataclasses import replace
from functools import partial

import torch
from common import make_model, make_parser, time_in_turn, write_heading, write_table

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


def build(keys):
    torch.manual_seed(0)
    return make_model(keys)


def decide(model, outputs):
    """Class logits of the network's predictions; with RankSeg categories are scored and ranked."""
    if model.ranks:
        outputs = replace(outputs, scores=model.score(outputs))
    return model.decide(outputs)


def time_pairs(function, models, inputs, repeats):
    """Seconds without and with RankSeg."""
    runs = [partial(function, model, some) for model, some in zip(models, inputs, strict=True)]
    runs = dict(zip(("without", "with"), runs, strict=True))
    return time_in_turn(runs, repeats, warm_up=True)[0].values()


def row(name, plain, ranked, whole=None):
    """A line of the table; the difference is given relative to `whole`, by default `plain`."""
    whole = plain if whole is None else whole
    shares = [100 * (b - a) / c for a, b, c in zip(plain, ranked, whole, strict=True)]
    low, middle, high = statistics.quantiles(shares, n=4)
    medians = [f"{statistics.median(seconds) * 1e3:.1f}" for seconds in (plain, ranked)]
    return [name, *medians, f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"]


@torch.no_grad()
def main():
    repeats = make_parser(__doc__, repeats=21).parse_args().repeats
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)

    models = plain, ranked = build(MASK2FORMER), build(MASK2FORMER | RANKSEG)
    ranked.load_state_dict(plain.state_dict(), strict=False)
    samples = [{"image": torch.randint(256, (3, SIZE, SIZE), dtype=torch.uint8)}]
    clips = plain.preprocess(samples)
    outputs = [model.run_network(clips) for model in models]

    whole = time_pairs(lambda model, samples: model(samples), models, [samples] * 2, repeats)
    network = time_pairs(
        lambda model, clips: model.decide(model.run_network(clips)), models, [clips] * 2, repeats
    )
    decided = time_pairs(decide, models, outputs, repeats)
    write_heading(
        "Latency of RankSeg",
        f"""Mask2Former R50, {SIZE} x {SIZE}, batch 1, {CLASSES} categories, κ = {KAPPA}, float32,
        semantic; medians of {repeats} pairs in turn (in brackets, the quartiles of the pairs).""",
    )
    write_table(
        ["milliseconds", "without", "with RankSeg", "RankSeg adds, median of pairs"],
        [
            row("whole forward, image to label map", *whole),
            row("network, image to class logits and masks", *network),
            row("of this, ranking and class logits", *decided, list(network)[0]),
        ],
    )


if __name__ == "__main__":
    main()
