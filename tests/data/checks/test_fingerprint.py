"""The numbers by which a training is chosen are those of the files."""

import numpy as np
import pytest
from support import own_data

from rankseg_d2.data.checks import fingerprint as module
from rankseg_d2.data.checks.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("clean_catalogs")
TRAINING = {"train": "train.txt", "val": "val.txt"}


def split(folder, train, val):
    for name, names in (("train", train), ("val", val)):
        (folder / f"{name}.txt").write_text("".join(f"{one}\n" for one in names))


def test_label_images(tmp_path):
    path, maps = own_data.semantic(tmp_path, splits=TRAINING)
    split(tmp_path, own_data.NAMES[:7], own_data.NAMES[7:])
    for name, size in (("000", (50, 40)), ("001", (90, 30))):  # of two images of seven
        own_data.write_image(tmp_path / "images" / f"{name}.jpg", size)
        own_data.write_label(tmp_path / "labels" / f"{name}.png", np.zeros(size, np.uint8))
    found = fingerprint(path, workers=1)
    most = max(len(np.unique(maps[name])) for name in own_data.NAMES[2:7])
    height, width = own_data.SIZE
    assert found == ("street", "semantic", 7, 3, 5, height, width, most, most, 7, 0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # an odd image has a car and a bus; of sky, car and a crowd of buses, the crowd is no object
        ("instances", ("instance", 2, 2, 2)),
        ("panoptic", ("panoptic", 3, 2, 2)),
    ],
)
def test_jsons(tmp_path, kind, expected):
    path, _ = getattr(own_data, kind)(tmp_path)
    found = fingerprint(path, workers=1)
    assert (found.task, found.classes, found.categories, found.objects) == expected
    assert (found.images, found.val_images) == (8, 2)
    assert (found.height, found.width) == own_data.SIZE


def test_polygons_that_are_drawn_are_semantic(tmp_path):
    path, _ = own_data.instances(tmp_path, task="semantic", background="ground")
    found = fingerprint(path, workers=1)
    assert (found.task, found.classes, found.categories) == ("semantic", 3, 3)


def test_of_many_images_some_are_read_from_first_to_last(tmp_path, monkeypatch):
    path, maps = own_data.semantic(tmp_path, splits=TRAINING)
    split(tmp_path, own_data.NAMES[:9], own_data.NAMES[9:])
    monkeypatch.setattr(module, "_MOST_COUNTED", 3)
    found = fingerprint(path, workers=1)
    assert (found.images, found.counted) == (9, 3)
    assert found.categories == max(len(np.unique(maps[name])) for name in ("000", "003", "006"))


def test_without_a_split_val_or_its_labels_nothing_is_to_be_evaluated(tmp_path):
    path, _ = own_data.semantic(tmp_path, splits={"train": 1.0})
    assert fingerprint(path, workers=1).val_images == 0
    both = {"images": "images", "labels": "labels"}
    splits = {"train": both, "val": {"images": "images", "labels": "none"}}
    path = own_data.write_yaml(tmp_path, name="fields", classes=own_data.CLASSES, splits=splits)
    assert fingerprint(path, workers=1).val_images == 0


def test_faults_are_counted(tmp_path):
    path, _ = own_data.semantic(tmp_path)
    (tmp_path / "images" / "000.jpg").write_bytes(b"no image")
    own_data.write_label(tmp_path / "labels" / "001.png", np.full(own_data.SIZE, 77, np.uint8))
    with pytest.raises(ValueError, match="000.jpg cannot be read"):
        fingerprint(path, workers=1)
    own_data.write_image(tmp_path / "images" / "000.jpg")
    assert fingerprint(path, workers=1).faults == 1


def test_what_cannot_be_trained_on_is_said(tmp_path):
    path, _ = own_data.semantic(tmp_path, splits={"all": 1.0})
    with pytest.raises(ValueError, match="must have a split train, .* only all; rename"):
        fingerprint(path)
    path, _ = own_data.semantic(tmp_path, splits={"train": 1.0}, ignore=[0, 1, 2, 3, 4, 255],
                                label_offset=5)  # fmt: skip
    for name in own_data.NAMES:
        own_data.write_label(tmp_path / "labels" / f"{name}.png", np.zeros(own_data.SIZE, int))
    with pytest.raises(ValueError, match="no image of the split train has a category"):
        fingerprint(path, workers=1)
    keys = {"videos": "frames", "labels": "labels", "classes": ["road"], "splits": {"train": 1.0}}
    path = own_data.write_yaml(tmp_path, name="dashcam", **keys)
    with pytest.raises(ValueError, match="describes videos, .* --data .* vspw/semantic/r50_rank"):
        fingerprint(path)
