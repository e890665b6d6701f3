"""Time of pixel classifiers against the same models of mmsegmentation and of transformers.

    pip install mmsegmentation mmcv transformers
    python benchmarks/pixel_inference.py [--repeats 15] [--size 512] [--only WORD]

Both get the same random weights, loaded here through the tables of names, and one uint8 image; both
normalise it, and end with a label map of its size. Their results must agree. One thread, eager,
float32, all in turn in one process. Models of a library that is not installed are left out.
"""

import importlib.util
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import (
    make_parser,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn import functional as F

from rankseg_d2.checkpoints.sources import find_table
from rankseg_d2.config import get_config

CLASSES = 150
LEAST = 0.999  # share of pixels with the same label; the rest are ties of rounding
SEGMENTER, SEGFORMER = "ade20k/semantic/segmenter_vit_s", "ade20k/semantic/segformer_b0"
NORM = {"type": "BN", "requires_grad": True}
NAMES = {"mmseg": "mmsegmentation", "transformers": "transformers"}


def mmseg_segmenter(size: int) -> tuple[dict[str, Tensor], Callable]:
    backbone = {
        "type": "VisionTransformer", "img_size": (512, 512), "embed_dims": 384, "num_layers": 12,
        "num_heads": 6, "final_norm": True, "with_cls_token": True, "interpolate_mode": "bicubic",
        "norm_cfg": {"type": "LN", "eps": 1e-6, "requires_grad": True},
    }  # fmt: skip
    head = {
        "type": "SegmenterMaskTransformerHead", "in_channels": 384, "channels": 384,
        "num_layers": 2, "num_heads": 6, "embed_dims": 384, "dropout_ratio": 0.0,
    }  # fmt: skip
    return mmseg_model(backbone, head, size)


def mmseg_segformer(size: int) -> tuple[dict[str, Tensor], Callable]:
    backbone = {
        "type": "MixVisionTransformer", "embed_dims": 32, "num_heads": [1, 2, 5, 8],
        "num_layers": [2, 2, 2, 2],
    }  # fmt: skip
    head = {
        "type": "SegformerHead", "in_channels": [32, 64, 160, 256], "in_index": [0, 1, 2, 3],
        "channels": 256, "dropout_ratio": 0.1, "norm_cfg": NORM, "align_corners": False,
    }  # fmt: skip
    return mmseg_model(backbone, head, size)


def mmseg_model(backbone: dict, head: dict, size: int) -> tuple[dict[str, Tensor], Callable]:
    """The weights of their model, and a function of an image that gives its label map."""
    from mmengine import ConfigDict
    from mmseg import models
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules

    register_all_modules()
    mean, std = normalisation(SEGMENTER if backbone["type"] == "VisionTransformer" else SEGFORMER)
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": False}
    config = {
        "type": "EncoderDecoder", "backbone": backbone, "test_cfg": ConfigDict(mode="whole"),
        "decode_head": head | {"num_classes": CLASSES, "loss_decode": loss},
        "data_preprocessor": {
            "type": "SegDataPreProcessor", "mean": mean, "std": std, "size": (size, size),
        },
    }  # fmt: skip
    model = randomize(models.build_segmentor(config).eval())
    sample = SegDataSample()
    sample.set_metainfo(dict.fromkeys(("img_shape", "ori_shape", "pad_shape"), (size, size)))

    def predict(image: Tensor) -> Tensor:
        data = model.data_preprocessor({"inputs": [image], "data_samples": [sample]}, False)
        return model.predict(**data)[0].pred_sem_seg.data[0]

    return model.state_dict(), predict


def transformers_segformer(size: int) -> tuple[dict[str, Tensor], Callable]:
    from safetensors.torch import load_file
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessorPil,
    )

    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).eval()
    randomize(model)
    processor = SegformerImageProcessorPil()
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in normalisation(SEGFORMER))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # in its files the weights have other names than in memory
        weights = load_file(Path(folder) / "model.safetensors")

    def predict(image: Tensor) -> Tensor:
        outputs = model(((image - mean) / std)[None])
        return processor.post_process_semantic_segmentation(outputs, [(size, size)])[0]

    return weights, predict


