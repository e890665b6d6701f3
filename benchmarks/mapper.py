"""Images per second of one data loader worker: COCO panoptic with large-scale jitter to 1024.

    python benchmarks/mapper.py [--images 24] [--repeats 5] [--upstream PATH]

Against the simple way, which is written out below, and, if PATH is a checkout of Mask2Former (and
detectron2 and panopticapi are installed), against its own mapper. All read the same files with the
same random numbers, in turn; pictures, classes and masks must be equal. Times are CPU seconds of
this process, in which torch and OpenCV have one thread, as in a worker.
"""

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
from common import (
    load_module,
    make_parser,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)
from detectron2.config import get_cfg
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances
from PIL import Image

import rankseg_d2
from rankseg_d2.config import add_rankseg_config
from rankseg_d2.data.mappers import build_mapper

SEGMENTS = 11  # of an image of COCO's, on average
UPSTREAM = "mask2former/data/dataset_mappers/coco_panoptic_new_baseline_dataset_mapper.py"
TITLES = {
    "upstream": "Mask2Former's mapper",
    "plain": "the simple way",
    "boxes": "rankseg_d2, and boxes of the masks",
    "ours": "rankseg_d2",
}


def make_image(folder, number):
    """A record with a JPEG of 640 x 480, every third is upright, and its panoptic PNG.

    All have void pixels, every eighth has a crowd.
    """
    random = np.random.RandomState(number)
    h, w = (640, 480) if number % 3 == 0 else (480, 640)
    coarse = random.randint(0, 256, (h // 16, w // 16, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    path = folder / f"{number}.jpg"
    Image.fromarray(image).save(path, quality=90)

    # the nearest of some points, with borders that wind
    bend = cv2.resize(random.normal(0, 12, (h // 20, w // 20, 2)), (w, h))
    pixels = np.stack(np.mgrid[:h, :w], -1) + bend
    points = random.rand(SEGMENTS + 1, 2) * (h, w)
    numbers = np.square(pixels[:, :, None] - points).sum(-1).argmin(-1)  # (h, w)
    colors = np.append(random.choice(2**20, SEGMENTS, replace=False) * 7 + 1, 0)  # the last is void
    rgb = np.stack([colors // 256**i % 256 for i in range(3)], -1).astype(np.uint8)[numbers]
    Image.fromarray(rgb).save(path.with_suffix(".png"))
    segments = [
        {"id": int(color), "category_id": int(random.randint(133)), "iscrowd": int(is_crowd)}
        for color, is_crowd in zip(colors, np.arange(SEGMENTS) < (number % 8 == 0), strict=False)
    ]
    return {
        "file_name": str(path), "image_id": number, "height": h, "width": w,
        "pan_seg_file_name": str(path.with_suffix(".png")), "segments_info": segments,
    }  # fmt: skip


def plain_mapper(cfg):
    """The simple way: detectron2's transforms, and one full mask after the other; no boxes."""
    side = cfg.INPUT.IMAGE_SIZE
    augmentations = [
        T.RandomFlip(),
        T.ResizeScale(cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE, side, side),
        T.FixedSizeCrop((side, side)),
    ]

    def mapper(record):
        image = utils.read_image(record["file_name"], cfg.INPUT.FORMAT)
        image, transforms = T.apply_augmentations(augmentations, image)
        rgb = utils.read_image(record["pan_seg_file_name"], "RGB")
        rgb = transforms.apply_segmentation(rgb).astype(np.int32)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        segments = [x for x in record["segments_info"] if not x["iscrowd"]]
        instances = Instances(image.shape[:2])
        instances.gt_classes = torch.tensor([x["category_id"] for x in segments])
        instances.gt_masks = BitMasks(np.stack([ids == x["id"] for x in segments]))
        chw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {**record, "image": chw, "instances": instances}

    return mapper


def upstream_mapper(cfg, checkout):
    """Mask2Former's own, without the rest of its package, whose kernels must be compiled."""
    module = load_module(Path(checkout) / UPSTREAM)
    return module.COCOPanopticNewBaselineDatasetMapper(cfg, True)


def run(mapper, records):
    for record in records:
        mapper(record)


def check_samples(ours, other, records):
    """Exit unless both give the same picture, classes and masks."""
    for seed, record in enumerate(records):
        np.random.seed(seed)
        mine = ours(record)
        np.random.seed(seed)
        theirs = other(record)
        pairs = [(mine["image"], theirs["image"])]
        mine, theirs = mine["instances"], theirs["instances"]
        masks = getattr(theirs.gt_masks, "tensor", theirs.gt_masks)
        pairs += [(mine.gt_classes, theirs.gt_classes), (mine.gt_masks.tensor, masks)]
        if not all(torch.equal(*pair) for pair in pairs):
            sys.exit(f"the samples of {record['file_name']} differ")


def size_of(value):
    """Bytes of the tensors in a sample, as they go to the device."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    if isinstance(value, Instances):
        return sum(map(size_of, value.get_fields().values()))
    return size_of(vars(value)) if hasattr(value, "__dict__") else 0


def megabytes(mapper, records, key=None):
    """Mean MB of a sample, or of what it has under a key."""
    np.random.seed(0)
    samples = (mapper(record) for record in records)
    return statistics.mean(size_of(x[key] if key else x) for x in samples) / 1e6


def table_rows(mappers, times, records):
    for name, mapper in mappers.items():
        speed = len(times[name]) * len(records) / sum(times[name])
        targets, whole = megabytes(mapper, records, "instances"), megabytes(mapper, records)
        yield TITLES[name], f"{speed:.1f}", f"{targets:.2f}", f"{whole:.2f}"


def seed_numpy(seed):
    np.random.seed(seed)
    return ()


def main():
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--upstream", help="a checkout of Mask2Former")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.DATASET_MAPPER_NAME = "coco_panoptic_lsj"
    ours = build_mapper(cfg, True)
    mappers = {"upstream": upstream_mapper(cfg, args.upstream)} if args.upstream else {}
    mappers |= {"plain": plain_mapper(cfg), "boxes": lambda x: add_boxes(ours(x)), "ours": ours}
    cfg.INPUT.KEEP_EMPTY = True
    complete = build_mapper(cfg, True)
    with tempfile.TemporaryDirectory() as folder:
        records = [make_image(Path(folder), number) for number in range(args.images)]
        others = [name for name in ("upstream", "plain") if name in mappers]
        for name in others:
            check_samples(complete, mappers[name], records)
        runs = {name: partial(run, mapper, records) for name, mapper in mappers.items()}
        times, _ = time_in_turn(runs, args.repeats, arguments=seed_numpy, clock=time.process_time)
        write_heading(
            "Mapper: COCO panoptic, large-scale jitter to 1024",
            f"""{args.images} JPEG files of 640 x 480, {SEGMENTS} segments each; one worker with
            one thread, CPU seconds; {args.repeats} passes of each in turn. Pictures, classes and
            masks are equal, bit by bit; {rankseg_d2.engine_name()} engine.""",
            Pillow=PIL.__version__,
            OpenCV=cv2.__version__,
        )
        heads = ["", "images per second", "MB of targets", "MB of the sample"]
        write_table(heads, table_rows(mappers, times, records))
    write("\n")
    write_table(
        ["median of pairs (lowest, highest)", *(f"times as fast as {TITLES[n]}" for n in others)],
        (
            [TITLES[mine], *(times_faster(times[name], times[mine], digits=2) for name in others)]
            for mine in ("ours", "boxes")
        ),
    )


def add_boxes(sample):
    """Upstream's samples have gt_boxes, which no mask classification model reads."""
    sample["instances"].gt_boxes = sample["instances"].gt_masks.get_bounding_boxes()
    return sample


if __name__ == "__main__":
    main()
