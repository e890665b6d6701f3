"""Peak memory and time of one window of a video, of windows and scales of an image, and of a video.

    python benchmarks/inference_memory.py [--repeats 3] [--only WORD]

Each round is a process of its own. The models are small, with weights by chance; what they keep has
the size that it has in large ones: 100 queries and ten predictions of masks a forward pass.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
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
from PIL import Image
from video_memory import HEIGHT, KEYS, WIDTH, Frames

from rankseg_d2.modeling.passes import SlidingWindow, TestTimeAugmentation

WINDOW, FRAMES, THREADS = 20, 60, 1
VIDEO = KEYS | {
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 100,
    "MODEL.MASK_FORMER.DEC_LAYERS": 10,
    "TEST.VIDEO.WINDOW": WINDOW,
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": False,
}
IMAGE = VIDEO | {"MODEL.META_ARCHITECTURE": "MaskFormer", "TEST.VIDEO.WINDOW": 0}
IMAGE_SIZE, SCALES = (1024, 2048), (512, 640, 768, 896, 1024, 1152)


def video_window(folder):
    """One window of a video, in memory."""
    return make_model(VIDEO), {"image": list(Frames(range(WINDOW)))}


def sliding_windows(folder):
    """21 windows of a large image."""
    model = SlidingWindow(make_model(IMAGE), (512, 512), (256, 307))
    return model, {"image": torch.randint(256, (3, *IMAGE_SIZE), dtype=torch.uint8)}


def scales(folder):
    """Six scales of an image and their mirror images."""
    model = TestTimeAugmentation(make_model(IMAGE), SCALES, 4096, flip=True)
    return model, {"image": torch.randint(256, (3, 768, 1024), dtype=torch.uint8)}


class FrameFiles(Frames):
    """The frames of a video, each read and resized when it is needed."""

    def frame(self, path):
        image = Image.open(path).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def video_from_files(folder, num_workers=2):
    """A video whose frames are JPEG files of 1080 x 1920; few queries, so that reading counts."""
    paths = [Path(folder) / f"{number:05d}.jpg" for number in range(FRAMES)]
    frames = Frames(range(FRAMES))
    for number, path in enumerate(paths):
        image = Image.fromarray(frames[number].permute(1, 2, 0).numpy())
        image.resize((1920, 1080)).save(path, quality=95)
    few = {"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 10, "DATALOADER.NUM_WORKERS": num_workers}
    return make_model(VIDEO | few), {"image": FrameFiles(paths)}


CASES = {
    f"one window of {WINDOW} frames": video_window,
    "21 windows of a 1024 x 2048 image": sliding_windows,
    "6 scales and mirror images of a 768 x 1024 image": scales,
    f"{FRAMES} frames from files": video_from_files,
    f"{FRAMES} frames from files, not read ahead": partial(video_from_files, num_workers=0),
}


def measure(case, folder):
    """Peak MiB above the model, and seconds."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model, sample = CASES[case](folder)
    model.requires_grad_(False)
    small = torch.zeros(3, 64, 64, dtype=torch.uint8)
    model([{"image": [small] if is_video(sample) else small}])  # loads libraries on first use
    before, start = resident_mib(), time.perf_counter()
    model([sample])
    return peak_mib() - before, time.perf_counter() - start


def is_video(sample):
    return not isinstance(sample["image"], torch.Tensor)


def table_rows(cases, repeats):
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            rounds = [in_own_process(measure, case, folder) for _ in range(repeats)]
        memory, seconds = map(statistics.median, zip(*rounds, strict=True))
        yield case, f"{memory:.0f}", f"{seconds:.1f}"


def main():
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--only", default="", help="a word of the names of the cases to run")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)  # as in the processes that measure
    write_heading(
        "Memory and time of inference",
        f"""Small models with RankSeg and 100 queries; frames of {HEIGHT} x {WIDTH}; medians of
        {args.repeats} runs, each in a process of its own.""",
    )
    cases = [case for case in CASES if args.only in case]
    write_table(["case", "peak above the model, MiB", "seconds"], table_rows(cases, args.repeats))


if __name__ == "__main__":
    main()
