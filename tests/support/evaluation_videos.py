"""Small videos on disk, in YouTube-VIS' and in VSPW's form, and predictions with errors."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

SIZE = 300, 400  # so that objects may be small, medium and large
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "yeti"}]
CONTIGUOUS = {category["id"]: i for i, category in enumerate(CATEGORIES)}

FRAME = 24, 32
CLASSES = ["sky", "sea", "sand", "unicorn"]
IGNORE = 255


def write_objects(folder, count=12, seed=0):
    """A json of YouTube-VIS' form: crowds, absent objects, videos of one frame or no object."""
    rng = np.random.default_rng(seed)
    content = {"videos": [], "annotations": [], "categories": CATEGORIES}
    for video_id in range(10, 10 + count):
        length = int(rng.integers(1, 6))
        size = {"height": SIZE[0], "width": SIZE[1], "length": length}
        names = [f"{video_id}/{frame:05d}.jpg" for frame in range(length)]
        content["videos"].append(size | {"id": video_id, "file_names": names})
        for _ in range(rng.integers(0, 5)):
            masks = moving_box(rng, length)
            areas = [None if mask is None else int(mask.sum()) for mask in masks]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "video_id": video_id,
                    "category_id": int(rng.choice([3, 7])),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentations": [
                        mask if mask is None else run_lengths(mask) for mask in masks
                    ],
                    "areas": areas,
                }
            )
    path = folder / "videos.json"
    path.write_text(json.dumps(content))
    ids = {"thing_dataset_id_to_contiguous_id": CONTIGUOUS}
    names = [category["name"] for category in CATEGORIES]
    return content, {
        "json_file": str(path),
        "thing_classes": names,
        "evaluator_type": "ytvis",
    } | ids


def moving_box(rng, length):
    """Masks (H, W) of an object, None in frames where it is absent."""
    corner, side = rng.integers(0, [60, 100]), rng.integers(8, [300, 400])
    masks = []
    for _ in range(length):
        mask = np.zeros(SIZE, bool)
        corner = np.maximum(corner + rng.integers(-9, 10, 2), 0)
        mask[corner[0] : corner[0] + side[0], corner[1] : corner[1] + side[1]] = True
        masks.append(mask if rng.random() < 0.8 else None)
    return masks


def run_lengths(mask):
    """An uncompressed RLE, as in the json files of YouTube-VIS."""
    flat = mask.ravel(order="F")
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    counts = np.diff(ends, prepend=0).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def to_mask(segmentation):
    """Any kind of RLE or None as a mask (H, W)."""
    if segmentation is None:
        return np.zeros(SIZE, bool)
    if isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, *SIZE)
    return mask_util.decode(segmentation).astype(bool)


def encode(mask):
    return mask_util.encode(np.asfortranarray(mask, np.uint8)) if mask.any() else None


def instance_outputs(content, seed=1):
    """Detections of each video: moved copies of the objects, inventions, equal scores."""
    rng = np.random.default_rng(seed)
    outputs = []
    for video in content["videos"]:
        own = [one for one in content["annotations"] if one["video_id"] == video["id"]]
        found = []
        for one in own * 3:
            shift = rng.integers(-12, 13, 2) * (rng.random() < 0.7)
            masks = [np.roll(to_mask(rle), shift, (0, 1)) for rle in one["segmentations"]]
            label = CONTIGUOUS[one["category_id"]] if rng.random() < 0.8 else int(rng.integers(3))
            found.append((label, masks))
        for _ in range(rng.integers(0, 4)):
            masks = [
                np.zeros(SIZE, bool) if m is None else m for m in moving_box(rng, video["length"])
            ]
            found.append((int(rng.integers(3)), masks))
        outputs.append(
            {
                "pred_scores": rng.integers(1, 30, len(found)) / 30,
                "pred_labels": np.array([label for label, _ in found], int),
                "pred_masks": [[encode(mask) for mask in masks] for _, masks in found],
            }
        )
    return outputs


def video_samples(content):
    return [{"video_id": video["id"]} | video for video in content["videos"]]


def write_label_maps(folder, lengths=(20, 17, 16, 9, 8, 3, 1), seed=0):
    """Records and metadata in VSPW's form: values 1 to 4 are classes, 0 and 255 are ignored."""
    rng = np.random.default_rng(seed)
    records = []
    for number, length in enumerate(lengths):
        name = f"video_{number}"
        (folder / name).mkdir(parents=True)
        values = noise(rng, [0, 1, 2, 3, 255])
        record = {"video_id": name, "height": FRAME[0], "width": FRAME[1], "length": length}
        record |= {"file_names": [], "sem_seg_file_names": []}
        for frame in range(length):
            change(rng, values, [0, 1, 2, 3, 255])
            path = folder / name / f"{frame + 5:08d}.png"
            Image.fromarray(values).save(path)
            record["file_names"].append(f"{name}/{path.stem}.jpg")
            record["sem_seg_file_names"].append(str(path))
        records.append(record)
    table = np.full(256, IGNORE)
    table[1:5] = range(4)
    metadata = {"stuff_classes": CLASSES, "ignore_label": IGNORE, "label_table": table}
    return records, metadata | {"evaluator_type": "vspw_sem_seg"}


def noise(rng, values):
    coarse = rng.choice(values, (6, 8)).astype(np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


def change(rng, labels, values, share=0.02):
    """Give a few pixels another label, in place."""
    places = rng.random(labels.shape) < share
    labels[places] = rng.choice(values, places.sum())


def read(path):
    return np.asarray(Image.open(path))


def label_outputs(records, seed=1):
    """Label maps of each video, near the ground truth; 4 is no class."""
    rng = np.random.default_rng(seed)
    outputs = []
    for record in records:
        error, frames = noise(rng, [0, 0, 0, 1, 2, 3]), []
        for path in record["sem_seg_file_names"]:
            change(rng, error, [0, 1, 4])
            classes = read(path).astype(int) - 1 + error
            frames.append((classes % 5).astype(np.uint8))
        outputs.append({"sem_seg_frames": frames})
    return outputs
