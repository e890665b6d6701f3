"""Time of Mask2Former against the same model of transformers.

    pip install transformers
    python benchmarks/inference.py [--sizes 384 640 1024] [--repeats 15] [--device cpu] [--compile]
        [--bf16]

Both have the same random weights, written by transformers and read here as `rankseg-d2 convert`
does, and get one uint8 image; both normalise it and end with a label map of its size. Their logits
must agree in float64. Timed eager, in float32, in turn in one process; with `--compile`
transformers' model by torch.compile too, which takes minutes at each size; with `--bf16` ours in
bfloat16 too (MODEL.DTYPE), which the processor must have.
"""

import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import (
    make_parser,
    ratios,
    time_in_turn,
    write,
    write_heading,
    write_table,
)
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn import functional as F

from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import run
from rankseg_d2.predict import Predictor

CLASSES = 150
CONFIG = "ade20k/semantic/swin_t"  # with RankSeg
# Of the logits, over their standard deviation. In float64, because masked attention has a
# threshold: in float32 rounding moves a few cells of random masks across it.
LARGEST_ERROR = 1e-6
CHECKED = 96  # side of the image that is used for it


def make_theirs() -> nn.Module:
    """Mask2Former with Swin-T, of transformers, with random weights."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    config = Mask2FormerConfig(backbone_config=SwinConfig(out_features=stages), num_labels=CLASSES)
    return randomize(Mask2FormerForUniversalSegmentation(config)).eval()


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Random scales and biases too, so that every weight counts, and queries that differ."""
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight.normal_(float(name.endswith("weight")), 0.2)
        elif "queries" in name:
            weight.normal_()
        else:
            weight.normal_(std=(len(weight) / weight.numel()) ** 0.5)
    return model


def make_ours(theirs: nn.Module, device: str) -> nn.Module:
    """Our model with these weights, by way of a folder as users have it."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        file = Path(folder) / "ours.safetensors"
        run(folder, str(file), None, ["MODEL.DEVICE", "cpu"], None)
        return Predictor.from_checkpoint(file, device=device).model


def make_ranked(kappa: int, device: str) -> nn.Module:
    opts = ["MODEL.DEVICE", device, "MODEL.RANKSEG.TOPK", kappa]
    opts += ["MODEL.MASK_FORMER.TEST.SEMANTIC_SCORES", False]  # as a Predictor has it
    return build_model(get_config(f"{CONFIG}_rankseg", opts)).eval()


def predictor_of(theirs: nn.Module, ours: nn.Module, size: int) -> Callable[[Tensor], Tensor]:
    """A function of an image that gives transformers' label map."""
    from transformers import Mask2FormerImageProcessor

    processor = Mask2FormerImageProcessor()
    mean, std = (x.view(1, -1, 1, 1) for x in (ours.pixel_mean, ours.pixel_std))

    def predict(image: Tensor) -> Tensor:
        outputs = theirs(pixel_values=(image[None].to(mean.device) - mean) / std)
        return processor.post_process_semantic_segmentation(outputs, [(size, size)])[0]

    return predict


def labels_of(model: nn.Module, image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    model.dtype = dtype
    return model([{"image": image}])[0]["sem_seg_labels"]


@torch.no_grad()
def check_logits(theirs: nn.Module, ours: nn.Module, device: str) -> None:
    """End the script unless both models give the same logits."""
    image = torch.randn(1, 3, CHECKED, CHECKED, dtype=torch.float64, device=device)
    theirs.double(), ours.double()
    outputs, expected = ours.decide(ours.network(image)), theirs(pixel_values=image)
    theirs.float(), ours.float()
    found = {
        "class logits": (outputs.logits[-1], expected.class_queries_logits),
        "mask logits": (outputs.masks[-1][:, :, 0], expected.masks_queries_logits),
    }
    for name, (one, other) in found.items():
        error = ((one - other).abs().max() / other.std()).item()
        if not error <= LARGEST_ERROR:
            sys.exit(f"{name} differ by {error:.2g} of their standard deviation")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The median, and the quartiles."""
    single = [values[0]] * 3
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else single
    return f"{middle:.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"


@torch.no_grad()
def table_row(models: dict[str, nn.Module], size: int, args: Any) -> list[str]:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 9, 9) * 255
    image = F.interpolate(image, (size, size), mode="bicubic").clamp(0, 255)[0].byte()
    peers = {"theirs": models["theirs"]}
    if args.compile:
        torch.compiler.reset()
        peers["compiled"] = torch.compile(models["theirs"], dynamic=False)
    ways = {
        name: partial(predictor_of(peer, models["ours"], size), image)
        for name, peer in peers.items()
    }
    ways |= {way: partial(labels_of, models[way], image) for way in ("ours", "ranked")}
    pairs = [("theirs", "ours"), ("theirs", "ranked")]
    if args.compile:
        pairs.append(("compiled", "ours"))
    if args.bf16:
        ways["bf16"] = partial(labels_of, models["ours"], image, torch.bfloat16)
        pairs.append(("theirs", "bf16"))
    seconds, _ = time_in_turn(ways, args.repeats, warm_up=True)
    cells = [spread(seconds[way]) for way in ways]
    faster = [spread(ratios(seconds[peer], seconds[way]), 2) for peer, way in pairs]
    return [f"{size}²", *cells, *faster]


def main():
    parser = make_parser(__doc__, repeats=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 640, 1024], help="of a side")
    parser.add_argument("--kappa", type=int, default=50, help="categories kept with RankSeg")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="transformers' model too")
    parser.add_argument("--bf16", action="store_true", help="our model in bfloat16 too")
    args = parser.parse_args()
    try:
        import transformers
    except ImportError:
        sys.exit("this compares with transformers, which is not installed")
    warnings.simplefilter("ignore")  # of the library, about names that it will change
    torch.manual_seed(0)
    theirs = make_theirs()
    models = {
        "ours": make_ours(theirs, args.device),
        "theirs": theirs.to(args.device),
        "ranked": make_ranked(args.kappa, args.device),
    }
    check_logits(models["theirs"], models["ours"], args.device)
    write_heading(
        "Inference of Mask2Former",
        f"""Mask2Former with Swin-T, one image, {CLASSES} classes, float32, eager, the same random
        weights, from uint8 pixels to a label map of the image's size; medians of {args.repeats}
        rounds and their quartiles, all in turn; ratios are of the same round. RankSeg is the same
        network with a ranking, κ = {args.kappa}. The logits of both are the same; transformers
        enlarges masks to 384² before it makes label maps, ours go to the image's size.""",
        args.device,
        transformers=transformers.__version__,
    )
    heads = ["transformers, s", "compiled, s", "ours, s", "RankSeg, s", "bfloat16, s"]
    heads = ["image", *heads, "times faster", "with RankSeg", "than compiled", "in bfloat16"]
    if not args.compile:
        heads = [head for head in heads if "compiled" not in head]
    if not args.bf16:
        heads = [head for head in heads if "bfloat16" not in head]
    write_table(heads, (table_row(models, size, args) for size in args.sizes))
    write(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}.\n")


if __name__ == "__main__":
    main()
