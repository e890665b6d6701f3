"""Miniature copies of public video data sets, as `raw_datasets` has those of images."""

import numpy as np
from pycocotools import mask as mask_util
from support.raw_datasets import (
    HEIGHT,
    WIDTH,
    blocks,
    measured,
    picture,
    rle,
    write_image,
    write_json,
)

from rankseg_d2.data.classes import load_classes

VSPW_VIDEOS = {"train": ("1_abc", "12_-x[y]", "7_q"), "val": ("2_v",), "test": ("3_t",)}
VSPW_NUMBERS = (3, 7, 8, 1982, 1983)  # of frames: neither from 0 nor without gaps
YTVIS_FOLDERS = {"train": "train", "val": "valid"}


def make_vspw(root):
    """{split: {video: {frame: values (H, W)}}}: 0 to 124 and 255; those of test are not there."""
    rng = np.random.default_rng(8)
    base, made = root / "VSPW_480p", {}
    for split, names in VSPW_VIDEOS.items():
        made[split] = {}
        for name in names:
            chosen = rng.integers(0, 125, 6)
            made[split][name] = {}
            for number in VSPW_NUMBERS:
                values = blocks(rng, [0, 124, 255, *chosen]).astype(np.uint8)
                write_image(base / "data" / name / f"origin/{number:08d}.jpg", picture(rng))
                if split != "test":
                    write_image(base / "data" / name / f"mask/{number:08d}.png", values)
                made[split][name][f"{number:08d}"] = values
        # As published: blanks at the ends of lines, and no newline behind the last one.
        (base / f"{split}.txt").write_text(" \n".join(names) + "  ")
    return made


def make_ytvis(root, year=2019):
    """{split: {video id: {object id: (published category id, masks (T, H, W))}}}.

    Objects come and go; masks are run lengths, compressed or not, or polygons. The first video of
    train has one frame, the second one has no object in its second frame. There are no labels of
    val.
    """
    rng = np.random.default_rng(9)
    categories = [{"id": x["id"], "name": x["name"]} for x in load_classes(f"ytvis{year}_40")]
    made = {}
    for split, folder in YTVIS_FOLDERS.items():
        made[split], videos, annotations = {}, [], []
        for video_id, length in zip((5, 2, 9), (1, 4, 6), strict=True):
            name = f"{split}{video_id:07x}"
            names = [f"{name}/{5 * i:05d}.jpg" for i in range(length)]
            for path in names:
                image = root / f"ytvis_{year}" / folder / "JPEGImages" / path
                write_image(image, picture(rng))
            facts = {"id": video_id, "file_names": names, "length": length}
            videos.append(facts | {"height": HEIGHT, "width": WIDTH})
            made[split][video_id] = {}
            for kind in ("polygon", "rle", "list"):
                masks = moving_rectangle(rng, length)
                if length == 4:
                    masks[1] = False
                category = int(rng.integers(1, 41))
                number = len(annotations) + 1
                made[split][video_id][number] = category, masks
                facts = {"id": number, "video_id": video_id, "category_id": category}
                annotations.append(facts | {"iscrowd": 0} | tracks(masks, kind))
        content = {"videos": videos, "categories": categories}
        if split == "train":
            content["annotations"] = annotations
        write_json(root / f"ytvis_{year}" / f"{folder}.json", content)
    return made


def moving_rectangle(rng, length):
    """(T, H, W) bool, absent in about a third of the frames."""
    masks = np.zeros((length, HEIGHT, WIDTH), bool)
    y, x, speed = rng.integers(0, 20), rng.integers(0, 30), rng.integers(-3, 4, 2)
    for t in range(length):
        top, left = max(0, y + t * speed[0]), max(0, x + t * speed[1])
        masks[t, top : top + 12, left : left + 16] = length == 1 or rng.random() > 0.33
    return masks


def tracks(masks, kind):
    """The lists over frames of YouTube-VIS's json, null where the object is absent."""
    there = [mask if mask.any() else None for mask in masks]
    return {
        "segmentations": [None if mask is None else encode(mask, kind) for mask in there],
        "bboxes": [None if mask is None else measured(mask)["bbox"] for mask in there],
        "areas": [None if mask is None else measured(mask)["area"] for mask in there],
    }


def encode(mask, kind):
    if kind == "polygon":
        x, y, w, h = measured(mask)["bbox"]
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if kind == "rle":
        return rle(mask)
    flat = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False)).tolist()
    counts = np.diff([0, *flat, mask.size]).tolist()
    assert (mask_util.decode(mask_util.frPyObjects(
        {"size": list(mask.shape), "counts": counts}, *mask.shape)) == mask).all()  # fmt: skip
    return {"size": list(mask.shape), "counts": counts}
