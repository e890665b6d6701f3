"""Images per second of a folder, from files to saved files, against the bare model; and memory.

Memory is that of folders and of videos, few and many images or frames.

    python benchmarks/predict.py [--repeats 5]

The bare model gets tensors that are decoded and resized already, and its results are thrown away.
`Predictor` decodes the files, runs the model, draws, and writes label images and overlays, in
threads. Weights are random. Memory is the peak of a process of its own, above what the process
holds when the model is built.
"""

import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from common import (
    in_own_process,
    make_parser,
    peak_mib,
    resident_mib,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)
from detectron2.modeling import build_model
from PIL import Image

from rankseg_d2.config import get_config
from rankseg_d2.predict import Predictor
from rankseg_d2.predict.classes import Classes

# Name in the table, config, size of the images, images in a round, least share of the bare model.
MODELS = [
    ("R50, 512 x 512", "ade20k/semantic/r50_rankseg", (512, 512), 6, 0.95),
    ("small, 96 x 128", "shapes/panoptic/r10t_rankseg", (96, 128), 100, 0.6),
]
THREADS = 2
COUNTS = 100, 5000  # images, for memory
FRAMES = 50, 1000  # of a video, for memory
# What is predicted, config, keys. The model for videos gives label maps and tracks.
VIDEO_MODELS = [
    ("video, model for videos", "shapes/video_semantic/r10t_rankseg",
     ["MODEL.MASK_FORMER.TEST.INSTANCE_ON", True]),
    ("video, model for images", "shapes/panoptic/r10t_rankseg", []),
]  # fmt: skip
FLAT = 1.3


def make_predictor(config: str, keys: Sequence = ()) -> Predictor:
    cfg = get_config(config, ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", *keys])
    torch.manual_seed(0)
    model = build_model(cfg)
    names = [{"name": f"category {i}", "isthing": i % 2} for i in range(model.num_classes)]
    return Predictor(model, cfg, Classes.of(names))


def make_images(folder: Path, size: tuple[int, int], count: int) -> None:
    """JPEG files of smooth random pictures, as large as photos of that size."""
    folder.mkdir()
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05d}.jpg", quality=92)


def predict_and_save(predictor: Predictor, images: Path | list, out: Path) -> None:
    """What `rankseg-d2 predict` does: threads write while the model runs."""
    results = predictor(images, threads=THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque = deque()
        for result in results:
            waiting.append(pool.submit(result.save, out, overwrite=True))
            if len(waiting) > 2 * THREADS:
                waiting.popleft().result()
        for one in waiting:
            one.result()


def measure_speed(config: str, size: tuple[int, int], count: int, repeats: int):
    """Seconds of `count` images in each round, of the bare model and of the predictor."""
    predictor = make_predictor(config)
    with tempfile.TemporaryDirectory() as place:
        images, out = Path(place, "images"), Path(place, "out")
        make_images(images, size, count)
        files = sorted(images.iterdir())
        samples = [predictor.sample(np.asarray(Image.open(file))) for file in files]

        @torch.no_grad()
        def bare() -> None:
            for sample in samples:
                predictor.model([sample])

        functions = {"bare": bare, "folder": lambda: predict_and_save(predictor, images, out)}
        return time_in_turn(functions, repeats, warm_up=True)[0]


def peak_of_images(count: int) -> float:
    """MiB above the model of predicting and saving `count` images, of which ten differ."""
    _, config, size, _, _ = MODELS[-1]
    predictor = make_predictor(config)
    with tempfile.TemporaryDirectory() as place:
        images, out = Path(place, "images"), Path(place, "out")
        make_images(images, size, 10)
        for number in range(10, count):
            shutil.copy(images / f"{number % 10:05d}.jpg", images / f"{number:05d}.jpg")
        before = start_of_peak()
        predict_and_save(predictor, images, out)
        assert sum(1 for _ in out.iterdir()) == 2 * count
    return peak_mib() - before


def peak_of_video(count: int, config: str, keys: Sequence) -> float:
    """MiB above the model of predicting a video file, and saving label images and overlays."""
    predictor = make_predictor(config, keys)
    with tempfile.TemporaryDirectory() as place:
        video, out = Path(place, "video.mp4"), Path(place, "out")
        make_video(video, MODELS[-1][2], count)
        before = start_of_peak()
        if predictor.model.is_video:
            predictor(video).save(out)
        else:
            predict_and_save(predictor, video, out)
        assert sum(1 for _ in out.glob("video/*.png")) == count
    return peak_mib() - before


def start_of_peak() -> float:
    """MiB held now; the peak of imports and building is forgotten."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mib()


def make_video(path: Path, size: tuple[int, int], count: int) -> None:
    """A video file of smooth random pictures that drift."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size[::-1])
    random = np.random.default_rng(0)
    wide = cv2.resize(random.integers(0, 256, (9, 48, 3), dtype=np.uint8), (4 * size[1], size[0]))
    for number in range(count):
        writer.write(np.roll(wide, 3 * number, 1)[:, : size[1]].copy())
    writer.release()


def main() -> None:
    args = make_parser(__doc__, repeats=5).parse_args()
    write_heading(
        "Predicting a folder",
        f"`Predictor` on a folder of JPEG files, with {THREADS} threads that decode and as many "
        "that write label images and overlays, against the bare model on tensors in memory. "
        f"Medians of {args.repeats} rounds in turn; in brackets lowest and highest.",
    )

    def rows():
        for name, config, size, count, least in MODELS:
            seconds = measure_speed(config, size, count, args.repeats)
            rates = [f"{count / float(np.median(seconds[key])):.2f}" for key in seconds]
            share = times_faster(seconds["bare"], seconds["folder"], 2)
            yield [name, *rates, share, f"{least}"]

    heads = ["model", "bare model, images/s", "folder, images/s", "share of the bare", "wanted"]
    write_table(heads, rows())
    write(f"\nPeak memory above the model, {MODELS[-1][0]}; at most {FLAT} times wanted.\n\n")
    heads = ["source", "count", "MiB", "count", "MiB", "times"]
    write_table(heads, memory_rows())


def memory_rows() -> Iterator[list[str]]:
    cases = [("folder", COUNTS, peak_of_images, [])]
    cases += [(name, FRAMES, peak_of_video, more) for name, *more in VIDEO_MODELS]
    for name, counts, function, more in cases:
        peaks = [in_own_process(function, count, *more) for count in counts]
        cells = [text for pair in zip(counts, peaks, strict=True) for text in map(whole, pair)]
        yield [name, *cells, f"{peaks[1] / peaks[0]:.2f}"]


def whole(value: float) -> str:
    return f"{value:,.0f}"


if __name__ == "__main__":
    main()
