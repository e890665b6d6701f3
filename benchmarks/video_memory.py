"""Peak memory of a whole video: by windows, for short and long videos, against all frames at once.

    python benchmarks/video_memory.py [--frames 50 200 1000] [--whole 10 25]

Each row is a process of its own; the first one is what the others are compared with. Frames are
made when they are asked for. The model is a small RankSeg video model with weights by chance, whose
masks and label maps are noisier, and hence larger, than those of a trained one.
"""

import time

import torch
from common import (
    in_own_process,
    make_model,
    make_parser,
    peak_mib,
    resident_mib,
    write_heading,
    write_table,
)

from rankseg_d2.modeling.results.reading import label_maps, rle_masks

HEIGHT, WIDTH, WINDOW, OVERLAP, QUERIES, CLASSES, TOPK, THREADS = 480, 853, 20, 4, 10, 124, 10, 1
KEYS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "VideoMaskFormer",
    "MODEL.TIMM.NAME": "mobilenetv3_small_050",
    "MODEL.BACKBONE.NAME": "TimmBackbone",
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 16,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 16,
    "MODEL.SEM_SEG_HEAD.NORM": "",
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.MASK_FORMER.HIDDEN_DIM": 16,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 64,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DEC_LAYERS": 4,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": QUERIES,
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": True,
    "MODEL.RANKSEG.FLAG": True,
    "MODEL.RANKSEG.TOPK": TOPK,
    "MODEL.RANKSEG.LOSS_WEIGHT": 10,
    "MODEL.RANKSEG.HIDDEN_DIM": 64,
    "TEST.VIDEO.OVERLAP": OVERLAP,
}


class Frames:
    """Moving stripes and a moving square, made when they are needed."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        found = self.numbers[index]
        return type(self)(found) if isinstance(index, slice) else self.frame(found)

    def frame(self, number):
        rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
        stripes = 127 + 60 * torch.sin((rows + columns + 5 * number) / 40)
        frame = torch.stack([stripes, stripes.flip(0), stripes.flip(1)])
        left = 3 * number % (WIDTH - 150)
        frame[:, 150:300, left : left + 150] = torch.tensor([220, 40, 90.0])[:, None, None]
        return frame.byte()


def measure(num_frames, window):
    """Peak MiB, how much of it the video needed, frames per second, and MiB of the RLEs."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = make_model(KEYS | {"TEST.VIDEO.WINDOW": window}).requires_grad_(False)
    model([{"image": Frames(range(1))}])  # what libraries load on first use was there before
    before = resident_mib()
    start = time.perf_counter()
    result = model([{"image": Frames(range(num_frames))}])[0]
    seconds = time.perf_counter() - start
    peak = peak_mib()
    assert len(label_maps(result)) == num_frames
    rles = [rle for masks in rle_masks(result) for rle in masks if rle is not None]
    rle_size = sum(len(rle["counts"]) for rle in rles) / 2**20
    return peak, peak - before, num_frames / seconds, rle_size


def table_rows(cases):
    first = None
    for way, count, window in cases:
        peak, own, speed, rles = in_own_process(measure, count, window)
        first = first or (peak, own)
        yield [
            way,
            f"{count:,}",
            f"{peak:.0f}",
            f"{peak / first[0]:.2f}",
            f"{own:.0f}",
            f"{own / first[1]:.2f}",
            f"{speed:.1f}",
            f"{rles:.1f}",
        ]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--whole", type=int, nargs="*", default=[10, 25])
    args = parser.parse_args()
    torch.set_num_threads(THREADS)  # as in the processes that measure
    write_heading(
        "Peak memory of whole videos",
        f"""{HEIGHT} x {WIDTH}, windows of {WINDOW} frames with {OVERLAP} shared, RankSeg with
        κ = {TOPK} of {CLASSES} categories, {QUERIES} queries, semantic and instance results; frames
        made when asked for.""",
    )
    cases = [("windows", count, WINDOW) for count in args.frames]
    cases += [("all at once", count, 0) for count in args.whole]
    heads = ["way", "frames", "peak MiB", "ratio", "above the model, MiB", "ratio", "frames/s"]
    write_table([*heads, "RLEs, MiB"], table_rows(cases))


if __name__ == "__main__":
    main()