# Name, library, its model, our config and keys
CASES = [
    ("Segmenter ViT-S, mask decoder", "mmseg", mmseg_segmenter, SEGMENTER,
     ["MODEL.VIT.PATCH_BIAS=False"]),
    ("SegFormer-B0", "transformers", transformers_segformer, SEGFORMER,
     ["MODEL.MIT.NORM_EPS=1e-5"]),
    ("SegFormer-B0, its own head", "mmseg", mmseg_segformer, SEGFORMER,
     ["MODEL.SEM_SEG_HEAD.NAME=SegFormerConvHead"]),
]  # fmt: skip


def normalisation(config: str) -> tuple[list[float], list[float]]:
    model = get_config(config, ["MODEL.DEVICE=cpu"]).MODEL
    return model.PIXEL_MEAN, model.PIXEL_STD


def randomize(model: nn.Module) -> nn.Module:
    """Random scales and biases too, so that every weight counts; the classifier separates most."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                deviation = 0.01 if len(weight) == CLASSES else 0.3
                weight.normal_(float(name.endswith("weight")), deviation)
            elif len(weight) == CLASSES:
                weight.normal_()
                weight -= weight.mean(1, keepdim=True)  # else the mean of a pixel decides
            else:
                weight *= 4  # so that branches count beside their shortcuts
    return model


def our_model(config: str, keys: list[str]) -> nn.Module:
    return build_model(get_config(config, ["MODEL.DEVICE=cpu", *keys])).eval()


def labels_of(model: nn.Module, image: Tensor) -> Tensor:
    return model([{"image": image}])[0]["sem_seg_labels"]


@torch.no_grad()
def table_row(case: tuple, size: int, repeats: int) -> list[str]:
    name, library, make_theirs, config, keys = case
    torch.manual_seed(0)
    weights, theirs = make_theirs(size)
    ours, ranked = our_model(config, keys), our_model(f"{config}_rankseg", keys)
    ours.load_state_dict(find_table(weights).to_ours(weights))
    image = torch.rand(1, 3, 9, 9) * 255
    image = F.interpolate(image, (size, size), mode="bicubic").clamp(0, 255)[0].byte()
    ways = {
        "theirs": partial(theirs, image),
        "ours": partial(labels_of, ours, image),
        "ranked": partial(labels_of, ranked, image),
    }
    seconds, labels = time_in_turn(ways, repeats, warm_up=True)
    same = (labels["theirs"] == labels["ours"]).float().mean().item()
    if same < LEAST:
        sys.exit(f"{name}: only {same:.2%} of the labels are those of {NAMES[library]}")
    cells = [f"{statistics.median(seconds[way]):.3f}" for way in ways]
    faster = [times_faster(seconds["theirs"], seconds[way], 2) for way in ("ours", "ranked")]
    count = len(labels["ours"].unique())
    return [name, NAMES[library], *cells, *faster, f"{same:.3%}", str(count)]


def main():
    parser = make_parser(__doc__, repeats=15)
    parser.add_argument("--size", type=int, default=512, help="side of the image")
    parser.add_argument("--only", default="", help="a word of the names of the cases to run")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries, about names that they will change
    torch.set_num_threads(1)
    present = {name: importlib.util.find_spec(name) is not None for name in NAMES}
    cases = [case for case in CASES if args.only in case[0] and present[case[1]]]
    if not cases:
        sys.exit(f"none of the libraries is installed: {', '.join(NAMES.values())}")
    write_heading(
        "Inference of pixel classifiers",
        f"""One image of {args.size}², {CLASSES} classes, the same random weights, from uint8 pixels
        to a label map; medians of {args.repeats} rounds, all in turn; ratios are of the same round:
        median (lowest, highest). RankSeg is the same model with a ranking, κ = 50.""",
        **{name: importlib.import_module(name).__version__ for name in NAMES if present[name]},
    )
    heads = ["model", "compared with", "theirs, s", "ours, s", "with RankSeg, s"]
    heads += ["times faster", "with RankSeg", "same labels", "different labels"]
    write_table(heads, (table_row(case, args.size, args.repeats) for case in cases))
    write(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}.\n")


if __name__ == "__main__":
    main()
