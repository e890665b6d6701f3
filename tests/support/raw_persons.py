"""Miniature copies of CamVid and of the data sets of persons, in their published layouts.

As in raw_datasets.py. Two persons stand beside each other, and in MHP a third one, which is partly
behind the first, with `overlapping`.
"""

import numpy as np
from support.raw_datasets import HEIGHT, WIDTH, blocks, picture, write_image

from rankseg_d2.data.classes import load_classes

CIHP, LIP, ATR = "CIHP/instance-level_human_parsing", "LIP", "ATR/humanparsing"
PLACES = (slice(2, 26), slice(30, 54), slice(14, 40))  # columns of the persons


def make_camvid(root, source="colors"):
    """{split: {name: classes (H, W), 255: ignore}}; source: "colors" or "segnet"."""
    rng, made = np.random.default_rng(20), {}
    members = [
        (member["color"], entry["train_id"])
        for entry in load_classes("camvid_11")
        for member in entry["raw_members"]
    ]
    members += [([0, 0, 0], 255), ([1, 2, 3], 255)]  # void, and a colour that is none
    for split in ("train", "val", "test"):
        made[split] = {}
        for i in (30, 60):
            name = f"0001TP_{i:06d}"
            drawn = blocks(rng, rng.choice(len(members), 12, replace=False))
            labels = np.array([label for _, label in members])[drawn]
            write_image(root / f"CamVid/{split}/{name}.png", picture(rng))
            if source == "segnet":
                values = np.where(labels == 255, 11, labels).astype(np.uint8)
                write_image(root / f"CamVid/{split}annot/{name}.png", values)
            else:
                colors = np.array([color for color, _ in members], np.uint8)[drawn]
                write_image(root / f"CamVid/{split}_labels/{name}_L.png", colors)
            made[split][name] = labels
    return made


def make_tests(root):
    """The test splits without labels of LIP, CIHP and MHP v2: two images each."""
    rng = np.random.default_rng(25)
    folders = (f"{LIP}/Testing_images", f"{CIHP}/Testing/Images", "LV-MHP-v2/test/images")
    for folder in folders:
        for name in ("7", "8"):
            write_image(root / folder / f"{name}.jpg", picture(rng))
    return folders


def people(rng, num_parts, count=2):
    """Part maps (count, H, W) uint8 of persons, each with some parts."""
    maps = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    for one, columns in zip(maps, PLACES, strict=False):
        parts = blocks(rng, rng.choice(np.arange(1, num_parts), 4, replace=False))
        one[4:36, columns] = parts[4:36, columns]
    return maps


def merged(maps):
    """The part of each pixel, of the first person that has one there."""
    labels = np.zeros(maps.shape[1:], np.uint8)
    for one in maps[::-1]:
        labels = np.where(one > 0, one, labels)
    return labels


def make_lip(root, nested=False, lists=True):
    """{split: {name: labels (H, W)}}."""
    rng, made = np.random.default_rng(21), {}
    images, labels = "TrainVal_images", "TrainVal_parsing_annotations"
    images, labels = (f"{x}/{x}" if nested else x for x in (images, labels))
    for split in ("train", "val"):
        made[split] = {}
        for i in (4, 9):
            name, parts = f"{i}_{split}", people(rng, 20, 1)[0]
            write_image(root / LIP / images / f"{split}_images/{name}.jpg", picture(rng))
            write_image(root / LIP / labels / f"{split}_segmentations/{name}.png", parts)
            reversed_ = root / LIP / labels / f"{split}_segmentations_reversed/{name}.png"
            write_image(reversed_, parts[:, ::-1])
            made[split][name] = parts
        if lists:
            names = "".join(f"{name}\n" for name in made[split])
            (root / LIP / images / f"{split}_id.txt").write_text(names)
    return made


def make_cihp(root):
    """{split: {name: part maps of the persons (G, H, W)}}."""
    rng, made = np.random.default_rng(22), {}
    for split, folder in (("train", "Training"), ("val", "Validation")):
        made[split], base = {}, root / CIHP / folder
        for i in (1, 3):
            name, maps = f"{i:07d}", people(rng, 20)
            numbers = ((maps > 0) * np.array([1, 2], np.uint8)[:, None, None]).sum(0)
            write_image(base / f"Images/{name}.jpg", picture(rng))
            write_image(base / f"Category_ids/{name}.png", merged(maps))
            write_image(base / f"Human_ids/{name}.png", numbers.astype(np.uint8))
            made[split][name] = maps
        (base / f"{split}_id.txt").write_text("\n".join(made[split]))
    return made


def make_mhp(root, version, overlapping=False):
    """{split: {name: part maps of the persons (G, H, W)}}; v2's files have three channels."""
    rng, made = np.random.default_rng(23), {}
    base, is_first = root / f"LV-MHP-v{version}", version == 1
    splits = ("train", "val", "test") if is_first else ("train", "val")
    for number, split in enumerate(splits):
        folder = base if is_first else base / split
        persons = folder / ("annotations" if is_first else "parsing_annos")
        made[split] = {}
        for i in (1, 11):
            name = f"{100 * number + i:04d}" if is_first else f"{100 * number + i}"
            maps = people(rng, 19 if is_first else 59, 3 if overlapping else 2)
            write_image(folder / f"images/{name}.jpg", picture(rng))
            for k, one in enumerate(maps, 1):
                if not is_first:
                    one = np.stack([one, 99 - one, np.full_like(one, 7)], -1)
                write_image(persons / f"{name}_{len(maps):02d}_{k:02d}.png", one)
            made[split][name] = maps
        ending = ".jpg" if is_first else ""
        path = base / (f"{split}_list.txt" if is_first else f"list/{split}.txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name}{ending}\n" for name in made[split]))
    if is_first:  # as published: one list of train and val
        both = "".join((base / f"{split}_list.txt").read_text() for split in ("train", "val"))
        (base / "train_list.txt").write_text(both)
    return made


def make_atr(root, lists=True):
    """{split: {name: labels (H, W)}}."""
    rng, made = np.random.default_rng(24), {}
    for split in ("train", "val", "test"):
        made[split] = {}
        for i in (100, 101):
            name, parts = f"{split}_{i}", people(rng, 18, 1)[0]
            write_image(root / ATR / f"JPEGImages/{name}.jpg", picture(rng))
            write_image(root / ATR / f"SegmentationClassAug/{name}.png", parts)
            made[split][name] = parts
        if lists:
            (root / ATR / f"{split}.txt").write_text("\n".join(made[split]))
    return made
