"""Milliseconds of an exported network in onnxruntime against the model, and how far they differ.

    python benchmarks/export.py [--repeats 5] [--threads 2]

The model runs `network` and `decide`, as eager PyTorch with the compiled deformable attention; the
file gives the same tensors. Weights are random. Results are made alike afterwards and not timed.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import make_parser, time_in_turn, times_faster, write_heading, write_table
from detectron2.modeling import build_model

from rankseg_d2.config import get_config
from rankseg_d2.export.network import ExportedNetwork
from rankseg_d2.predict import Predictor
from rankseg_d2.predict.classes import Classes

# Name in the table, config, size of the images.
MODELS = [
    ("Mask2Former R50, 150 classes", "ade20k/panoptic/r50", (512, 512)),
    ("the same with RankSeg", "ade20k/panoptic/r50_rankseg", (512, 512)),
    ("Mask2Former Swin-T, RankSeg", "ade20k/semantic/swin_t_rankseg", (512, 512)),
    ("SegFormer B0, RankSeg", "ade20k/semantic/segformer_b0_rankseg", (512, 512)),
    ("Segmenter ViT-Ti", "ade20k/semantic/segmenter_vit_ti", (512, 512)),
    ("small Mask2Former, RankSeg", "shapes/panoptic/r10t_rankseg", (96, 128)),
]
WANTED = 1e-3


def make_predictor(config: str) -> Predictor:
    cfg = get_config(config, ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg)
    names = [{"name": f"category {i}", "isthing": i % 2} for i in range(model.num_classes)]
    return Predictor(model, cfg, Classes.of(names))


def measure(config: str, size: tuple[int, int], repeats: int, threads: int):
    """Seconds of each in each round, and the largest difference of a number."""
    import onnxruntime

    from rankseg_d2.export import export

    predictor = make_predictor(config)
    network = ExportedNetwork(predictor.model).eval()
    images = torch.randn(1, 3, *size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        found = export(predictor, path, tolerance=np.inf)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    @torch.no_grad()
    def eager():
        return network(images)

    def exported():
        return session.run(None, {"images": images.numpy()})

    functions = {"eager": eager, "onnxruntime": exported}
    return time_in_turn(functions, repeats, warm_up=True)[0], max(found.values())


def main() -> None:
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="the models whose config has this in its name")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    import onnxruntime

    write_heading(
        "Exported models",
        "The network of a model, to logits and ranking, in onnxruntime against eager PyTorch: one "
        f"image, {args.threads} threads each. Medians of {args.repeats} rounds in turn; in "
        "brackets lowest and highest. Wanted are at least 1 times as fast, and differences up to "
        f"{WANTED:g}.",
        onnxruntime=onnxruntime.__version__,
    )

    def rows() -> Iterator[list[str]]:
        for name, config, size in MODELS:
            if args.only not in config:
                continue
            seconds, difference = measure(config, size, args.repeats, args.threads)
            times = [f"{1000 * float(np.median(value)):,.0f}" for value in seconds.values()]
            share = times_faster(seconds["eager"], seconds["onnxruntime"], 2)
            yield [name, f"{size[0]} x {size[1]}", *times, share, f"{difference:.1e}"]

    heads = ["model", "image", "eager, ms", "onnxruntime, ms", "times as fast", "difference"]
    write_table(heads, rows())


if __name__ == "__main__":
    main()
