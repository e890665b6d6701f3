"""Entities of COCO and of the built-in data, against brute force."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as mask_util
from support import raw_datasets as raw
from support.mapping import mapper_config

from rankseg_d2.cli import main
from rankseg_d2.data.checks.scan import scan
from rankseg_d2.data.datasets import COMMANDS
from rankseg_d2.data.datasets import coco as module
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.data.mappers import build_mapper


@pytest.fixture
def coco(root):
    """The files as published: {split: {name: (segment ids, {id: category})}}."""
    return raw.make_coco(root)


def prepare(root, *options):
    command = ["dataset", "prepare", "coco-entity", "--root", str(root), "--workers", "1"]
    assert main([*command, *options]) == 0


def crowds(root, split):
    """{image id: ids of its crowds}."""
    content = json.loads((root / f"coco/annotations/panoptic_{split}2017.json").read_text())
    return {
        x["image_id"]: {s["id"] for s in x["segments_info"] if s["iscrowd"]}
        for x in content["annotations"]
    }


@pytest.mark.parametrize("box_area", [False, True])
def test_the_json_has_each_segment_that_is_no_crowd(root, coco, box_area, capsys):
    prepare(root, *(["--box-area"] if box_area else []))
    for split in ("train", "val"):
        path = root / f"coco/annotations/entity_{split}2017.json"
        content = json.loads(path.read_text())
        assert [x["name"] for x in content["categories"]] == ["entity"]
        assert [x["id"] for x in content["images"]] == [int(name) for name in coco[split]]
        left_out, number = crowds(root, split), 0
        for image, ids in zip(content["images"], coco[split].values(), strict=True):
            assert (image["height"], image["width"]) == ids[0].shape
            true = [i for i in ids[1] if i not in left_out[image["id"]]]
            own = [x for x in content["annotations"] if x["image_id"] == image["id"]]
            masks = {mask_util.decode(x["segmentation"]).tobytes(): x for x in own}
            assert len(own) == len(masks) == len(true)
            for i in true:
                mask = ids[0] == i
                found = masks[np.asfortranarray(mask, np.uint8).tobytes()]
                expected = raw.measured(mask)
                if box_area:
                    x, y, w, h = expected["bbox"]
                    expected = {"bbox": [x, y, w - 1, h - 1], "area": (w - 1) * (h - 1)}
                assert {key: found[key] for key in expected} == expected
                assert (found["category_id"], found["iscrowd"]) == (1, 0)
                number += 1
        assert number > 5
        assert [x["id"] for x in content["annotations"]] == list(range(1, number + 1))
    assert capsys.readouterr().out == f"coco-entity: train and val prepared in {root}\n"


def test_a_preparation_goes_on_where_it_stopped(root, coco, monkeypatch):
    prepare(root, "--splits", "val")
    path = root / "coco/annotations/entity_val2017.json"
    expected, calls = path.read_bytes(), []
    path.unlink()
    convert = module.convert_entities

    def stop(job):
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return convert(job)

    monkeypatch.setattr(module, "convert_entities", stop)
    with pytest.raises(KeyboardInterrupt):
        COMMANDS["coco-entity"].prepare(root, "val", workers=1)
    with pytest.raises(RuntimeError, match="coco-entity --root .* again: it resumes where"):
        DatasetCatalog.get("coco_2017_val_entity")
    prepare(root, "--splits", "val")
    assert path.read_bytes() == expected
    assert len(calls) == len(coco["val"]) + 1  # the first one was kept


def test_records_are_those_of_panoptic_segmentation_with_one_class(root, coco):
    with pytest.raises(FileNotFoundError, match="entity_val2017.json does not exist; make it"):
        DatasetCatalog.get("coco_2017_val_entity")
    records = DatasetCatalog.get("coco_2017_train_entity")  # needs no preparation
    panoptic = DatasetCatalog.get("coco_2017_train_panoptic")
    assert len(records) == len(panoptic) > 1
    for one, other in zip(records, panoptic, strict=True):
        assert one["pan_seg_file_name"] == other["pan_seg_file_name"]
        for mine, theirs in zip(one["segments_info"], other["segments_info"], strict=True):
            assert mine == theirs | {"category_id": 0, "isthing": True}
    metadata = MetadataCatalog.get("coco_2017_val_entity")
    assert metadata.stuff_classes == metadata.thing_classes == ["entity"]
    prepare(root, "--splits", "val")
    assert len(DatasetCatalog.get("coco_2017_val_entity")) == len(coco["val"])


@pytest.mark.parametrize("name", ["entity", "coco_entity_lsj"])
def test_a_sample_has_the_masks_of_all_segments_of_class_0(root, coco, name):
    keys = {"INPUT.MIN_SIZE_TRAIN": (raw.HEIGHT,), "INPUT.RANDOM_FLIP": "none",
            "INPUT.IMAGE_SIZE": 64, "INPUT.MIN_SCALE": 1.0, "INPUT.MAX_SCALE": 1.0}  # fmt: skip
    mapper = build_mapper(mapper_config("coco_2017_train_entity", name, keys), is_train=True)
    left_out = crowds(root, "train")
    for record in DatasetCatalog.get("coco_2017_train_entity"):
        instances = mapper(record)["instances"]
        ids, category_of = coco["train"][f"{record['image_id']:012d}"]
        true = [i for i in category_of if i not in left_out[record["image_id"]]]
        assert instances.gt_classes.tolist() == [0] * len(true)
        if name == "entity":
            masks = instances.gt_masks.tensor.numpy()
            assert all((mask == (ids == i)).all() for mask, i in zip(masks, true, strict=True))


def test_labels_can_be_checked(root, coco):
    records = DatasetCatalog.get("coco_2017_train_entity")
    tally = scan(records, MetadataCatalog.get("coco_2017_train_entity"), "entities", workers=1)
    assert tally.faults == []


def test_the_built_in_data_has_entities(tmp_path):
    register_shapes(12, root=tmp_path, num_images={"train": 2, "val": 2})
    names = [f"shapes12_{kind}_val" for kind in ("entity", "panoptic")]
    try:
        records, panoptic = map(DatasetCatalog.get, names)
        assert MetadataCatalog.get(names[0]).evaluator_type == "entity_seg"
        for one, other in zip(records, panoptic, strict=True):
            assert "sem_seg_file_name" not in one
            assert [x["id"] for x in one["segments_info"]] == [
                x["id"] for x in other["segments_info"]
            ]
            assert {x["category_id"] for x in one["segments_info"]} == {0}
    finally:
        for name in [x for x in DatasetCatalog.list() if x.startswith("shapes12_")]:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
