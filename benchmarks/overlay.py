"""Time to draw 30 segments on a picture of 1920 x 1080, against detectron2's Visualizer.

    python benchmarks/overlay.py [--repeats 11]

Both get the same labels, segments or masks, with names and, for instances, scores, and return an
array. The comparison needs the real detectron2, with matplotlib; without them only ours is timed.
"""

import importlib.util
import statistics
import time
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from common import (
    make_parser,
    time_in_turn,
    times_faster,
    write,
    write_heading,
    write_table,
)

import rankseg_d2
from rankseg_d2.drawing import Segment, draw_overlay

HEIGHT, WIDTH, SEGMENTS = 1080, 1920, 30
NAMES = [f"category {i}" for i in range(SEGMENTS)]
LIMIT = 40  # milliseconds


def make_scene():
    """A picture (H, W, 3) with noise, and ids (H, W) from 1: smooth regions, one of each id."""
    random = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    waves = F.interpolate(
        torch.randn(1, 2, 9, 16, generator=random), (HEIGHT, WIDTH), mode="bicubic"
    )
    places = torch.rand(SEGMENTS, 2, generator=random) * torch.tensor([HEIGHT, WIDTH])
    best = torch.full((HEIGHT, WIDTH), torch.inf)
    ids = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    for number, (y, x) in enumerate(places, 1):
        distance = (rows + 40 * waves[0, 0] - y) ** 2 + (columns + 40 * waves[0, 1] - x) ** 2
        ids[distance < best] = number
        best = torch.minimum(best, distance)
    shades = torch.randint(40, 200, (SEGMENTS + 1, 3), generator=random)
    picture = shades[ids.long()] + torch.randint(0, 50, (HEIGHT, WIDTH, 3), generator=random)
    return picture.byte().numpy(), ids


def make_masks(ids):
    """(N, H, W) bool: the regions, grown by 30 pixels so that they overlap."""
    kernel = np.ones((61, 61), np.uint8)
    masks = [cv2.dilate((ids == i + 1).byte().numpy(), kernel) > 0 for i in range(SEGMENTS)]
    return np.stack(masks)


def ours(picture, ids, masks):
    """{kind of result: function that draws it}."""
    labels, scores = ids.numpy() - 1, np.linspace(0.99, 0.5, SEGMENTS)
    known = [Segment(i, id=i + 1) for i in range(SEGMENTS)]
    found = [Segment(i, mask=masks[i], score=scores[i]) for i in range(SEGMENTS)]
    draw = partial(draw_overlay, picture, names=NAMES)
    return {
        "panoptic": partial(draw, ids=ids.numpy(), segments=known),
        "semantic": partial(draw, labels=labels),
        "instances": partial(draw, segments=found, boxes=True, scores=True),
    }


def theirs(picture, ids, masks):
    """The same results by detectron2."""
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.visualizer import Visualizer

    metadata = MetadataCatalog.get("overlay").set(thing_classes=NAMES, stuff_classes=NAMES)
    infos = [
        {"id": i + 1, "category_id": i, "isthing": True, "area": int((ids == i + 1).sum())}
        for i in range(SEGMENTS)
    ]
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_masks = torch.from_numpy(masks)
    instances.scores = torch.linspace(0.99, 0.5, SEGMENTS)
    instances.pred_classes = torch.arange(SEGMENTS)
    boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks]
    instances.pred_boxes = Boxes([[x, y, x + w, y + h] for x, y, w, h in boxes])

    def drawn(method, *args):
        return getattr(Visualizer(picture, metadata), method)(*args).get_image()

    return {
        "panoptic": partial(drawn, "draw_panoptic_seg_predictions", ids, infos),
        "semantic": partial(drawn, "draw_sem_seg", ids - 1),
        "instances": partial(drawn, "draw_instance_predictions", instances),
    }


def main():
    args = make_parser(__doc__, repeats=11).parse_args()
    torch.set_num_threads(2)
    picture, ids = make_scene()
    masks = make_masks(ids)
    can_compare = rankseg_d2.engine_name() == "detectron2" and importlib.util.find_spec(
        "matplotlib"
    )
    functions = {("ours", kind): f for kind, f in ours(picture, ids, masks).items()}
    if can_compare:
        functions |= {("theirs", kind): f for kind, f in theirs(picture, ids, masks).items()}
    cv2.setNumThreads(2)
    wall, _ = time_in_turn(functions, args.repeats, warm_up=True)
    cv2.setNumThreads(1)
    cpu, _ = time_in_turn(functions, args.repeats, clock=time.process_time, warm_up=True)
    write_heading(
        "Overlays",
        f"""A result of {SEGMENTS} segments on a picture of {WIDTH} x {HEIGHT}, drawn with outlines
        and names, instances also with boxes and scores; milliseconds, median of {args.repeats}
        rounds (lowest, highest), functions in turn. CPU time does not count other work on the
        machine. The aim is {LIMIT} ms, and a fifth of the time of detectron2's Visualizer.""",
        OpenCV=cv2.__version__,
        NumPy=np.__version__,
    )
    heads = ["rankseg_d2, 2 threads", "1 thread, CPU time", "detectron2, CPU time", "times faster"]
    kinds = ("panoptic", "semantic", "instances")
    write_table(["result", *heads], (row(kind, wall, cpu) for kind in kinds))
    if not can_compare:
        write("\nThe real detectron2 or matplotlib is not installed here: nothing is compared.\n")


def row(kind, wall, cpu):
    """Cells of a kind of result; the CPU times are compared."""
    own, other = cpu["ours", kind], cpu.get(("theirs", kind))
    cells = [kind, milliseconds(wall["ours", kind]), milliseconds(own)]
    return [*cells, milliseconds(other), times_faster(other, own)] if other else [*cells, "", ""]


def milliseconds(seconds):
    values = [1000 * value for value in (statistics.median(seconds), min(seconds), max(seconds))]
    return "{:.1f} ({:.1f}, {:.1f})".format(*values)


if __name__ == "__main__":
    main()
