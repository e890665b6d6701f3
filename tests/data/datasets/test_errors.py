"""Data sets that are missing, not whole, or do not fit together: what a user is told."""

import os
import re

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image
from support import raw_datasets as raw

from rankseg_d2.cli import main
from rankseg_d2.data.datasets import COMMANDS

ADE = "ADEChallengeData2016"


def run(name, root, splits=("train",)):
    for split in splits:
        COMMANDS[name].prepare(root, split, workers=1)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ade20k_sem_seg_val", "ade20k"),
        ("ade20k_instance_val", "ade20k-instance"),
        ("ade20k_full_sem_seg_val", "ade20k-full"),
        ("coco_2017_val_panoptic_with_sem_seg", "coco-panoptic"),
        ("coco_2017_test_stuff_10k_sem_seg", "coco-stuff-10k"),
        ("coco_2017_val_stuff_164k_sem_seg", "coco-stuff-164k"),
        ("coco_lvis_sem_seg_val", "coco-lvis"),
        ("pascal_context_59_sem_seg_val", "pascal-context"),
        ("cityscapes_fine_panoptic_val", "cityscapes"),
        ("camvid_sem_seg_val", "camvid"),
        ("mhpv1_parsing_val", "mhpv1"),
        ("mhpv2_sem_seg_val", "mhpv2"),
    ],
)
def test_what_is_missing_names_its_command_and_that_names_what_it_lacks(
    root, capsys, name, command
):
    text = f"does not exist; make it with `rankseg-d2 dataset prepare {command} --root {root}`"
    with pytest.raises(FileNotFoundError, match=text):
        DatasetCatalog.get(name)
    assert main(["dataset", "prepare", command, "--root", str(root), "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert f"prepare {command}: error: {root}" in error and "does not exist; download" in error
    assert not any(root.iterdir())


def test_coco_without_its_files_names_them(root):
    with pytest.raises(FileNotFoundError, match="instances_val2017.json does not exist"):
        DatasetCatalog.get("coco_2017_val")
    with pytest.raises(FileNotFoundError, match="panoptic_val2017.json does not exist"):
        DatasetCatalog.get("coco_2017_val_panoptic")


def test_images_and_labels_that_do_not_pair_are_counted_and_named(root):
    raw.make_ade20k(root)
    run("ade20k", root)
    (root / ADE / "images/training/ADE_train_00000003.jpg").unlink()
    (root / ADE / "annotations_detectron2/training/ADE_train_00000001.png").unlink()
    text = (
        r"ade20k_sem_seg_train do not pair: of 3 names, no image for 1 "
        r"\(ADE_train_00000003\) and no label map for 1 \(ADE_train_00000001\)"
    )
    with pytest.raises(ValueError, match=text):
        DatasetCatalog.get("ade20k_sem_seg_train")


def test_an_empty_list_is_an_error(root):
    raw.make_coco_stuff_10k(root)
    run("coco-stuff-10k", root)
    path = root / "coco/coco_stuff_10k/imageLists/train.txt"
    times = os.stat(path)
    path.write_text("\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FileNotFoundError, match="coco_2017_train_stuff_10k_sem_seg is empty"):
        DatasetCatalog.get("coco_2017_train_stuff_10k_sem_seg")


def test_a_json_that_does_not_belong_to_its_folder_names_the_missing_file(root):
    raw.make_coco(root)
    names = [f"coco/annotations/panoptic_{split}2017.json" for split in ("train", "val")]
    (root / names[1]).write_bytes((root / names[0]).read_bytes())
    text = (
        r"coco/panoptic_val2017 lacks 4 of the 4 PNG files that .*panoptic_val2017\.json names, "
        r"such as 000000000009\.png"
    )
    with pytest.raises(FileNotFoundError, match=text):
        DatasetCatalog.get("coco_2017_val_panoptic")
    with pytest.raises(FileNotFoundError, match=text):
        run("coco-panoptic", root, splits=["val"])


def test_a_segment_that_the_json_does_not_know_is_named(root):
    raw.make_coco(root)
    path = root / "coco/panoptic_val2017/000000000139.png"
    Image.fromarray(np.full((raw.HEIGHT, raw.WIDTH, 3), 1, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"000000000139\.png has a segment 65793"):
        run("coco-panoptic", root, splits=["val"])


def test_a_category_that_is_no_class_is_named(root):
    raw.make_coco(root)
    for kind in ("instances", "panoptic"):
        path = root / f"coco/annotations/{kind}_val2017.json"
        path.write_text(path.read_text().replace('"category_id": ', '"category_id": 1000'))
    for name in ("coco_2017_val", "coco_2017_val_panoptic"):
        with pytest.raises(ValueError, match=r"val2017\.json has category_id=1000\d+, which is no"):
            DatasetCatalog.get(name)


def test_an_image_of_lvis_that_is_in_no_known_folder_is_named(root):
    raw.make_coco_lvis(root)
    path = root / "lvis/lvis_v1_val.json"
    path.write_text(path.read_text().replace("/val2017/", "/test2017/"))
    with pytest.raises(ValueError, match="image 139 is in test2017, but COCO.LVIS has only"):
        run("coco-lvis", root, splits=["val"])


def test_a_damaged_json_is_named(root):
    raw.make_coco(root)
    path = root / "coco/annotations/panoptic_val2017.json"
    path.write_text(path.read_text()[:1000])
    message = r"panoptic_val2017\.json is not valid json: .* Download or make the file again"
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("coco_2017_val_panoptic")


@pytest.mark.parametrize(
    ("make", "command", "pattern"),
    [
        (raw.make_ade20k, "ade20k", f"{ADE}/annotations/training/*.png"),
        (raw.make_ade20k, "ade20k-panoptic", f"{ADE}/annotations_instance/training/*.png"),
        (raw.make_ade20k_full, "ade20k-full", "ADE20K_2021_17_01/images/ADE/training/*/*/*.jpg"),
        (raw.make_ade20k_full, "ade20k-full", "ADE20K_2021_17_01/images/ADE/training/*/*/*_seg.*"),
        (raw.make_coco, "coco-panoptic", "coco/panoptic_train2017/*.png"),
        (raw.make_coco_stuff_10k, "coco-stuff-10k", "coco/coco_stuff_10k/annotations/*.mat"),
        (raw.make_coco_stuff_164k, "coco-stuff-164k", "coco/stuffthingmaps/train2017/*.png"),
        (raw.make_cityscapes, "cityscapes", "cityscapes/gtFine/train/*/*_instanceIds.png"),
    ],
)
def test_a_damaged_file_is_named(root, capsys, make, command, pattern):
    make(root)
    for path in root.glob(pattern):
        path.write_bytes(path.read_bytes()[:60])
    assert main(["dataset", "prepare", command, "--root", str(root), "--workers", "1"]) == 1
    folder = re.escape(str(root / pattern.partition("*")[0]))
    assert re.search(rf"prepare {command}: error: .*{folder}.*(cannot be read|is damaged)",
                     capsys.readouterr().err)


def test_a_damaged_record_is_named_with_the_fix(root):
    raw.make_ade20k(root)
    run("ade20k", root)
    record = root / ADE / "prepared_semantic_train.json"
    record.write_text(record.read_text()[:20])
    message = (
        r"record of a preparation is damaged: .*semantic_train\.json is not valid json.* "
        "Delete it and run"
    )
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("ade20k_sem_seg_train")
