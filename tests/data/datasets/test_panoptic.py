"""Panoptic and instance annotations that are prepared and loaded, against brute force."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util
from support import raw_datasets as raw

from rankseg_d2.data.classes import load_classes
from rankseg_d2.data.datasets import COMMANDS
from rankseg_d2.data.formats.coco_panoptic import ids_to_colors, regions

ADE = "ADEChallengeData2016"


def prepare(name, root, **options):
    for split in COMMANDS[name].splits:
        COMMANDS[name].prepare(root, split, workers=1, **options)


def read_png(path):
    colors = np.asarray(Image.open(path), np.int64)
    return colors[..., 0] + 256 * colors[..., 1] + 256**2 * colors[..., 2]


def ade20k_truth(semantic, instances):
    """[(category, mask before later ones are painted over it)]: stuff, then instances."""
    entries = load_classes("ade20k_panoptic_150")
    stuff = [entry for entry in entries if not entry["isthing"]]
    of_thing = {entry["instance100_id"]: entry["id"] for entry in entries if entry["isthing"]}
    masks = [(entry["id"], semantic == entry["id"] + 1) for entry in stuff]
    for k in range(1, 256):
        mask = instances[..., 1] == k
        if mask.any():
            masks.append((of_thing[int(instances[mask][0, 0])], mask))
    return [(category, mask) for category, mask in masks if mask.any()]


def test_ade20k_panoptic(root):
    made = raw.make_ade20k(root)
    prepare("ade20k-panoptic", root)
    for split in ("train", "val"):
        records = DatasetCatalog.get(f"ade20k_panoptic_{split}")
        assert [record["image_id"] for record in records] == sorted(made[split])
        for record in records:
            masks = ade20k_truth(*made[split][record["image_id"]])
            segments = record["segments_info"]
            assert [segment["category_id"] for segment in segments] == [c for c, _ in masks]
            expected = np.zeros((raw.HEIGHT, raw.WIDTH), np.int64)
            for segment, (_, mask) in zip(segments, masks, strict=True):
                expected[mask] = segment["id"]
                assert segment["iscrowd"] == 0
                assert {key: segment[key] for key in ("area", "bbox")} == raw.measured(mask)
            np.testing.assert_array_equal(read_png(record["pan_seg_file_name"]), expected)
            assert (record["height"], record["width"]) == (raw.HEIGHT, raw.WIDTH)
            assert Path(record["sem_seg_file_name"]).parent.parent.name == "annotations_detectron2"


def hide_stuff_0(root, split="training", name="ADE_train_00000001"):
    """Sky in a corner that a bed covers wholly, all else wall; the same as arrays."""
    semantic = np.ones((raw.HEIGHT, raw.WIDTH), np.uint8)
    semantic[:4, :6] = 3
    instances = np.zeros((raw.HEIGHT, raw.WIDTH, 3), np.uint8)
    instances[:5, :7] = 1, 1, 0
    for folder, values in (("annotations", semantic), ("annotations_instance", instances)):
        Image.fromarray(values).save(root / ADE / folder / split / f"{name}.png")


def test_ade20k_keeps_hidden_stuff_with_its_whole_area_unless_told_otherwise(root):
    raw.make_ade20k(root)
    hide_stuff_0(root)
    expected = {
        False: [(0, 40 * 56 - 24, [0, 0, 56, 40]), (2, 24, [0, 0, 6, 4]), (7, 35, [0, 0, 7, 5])],
        True: [(0, 40 * 56 - 35, [0, 0, 56, 40]), (7, 35, [0, 0, 7, 5])],
    }
    pngs = {}
    for visible_area, segments in expected.items():
        prepare("ade20k-panoptic", root, visible_area=visible_area)
        record = DatasetCatalog.get("ade20k_panoptic_train")[0]
        found = [(x["category_id"], x["area"], x["bbox"]) for x in record["segments_info"]]
        assert found == segments
        pngs[visible_area] = Path(record["pan_seg_file_name"]).read_bytes()
    assert pngs[False] == pngs[True]


def test_ade20k_panoptic_ids_are_the_same_each_time_and_colours_of_the_class(root, tmp_path):
    made = {}
    for name in ("one", "two"):
        raw.make_ade20k(tmp_path / name)
        for split in ("train", "val"):
            COMMANDS["ade20k-panoptic"].prepare(tmp_path / name, split, workers=1)
        paths = (tmp_path / name / ADE).glob("ade20k_panoptic_*/*.png")
        made[name] = {path.name: path.read_bytes() for path in paths}
        made[name]["json"] = (tmp_path / name / ADE / "ade20k_panoptic_train.json").read_bytes()
    assert made["one"] == made["two"] and len(made["one"]) == 7
    content = json.loads(made["one"]["json"])
    colors = {entry["id"]: entry["color"] for entry in load_classes("ade20k_panoptic_150")}
    for annotation in content["annotations"]:
        ids = [segment["id"] for segment in annotation["segments_info"]]
        assert len(set(ids)) == len(ids) and 0 not in ids
        for segment in annotation["segments_info"]:
            if not content["categories"][segment["category_id"]]["isthing"]:
                r, g, b = colors[segment["category_id"]]
                assert segment["id"] == r + 256 * g + 256**2 * b


def test_ade20k_instances(root):
    made = raw.make_ade20k(root)
    prepare("ade20k-instance", root)
    metadata = MetadataCatalog.get("ade20k_instance_train")
    assert len(metadata.thing_classes) == 100 and metadata.thing_classes[:2] == ["bed", "window"]
    for record in DatasetCatalog.get("ade20k_instance_train"):
        semantic, instances = made["train"][record["image_id"]]
        masks = ade20k_truth(np.zeros_like(semantic), instances)
        assert len(record["annotations"]) == len(masks) > 1
        for annotation, (category, mask) in zip(record["annotations"], masks, strict=True):
            contiguous = metadata.thing_dataset_id_to_contiguous_id[category]
            assert annotation["category_id"] == contiguous
            assert annotation["bbox"] == raw.measured(mask)["bbox"]
            found = mask_util.decode(annotation["segmentation"])
            np.testing.assert_array_equal(found.astype(bool), mask)
    content = json.loads((root / ADE / "ade20k_instance_train.json").read_text())
    numbers = [annotation["id"] for annotation in content["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("pixel", [(0, 9, 0), (101, 9, 0)])
def test_ade20k_rejects_instances_without_a_class(root, pixel):
    raw.make_ade20k(root)
    path = root / ADE / "annotations_instance/training/ADE_train_00000003.png"
    instances = np.zeros((raw.HEIGHT, raw.WIDTH, 3), np.uint8)
    instances[1, 2] = pixel
    Image.fromarray(instances).save(path)
    for name in ("ade20k-panoptic", "ade20k-instance"):
        with pytest.raises(ValueError, match=r"00000003\.png is no instance map of ADE20K: red"):
            prepare(name, root)


def test_ade20k_rejects_an_instance_of_two_classes(root):
    raw.make_ade20k(root)
    path = root / ADE / "annotations_instance/training/ADE_train_00000003.png"
    instances = np.zeros((raw.HEIGHT, raw.WIDTH, 3), np.uint8)
    instances[1, 2], instances[1, 3] = (1, 9, 0), (2, 9, 0)
    Image.fromarray(instances).save(path)
    with pytest.raises(ValueError, match=r"00000003\.png .* each instance has one class"):
        prepare("ade20k-instance", root)


@pytest.mark.parametrize("name", ["coco_2017_val_panoptic", "coco_2017_val_panoptic_with_sem_seg"])
def test_coco_panoptic_records(root, name):
    made = raw.make_coco(root)
    prepare("coco-panoptic", root)
    entries = {entry["id"]: entry for entry in load_classes("coco_panoptic_133")}
    records = DatasetCatalog.get(name)
    assert [record["image_id"] for record in records] == list(raw.VAL_2017)
    for record in records:
        segment_ids, category_of = made["val"][Path(record["file_name"]).stem]
        np.testing.assert_array_equal(read_png(record["pan_seg_file_name"]), segment_ids)
        assert {x["id"] for x in record["segments_info"]} == set(np.unique(segment_ids)) - {0}
        for segment in record["segments_info"]:
            entry = entries[category_of[segment["id"]]]
            assert segment["category_id"] == entry["train_id"]
            assert segment["isthing"] == bool(entry["isthing"])
        assert ("sem_seg_file_name" in record) == name.endswith("_with_sem_seg")
        assert (record["height"], record["width"]) == (raw.HEIGHT, raw.WIDTH)


def test_coco_instance_records(root):
    raw.make_coco(root)
    path = root / "coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    records = DatasetCatalog.get("coco_2017_train")
    found = [
        (record["image_id"], annotation["category_id"], annotation["bbox"])
        for record in records
        for annotation in record["annotations"]
    ]
    things = [x["id"] for x in load_classes("coco_panoptic_133") if x["isthing"]]
    expected = [
        (x["image_id"], things.index(x["category_id"]), x["bbox"]) for x in content["annotations"]
    ]
    assert found == expected and len(found) > 5


def test_cityscapes_panoptic(root):
    made = raw.make_cityscapes(root)
    prepare("cityscapes", root)
    entries = {entry["id"]: entry for entry in load_classes("cityscapes_19")}
    crowds = 0
    for split in ("train", "val"):
        records = DatasetCatalog.get(f"cityscapes_fine_panoptic_{split}")
        assert [record["image_id"] for record in records] == sorted(made[split])
        for record in records:
            values = made[split][record["image_id"]]
            expected = np.zeros_like(values)
            segments = {segment["id"]: segment for segment in record["segments_info"]}
            for value in np.unique(values):
                entry = entries.get(value // 1000 if value >= 1000 else value)
                if entry is None:
                    assert value not in segments
                    continue
                expected[values == value] = value
                segment = segments.pop(value)
                assert segment["category_id"] == entry["train_id"]
                assert segment["iscrowd"] == int(entry["isthing"] and value < 1000)
                crowds += segment["iscrowd"]
                measured = raw.measured(values == value)
                assert {key: segment[key] for key in ("area", "bbox")} == measured
            assert not segments
            np.testing.assert_array_equal(read_png(record["pan_seg_file_name"]), expected)
            assert record["sem_seg_file_name"].endswith("_gtFine_labelTrainIds.png")
            assert record["file_name"].endswith(f"{record['image_id']}_leftImg8bit.png")
    assert crowds


def test_cityscapes_equals_the_official_script(root):
    official = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    raw.make_cityscapes(root)
    prepare("cityscapes", root)
    folder = root / "cityscapes/gtFine"
    (root / "official").mkdir()
    official.convert2panoptic(str(folder), str(root / "official"), False, ["train"])
    ours, theirs = (
        json.loads(path.read_text())["annotations"]
        for path in (
            folder / "cityscapes_panoptic_train.json",
            root / "official/cityscapes_panoptic_train.json",
        )
    )
    for annotation in ours:
        del annotation["id"]
    assert ours == theirs
    for annotation in ours:
        paths = (folder, root / "official")
        pngs = [read_png(p / "cityscapes_panoptic_train" / annotation["file_name"]) for p in paths]
        np.testing.assert_array_equal(*pngs)


def test_regions_and_colours_of_ids():
    ids = np.array([[0, 5, 5], [70000, 0, 2**24 - 1]])
    assert regions(ids) == {
        5: {"area": 2, "bbox": [1, 0, 2, 1]},
        70000: {"area": 1, "bbox": [0, 1, 1, 1]},
        2**24 - 1: {"area": 1, "bbox": [2, 1, 1, 1]},
    }
    assert regions(np.zeros((2, 2), int)) == {}
    assert ids_to_colors(ids)[1].tolist() == [[112, 17, 1], [0, 0, 0], [255, 255, 255]]
