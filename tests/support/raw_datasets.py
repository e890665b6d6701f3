"""Miniature copies of public data sets, in the layout and encoding in which they are published.

`make_NAME(root)` writes one and returns what it holds: {split: {image: ...}}. Everything is drawn
from a fixed seed, a few images of 40 x 56 pixels each.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

from rankseg_d2.data.classes import load_classes

HEIGHT, WIDTH = 40, 56
TRAIN_2017, VAL_2017 = (9, 25, 30, 34), (139, 285)  # ids of COCO images


def make_ade20k(root):
    """{split: {name: (semantic (H, W), instances (H, W, 3))}}."""
    rng = np.random.default_rng(0)
    entries = load_classes("ade20k_panoptic_150")
    numbers = [entry["instance100_id"] for entry in entries if entry["isthing"]]
    made = {}
    for split, folder, short in (("train", "training", "train"), ("val", "validation", "val")):
        made[split] = {}
        for i in (1, 2, 3):
            name = f"ADE_{short}_{i:08d}"
            semantic = blocks(rng, rng.choice(151, 8, replace=False)).astype(np.uint8)
            instances = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            for k in range(1, 6):
                instances[rectangle(rng)] = rng.choice(numbers), k, 0
            base = root / "ADEChallengeData2016"
            write_image(base / "images" / folder / f"{name}.jpg", picture(rng))
            write_image(base / "annotations" / folder / f"{name}.png", semantic)
            write_image(base / "annotations_instance" / folder / f"{name}.png", instances)
            made[split][name] = semantic, instances
    return made


def make_ade20k_full(root):
    """{split: {name: numbers of objects (H, W)}}; the last of a split is large, 600 x 800."""
    rng = np.random.default_rng(1)
    objects = [entry["id"] for entry in load_classes("ade20k_full_847")]
    unused = sorted(set(range(1, 3500)) - set(objects))
    made = {}
    for split, folder, short in (("train", "training", "train"), ("val", "validation", "val")):
        made[split] = {}
        for i in (1, 2, 3):
            size = (600, 800) if i == 3 else (HEIGHT, WIDTH)
            values = [0, *rng.choice(unused, 2), *rng.choice(objects, 6)]
            labels = blocks(rng, values, size)
            colors = np.stack([labels // 256 * 10, labels % 256, rng.integers(256, size=size)], -1)
            place = root / "ADE20K_2021_17_01/images/ADE" / folder / "urban/street"
            name = f"ADE_{short}_{i:08d}"
            write_image(place / f"{name}.jpg", picture(rng, size))
            write_image(place / f"{name}_seg.png", colors.astype(np.uint8))
            write_image(place / name / f"instance_000_{name}.png", np.zeros((4, 4), np.uint8))
            made[split][name] = labels
    return made


def make_coco(root):
    """{split: {name: (segment ids (H, W), {segment id: published category id})}}."""
    rng = np.random.default_rng(2)
    entries = load_classes("coco_panoptic_133")
    made = {}
    for split, image_ids in (("train", TRAIN_2017), ("val", VAL_2017)):
        panoptic, instances, made[split] = [], [], {}
        for image_id in image_ids:
            write_coco_image(root, split, image_id)
            segment_ids = blocks(rng, [0, *rng.choice(2**24, 6, replace=False)])
            colors = np.stack([segment_ids >> shift & 255 for shift in (0, 8, 16)], -1)
            name = f"{image_id:012d}"
            write_image(root / f"coco/panoptic_{split}2017/{name}.png", colors.astype(np.uint8))
            chosen = rng.choice(len(entries), 6)
            ids = [int(i) for i in np.unique(segment_ids) if i]
            category_of = {i: entries[c]["id"] for i, c in zip(ids, chosen, strict=False)}
            segments = []
            for number, (i, category) in enumerate(category_of.items()):
                isthing = category <= 90
                facts = {"id": i, "category_id": category, "iscrowd": int(isthing and not number)}
                segments.append(facts | measured(segment_ids == i))
                if isthing:
                    mask = {"segmentation": rle(segment_ids == i), "image_id": image_id}
                    mask |= facts | measured(segment_ids == i)
                    instances.append(mask | {"id": len(instances) + 1})
            facts = {"image_id": image_id, "file_name": f"{name}.png"}
            panoptic.append(facts | {"segments_info": segments})
            made[split][name] = segment_ids, category_of
        images = [coco_image(split, image_id) for image_id in image_ids]
        for kind, annotations in (("panoptic", panoptic), ("instances", instances)):
            categories = [{k: entry[k] for k in ("id", "name", "isthing")} for entry in entries]
            if kind == "instances":
                categories = [entry for entry in categories if entry["isthing"]]
            content = {"images": images, "annotations": annotations, "categories": categories}
            write_json(root / f"coco/annotations/{kind}_{split}2017.json", content)
    return made


def make_coco_stuff_10k(root, release="1.1"):
    """{split: {name: values of that release (H, W)}}."""
    rng = np.random.default_rng(3)
    base, made = root / "coco/coco_stuff_10k", {}
    for split, names in (("train", ("t1", "t2")), ("test", ("e1", "e2"))):
        names = [f"COCO_train2014_{name}" for name in names]
        made[split] = {}
        for name in names:
            write_image(base / "images" / f"{name}.jpg", picture(rng))
            low, high = (1, 173) if release == "1.0" else (0, 183)
            values = blocks(rng, [low, *rng.integers(low, high, 8)])
            path = base / "annotations" / f"{name}.mat"
            (write_hdf5 if release == "1.0" else write_matlab)(path, "S", values)
            made[split][name] = values
        path = base / "imageLists" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names))  # as published: no newline at the end
    return made


def make_coco_stuff_164k(root):
    """{split: {name: values (H, W), 0 to 181 and 255}}."""
    rng = np.random.default_rng(4)
    made = {}
    for split, image_ids in (("train", TRAIN_2017), ("val", VAL_2017)):
        made[split] = {}
        for image_id in image_ids:
            write_coco_image(root, split, image_id)
            values = blocks(rng, [255, *rng.integers(0, 182, 8)]).astype(np.uint8)
            name = f"{image_id:012d}"
            write_image(root / f"coco/stuffthingmaps/{split}2017/{name}.png", values)
            made[split][name] = values
    return made


def make_coco_lvis(root):
    """{split: {name: (LVIS, stuff)}}: lists of (category id, slices of a rectangle), in order.

    Image 30 has no annotation, image 34 of train2017 is in LVIS's val.
    """
    rng = np.random.default_rng(5)
    stuff_of, things_of = {}, {}
    for split, image_ids in (("train", TRAIN_2017), ("val", VAL_2017)):
        stuff = []
        for image_id in image_ids:
            write_coco_image(root, split, image_id)
            categories = [] if image_id == 30 else [93, 98, 183, *rng.integers(92, 184, 4)]
            stuff_of[image_id] = [(int(c), rectangle(rng)) for c in categories]
            for category, place in stuff_of[image_id]:
                annotation = {"id": len(stuff) + 1, "image_id": image_id, "iscrowd": 0}
                mask = np.zeros((HEIGHT, WIDTH), bool)
                mask[place] = True
                stuff.append(annotation | {"category_id": category, "segmentation": rle(mask)})
        images = [coco_image(split, image_id) for image_id in image_ids]
        content = {"images": images, "annotations": stuff, "categories": []}
        write_json(root / f"coco/annotations/stuff_{split}2017.json", content)
    made = {}
    for split, members in (
        ("train", (("train", 9), ("train", 25), ("train", 30))),
        ("val", (("train", 34), ("val", 139), ("val", 285))),
    ):
        annotations = []
        for _, image_id in members:
            categories = [] if image_id == 30 else rng.integers(1, 1204, 4)
            things_of[image_id] = [(int(c), rectangle(rng)) for c in categories]
            for category, (rows, columns) in things_of[image_id]:
                x0, x1, y0, y1 = columns.start, columns.stop, rows.start, rows.stop
                annotation = {"id": len(annotations) + 1, "image_id": image_id}
                polygons = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                annotations.append(annotation | {"category_id": category, "segmentation": polygons})
        images = []
        for folder, image_id in members:
            address = f"http://images.cocodataset.org/{folder}2017/{image_id:012d}.jpg"
            size = {"height": HEIGHT, "width": WIDTH}
            images.append({"id": image_id, "coco_url": address} | size)
        content = {"images": images, "annotations": annotations, "categories": []}
        write_json(root / f"lvis/lvis_v1_{split}.json", content)
        made[split] = {f"{i:012d}": (things_of[i], stuff_of[i]) for _, i in members if i != 30}
    return made


def make_pascal_context(root, source="detail"):
    """{split: {name: ids of the 459 (H, W)}}; source: "detail" (json) or "matlab"."""
    rng = np.random.default_rng(6)
    kept = [entry["id_459"] for entry in load_classes("pascal_context_60")]
    base, images, annotations, made = root / "VOCdevkit/VOC2010", [], [], {}
    for split, numbers in (("train", (8, 15)), ("val", (3, 7))):
        made[split] = {}
        for number in numbers:
            name = f"2008_{number:06d}"
            write_image(base / "JPEGImages" / f"{name}.jpg", picture(rng))
            values = rng.choice(kept if source == "detail" else 460, 8)
            labels = blocks(rng, [0, *values])
            made[split][name] = labels
            image_id = 2008_000000 + number
            facts = {"image_id": image_id, "file_name": f"{name}.jpg", "phase": split}
            images.append(facts | {"height": HEIGHT, "width": WIDTH})
            for value in np.unique(labels[labels > 0]):
                facts = {"id": len(annotations) + 1, "image_id": image_id}
                facts |= {"category_id": int(value), "segmentation": rle(labels == value)}
                annotations.append(facts | {"iscrowd": 0})
            if source == "matlab":
                write_matlab(base / "trainval" / f"{name}.mat", "LabelMap", labels)
        path = base / "ImageSets/Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in made[split]))
    if source == "detail":
        content = {"images": images, "annos_segmentation": annotations, "categories": []}
        write_json(base / "trainval_merged.json", content)
    return made


def make_cityscapes(root):
    """{split: {name: instance map (H, W)}}: of all 34 ids, things with and without a number."""
    rng = np.random.default_rng(7)
    base, made = root / "cityscapes", {}
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("munster",))):
        made[split] = {}
        for city in cities:
            for frame in (19, 39):
                name = f"{city}_000000_{frame:06d}"
                things = rng.integers(24, 34, 5)
                values = [*rng.integers(0, 34, 6), *(things * 1000 + rng.integers(0, 9, 5))]
                instances = blocks(rng, values)
                labels = np.where(instances >= 1000, instances // 1000, instances)
                label_base = base / "gtFine" / split / city / f"{name}_gtFine"
                write_image(f"{label_base}_instanceIds.png", instances.astype(np.uint16))
                write_image(f"{label_base}_labelIds.png", labels.astype(np.uint8))
                image = base / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
                write_image(image, picture(rng))
                made[split][name] = instances
    return made


def blocks(rng, values, size=(HEIGHT, WIDTH)):
    """A map in which each value covers some of 8 x 8 equal blocks: (H, W)."""
    values = np.asarray(values, np.int64)
    chosen = np.concatenate([values, rng.choice(values, 64 - len(values))])
    rows, columns = (np.arange(n) * 8 // n for n in size)
    return rng.permutation(chosen).reshape(8, 8)[np.ix_(rows, columns)]


def rectangle(rng):
    """Two slices of a map of HEIGHT x WIDTH."""
    (y, x), (h, w) = rng.integers(0, (HEIGHT - 8, WIDTH - 8)), rng.integers(4, 24, 2)
    return slice(int(y), int(min(y + h, HEIGHT))), slice(int(x), int(min(x + w, WIDTH)))


def picture(rng, size=(HEIGHT, WIDTH)):
    return np.stack([blocks(rng, rng.integers(0, 256, 9), size) for _ in range(3)], -1).astype("u1")


def measured(mask):
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    box = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
    return {"area": int(mask.sum()), "bbox": box}


def rle(mask):
    code = mask_util.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode()}


def coco_image(split, image_id):
    facts = {"id": image_id, "file_name": f"{image_id:012d}.jpg"}
    return facts | {"height": HEIGHT, "width": WIDTH}


def write_coco_image(root, split, image_id):
    path = root / f"coco/{split}2017/{image_id:012d}.jpg"
    write_image(path, picture(np.random.default_rng(image_id)))


def write_image(path, values):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_matlab(path, name, values):
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: values.astype(np.uint16), "names": np.array(["a", "b"], object)})


def write_hdf5(path, name, values):
    """MATLAB's version 7.3: 512 bytes of its own, then HDF5, in which matrices lie transposed."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = values.T.astype(np.uint8)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
