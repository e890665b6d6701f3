"""Each label map that is prepared, pixel by pixel against the rule in its own words."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import raw_datasets as raw

from rankseg_d2.data.classes import load_classes
from rankseg_d2.data.datasets import COMMANDS
from rankseg_d2.data.formats.label_images import read_label_map


def prepare(name, root, workers=1, **options):
    for split in COMMANDS[name].splits:
        COMMANDS[name].prepare(root, split, workers, **options)


def loaded(name):
    """{image: label map as a mapper reads it} of a registered data set, in its order."""
    metadata = MetadataCatalog.get(name)
    records = DatasetCatalog.get(name)
    for record in records:
        with Image.open(record["file_name"]) as image:
            width, height = image.size
        labels = read_label_map(record["sem_seg_file_name"], metadata)
        assert labels.shape == (height, width)
        assert ((labels < len(metadata.stuff_classes)) | (labels == metadata.ignore_label)).all()
    return {
        record["image_id"]: read_label_map(record["sem_seg_file_name"], metadata)
        for record in records
    }


def assert_equal(found, expected):
    assert list(found) == sorted(expected)
    for name, labels in expected.items():
        np.testing.assert_array_equal(found[name], labels, err_msg=name)


def by_rule(values, rule):
    """rule(value) of each pixel, called once for each value."""
    result = np.zeros(values.shape, np.int64)
    for value in np.unique(values):
        result[values == value] = rule(int(value))
    return result


def test_ade20k(root):
    made = raw.make_ade20k(root)
    prepare("ade20k", root)
    for split in ("train", "val"):
        expected = {
            name: by_rule(semantic, lambda v: 255 if v == 0 else v - 1)
            for name, (semantic, _) in made[split].items()
        }
        assert_equal(loaded(f"ade20k_sem_seg_{split}"), expected)


def test_ade20k_rejects_values_beyond_150(root):
    raw.make_ade20k(root)
    path = root / "ADEChallengeData2016/annotations/training/ADE_train_00000002.png"
    Image.fromarray(np.full((40, 56), 151, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"00002\.png has the value 151, .* 0 \(ignored\) to 150"):
        prepare("ade20k", root)


def test_ade20k_rejects_colour_maps_of_the_full_release(root):
    raw.make_ade20k(root)
    path = root / "ADEChallengeData2016/annotations/training/ADE_train_00000002.png"
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"00002\.png has 3 channels"):
        prepare("ade20k", root)


def test_ade20k_full(root, caplog):
    made = raw.make_ade20k_full(root)
    prepare("ade20k-full", root)
    assert "has 3 label maps, but 25574 are published" in caplog.text
    train_id = {entry["id"]: entry["train_id"] for entry in load_classes("ade20k_full_847")}
    for split in ("train", "val"):
        expected = {
            name: by_rule(objects, lambda v: train_id.get(v, 65535))
            for name, objects in made[split].items()
        }
        large = sorted(expected)[-1]
        assert expected[large].shape == (600, 800)
        expected[large] = cv2.resize(
            expected[large].astype(np.uint16), (683, 512), interpolation=cv2.INTER_NEAREST
        )
        found = loaded(f"ade20k_full_sem_seg_{split}")
        assert_equal(found, expected)
        assert 65535 in found[large]
        record = DatasetCatalog.get(f"ade20k_full_sem_seg_{split}")[-1]
        assert record["sem_seg_file_name"].endswith(".tif")
        source = next(root.glob(f"ADE20K_2021_17_01/images/*/*/*/*/{large}.jpg"))
        image, copy = (np.asarray(Image.open(x)) for x in (source, record["file_name"]))
        image = cv2.resize(image, (683, 512), interpolation=cv2.INTER_LINEAR)
        assert abs(image.astype(int) - copy).mean() < 1.2  # a JPEG of good quality


def test_coco_stuff_164k(root):
    made = raw.make_coco_stuff_164k(root)
    prepare("coco-stuff-164k", root)
    classes = {entry["id"] - 1: entry["train_id"] for entry in load_classes("coco_stuff_171")}
    for split in ("train", "val"):
        expected = {
            name: by_rule(values, lambda v: classes.get(v, 255))
            for name, values in made[split].items()
        }
        assert_equal(loaded(f"coco_2017_{split}_stuff_164k_sem_seg"), expected)


def test_coco_stuff_10k_release_1_1(root):
    made = raw.make_coco_stuff_10k(root, "1.1")
    prepare("coco-stuff-10k", root)
    classes = {entry["id"]: entry["train_id"] for entry in load_classes("coco_stuff_171")}
    for split in ("train", "test"):
        expected = {
            name: by_rule(values, lambda v: classes.get(v, 255))
            for name, values in made[split].items()
        }
        found = loaded(f"coco_2017_{split}_stuff_10k_sem_seg")
        assert_equal(dict(sorted(found.items())), expected)


def test_coco_stuff_10k_release_1_0(root):
    pytest.importorskip("h5py")
    made = raw.make_coco_stuff_10k(root, "1.0")
    prepare("coco-stuff-10k", root)
    for split in ("train", "test"):
        expected = {
            name: (values.astype(np.uint8) - np.uint8(2)) for name, values in made[split].items()
        }
        found = loaded(f"coco_2017_{split}_stuff_10k_sem_seg")
        assert_equal(dict(sorted(found.items())), expected)


def test_coco_stuff_10k_says_how_to_install_h5py(root, monkeypatch):
    raw.make_coco_stuff_10k(root)
    path = root / "coco/coco_stuff_10k/annotations/COCO_train2014_t1.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"t1\.mat is in .* HDF5.*`pip install h5py`"):
        prepare("coco-stuff-10k", root)


def test_coco_stuff_10k_names_a_broken_file(root):
    raw.make_coco_stuff_10k(root)
    path = root / "coco/coco_stuff_10k/annotations/COCO_train2014_t2.mat"
    path.write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(ValueError, match=r"t2\.mat is damaged or no MATLAB file"):
        prepare("coco-stuff-10k", root)


def coco_lvis_truth(things, stuff, stuff_label):
    """The rule pixel by pixel: the first LVIS rectangle that covers it, else the first stuff."""
    expected = np.full((raw.HEIGHT, raw.WIDTH), 65535)
    for y in range(raw.HEIGHT):
        for x in range(raw.WIDTH):
            labels = (
                [c for c, place in annotations if covers(place, y, x)]
                for annotations in (things, stuff)
            )
            of_things, of_stuff = labels
            label = of_things[0] if of_things else stuff_label(of_stuff[0]) if of_stuff else 0
            if label:
                expected[y, x] = label - 1
    return expected


def covers(place, y, x):
    rows, columns = place
    return rows.start <= y < rows.stop and columns.start <= x < columns.stop


@pytest.mark.parametrize("essnet_compat", [False, True])
def test_coco_lvis(root, essnet_compat):
    made = raw.make_coco_lvis(root)
    prepare("coco-lvis", root, essnet_compat=essnet_compat)
    entries = load_classes("coco_lvis_1284")
    label_of = {x["coco_stuff_id"]: x["id"] for x in entries if "coco_stuff_id" in x}
    assert (label_of[93], label_of[98], label_of[110], label_of[181]) == (110, 181, 1217, 1283)
    if essnet_compat:
        label_of |= {93: 1217, 98: 1283}
    for split in ("train", "val"):
        expected = {
            name: coco_lvis_truth(things, stuff, lambda c: label_of.get(c, 0))
            for name, (things, stuff) in made[split].items()
        }
        assert_equal(loaded(f"coco_lvis_sem_seg_{split}"), expected)
    assert any((labels == label_of[93] - 1).any() for labels in expected.values())


def test_coco_lvis_takes_images_of_both_folders_and_leaves_out_those_without_annotations(root):
    raw.make_coco_lvis(root)
    prepare("coco-lvis", root)
    folders = {
        split: [Path(x["file_name"]).parent.name for x in DatasetCatalog.get(name)]
        for split in ("train", "val")
        for name in [f"coco_lvis_sem_seg_{split}"]
    }
    assert folders == {
        "train": ["train2017", "train2017"],
        "val": ["train2017", "val2017", "val2017"],
    }
    record = DatasetCatalog.get("coco_lvis_sem_seg_train")[0]
    assert (record["height"], record["width"]) == (raw.HEIGHT, raw.WIDTH)


@pytest.mark.parametrize("source", ["detail", "matlab"])
def test_pascal_context(root, source):
    made = raw.make_pascal_context(root, source)
    prepare("pascal-context", root)
    kept = sorted(entry["id_459"] for entry in load_classes("pascal_context_60"))
    assert len(kept) == 60 and kept[0] == 0
    for split in ("train", "val"):
        with_background = {
            name: by_rule(values, lambda v: kept.index(v) if v in kept else 0)
            for name, values in made[split].items()
        }
        without = {
            name: by_rule(labels, lambda v: v - 1 if v else 255)
            for name, labels in with_background.items()
        }
        assert_equal(loaded(f"pascal_context_60_sem_seg_{split}"), with_background)
        assert_equal(loaded(f"pascal_context_59_sem_seg_{split}"), without)


def test_pascal_context_rejects_a_class_that_the_detail_json_should_not_have(root):
    raw.make_pascal_context(root)
    path = root / "VOCdevkit/VOC2010/trainval_merged.json"
    content = json.loads(path.read_text())
    content["annos_segmentation"][0]["category_id"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"trainval_merged\.json has the value 1, .* 59 classes"):
        prepare("pascal-context", root)


def test_cityscapes(root):
    made = raw.make_cityscapes(root)
    prepare("cityscapes", root)
    train_id = {entry["id"]: entry["train_id"] for entry in load_classes("cityscapes_19")}
    for split in ("train", "val"):
        expected = {
            name: by_rule(values, lambda v: train_id.get(v // 1000 if v >= 1000 else v, 255))
            for name, values in made[split].items()
        }
        assert_equal(loaded(f"cityscapes_fine_sem_seg_{split}"), expected)


def test_coco_panoptic_label_maps(root):
    made = raw.make_coco(root)
    prepare("coco-panoptic", root)
    train_id = {entry["id"]: entry["train_id"] for entry in load_classes("coco_panoptic_133")}
    for split in ("train", "val"):
        name = f"coco_2017_{split}_panoptic_with_sem_seg"
        metadata = MetadataCatalog.get(name)
        for record in DatasetCatalog.get(name):
            segment_ids, category_of = made[split][Path(record["file_name"]).stem]
            classes = {i: train_id[category] for i, category in category_of.items()} | {0: 255}
            expected = by_rule(segment_ids, classes.get)
            found = read_label_map(record["sem_seg_file_name"], metadata)
            np.testing.assert_array_equal(found, expected)
