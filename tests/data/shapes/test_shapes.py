"""The built-in data set: files that agree with each other, scenes, registration."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from rankseg_d2 import cli
from rankseg_d2.data.datasets import register_named, shapes
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.data.drawn.split import MIN_AREA, ensure_split
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.shapes.build import Spec
from rankseg_d2.data.shapes.patterns import SHAPES, TEXTURES
from rankseg_d2.data.shapes.scene import HARD, PLAIN, draw, make_scene
from rankseg_d2.data.shapes.vocabulary import make_vocabulary

SMALL = Spec(40, "train", 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "40" / "train"
    ensure_split(folder, SMALL, num_workers=1)
    return folder


@pytest.fixture
def names():
    """Takes names of registered data sets, and removes these afterwards."""
    registered = []
    yield registered
    for name in registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def register(names, num_categories, root, **num_images):
    before = set(DatasetCatalog.list())
    register_shapes(num_categories, root=root, num_images=num_images)
    names += sorted(set(DatasetCatalog.list()) - before)


def pixels(path):
    return np.asarray(Image.open(path))


# ---------------------------------------------------------------- the files of an image agree


def test_labels_segments_and_instances_agree_pixel_by_pixel(folder):
    from pycocotools import mask as coco_mask

    panoptic = json.loads((folder / "panoptic.json").read_text())
    instances = json.loads((folder / "instances.json").read_text())
    is_thing = {category["id"]: category["isthing"] for category in panoptic["categories"]}
    num_void = 0
    for annotation in panoptic["annotations"]:
        rgb = pixels(folder / "panoptic" / annotation["file_name"]).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        labels = pixels(folder / "labels" / annotation["file_name"])
        segments = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(np.unique(ids)) - {0} == set(segments)
        assert np.array_equal(ids == 0, labels == 255)
        num_void += (ids == 0).sum()
        masks = {
            (a["category_id"], a["area"], *a["bbox"]): coco_mask.decode(a["segmentation"])
            for a in instances["annotations"]
            if a["image_id"] == annotation["image_id"]
        }
        for number, segment in segments.items():
            mask = ids == number
            y, x = np.nonzero(mask)
            assert segment["area"] == mask.sum() >= MIN_AREA
            assert segment["bbox"] == [
                x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1
            ]  # fmt: skip
            assert (labels[mask] == segment["category_id"] - 1).all()
            key = (segment["category_id"], segment["area"], *segment["bbox"])
            assert (key in masks) == is_thing[segment["category_id"]]
            assert key not in masks or np.array_equal(masks[key], mask)
        stuff = [s["category_id"] for s in segments.values() if not is_thing[s["category_id"]]]
        assert len(stuff) == len(set(stuff))
    assert num_void > 0
    numbers = [annotation["id"] for annotation in instances["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert pixels(folder / "images" / "000000.jpg").shape == (96, 128, 3)


@pytest.mark.parametrize(
    ("num_categories", "dtype", "void"), [(255, "uint8", 255), (256, "uint16", 65535)]
)
def test_labels_have_16_bits_from_256_categories_on(num_categories, dtype, void, tmp_path, names):
    register(names, num_categories, tmp_path, train=60, val=1)
    name = f"shapes{num_categories}_sem_seg_train"
    records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    assert metadata.ignore_label == void
    labels = [pixels(record["sem_seg_file_name"]) for record in records]
    assert {str(label.dtype) for label in labels} == {dtype}
    found = np.unique(np.concatenate([label.ravel() for label in labels]))
    assert found[found != void].max() in range(num_categories * 9 // 10, num_categories)
    assert np.array_equal(read_label_map(records[0]["sem_seg_file_name"], metadata), labels[0])


# ---------------------------------------------------------------- what the scenes are like


def test_a_picture_follows_from_seed_and_time_and_things_move():
    vocabulary = make_vocabulary(40)
    scene = make_scene(vocabulary, (40, 0, 7), 4 / 3)
    first = draw(scene, 96, 128, time=2)
    again = draw(make_scene(vocabulary, (40, 0, 7), 4 / 3), 96, 128, time=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    later = draw(scene, 96, 128, time=12)
    assert not np.array_equal(first[1], later[1])
    # Over one frame nothing jumps: most pixels show what they showed.
    assert (draw(scene, 96, 128, time=3)[1] == first[1]).mean() > 0.85


def test_hard_scenes_have_smaller_things_and_noisier_pixels():
    vocabulary = make_vocabulary(40)
    noise, radii = {}, {}
    for style in (PLAIN, HARD):
        scenes = [make_scene(vocabulary, (40, 0, i), 4 / 3, style) for i in range(20)]
        pictures = [draw(scene, 96, 128)[0].astype(float) for scene in scenes]
        bare = [replace(scene, style=replace(style, pixel_noise=0)) for scene in scenes]
        clean = [draw(scene, 96, 128)[0].astype(float) for scene in bare]
        noise[style] = np.median(abs(np.stack(pictures) - np.stack(clean)).mean((1, 2, 3)))
        radii[style] = np.mean([thing.radius for scene in scenes for thing in scene.things])
    assert noise[HARD] > 2 * noise[PLAIN] > 0
    assert radii[HARD] < 0.9 * radii[PLAIN]


def test_the_hard_scenes_are_data_sets_of_their_own(names, tmp_path):
    before = set(DatasetCatalog.list())
    register_shapes(10, hard=True, root=tmp_path, num_images={"train": 2, "val": 1})
    register_named(["shapes12_hard_sem_seg_train"])
    names.extend(set(DatasetCatalog.list()) - before)
    assert all("_hard_" in name for name in names) and len(names) == 24
    (record,) = DatasetCatalog.get("shapes10_hard_panoptic_val")
    assert Path(record["file_name"]).is_relative_to(tmp_path / "shapes" / "10_hard" / "val")


@pytest.mark.parametrize("num_categories", [10, 100, 1000, 2000])
def test_a_vocabulary_has_distinct_categories_that_all_occur(num_categories):
    vocabulary = make_vocabulary(num_categories)
    assert len({category.name for category in vocabulary.categories}) == num_categories
    num_things = round(0.7 * num_categories)
    assert [c.is_thing for c in vocabulary.categories] == (
        [True] * num_things + [False] * (num_categories - num_things)
    )
    at_home = np.concatenate(
        [np.concatenate([kind.things, kind.grounds]) for kind in vocabulary.scene_types]
    )
    assert set(at_home) == set(range(num_categories))


def present(num_categories, count=400):
    """Which categories each of the first scenes has: (count, C) bool."""
    vocabulary = make_vocabulary(num_categories)
    there = np.zeros((count, num_categories), bool)
    for i in range(count):
        scene = make_scene(vocabulary, (num_categories, 0, i), 4 / 3)
        there[i, [paint.category for paint in (*scene.grounds, *scene.things)]] = True
    return there


def test_images_have_few_categories_and_these_occur_together():
    there = present(100)
    per_image = there.sum(1)
    assert 5 < per_image.mean() < 10
    assert per_image.max() <= 14  # of 100
    often = there.mean(0)
    assert often.max() > 10 * np.quantile(often, 0.1) > 0  # a long tail
    # How much more often two categories meet than they would by chance.
    together = there.T.astype(float) @ there / len(there)
    lift = together / np.maximum(often[:, None] * often, 1e-9)
    pairs = lift[np.triu_indices(100, 1)]
    assert (pairs == 0).mean() > 0.3
    assert (pairs > 3).mean() > 0.1


def test_things_hide_each_other():
    vocabulary = make_vocabulary(100)
    hidden = 0
    for i in range(20):
        scene = make_scene(vocabulary, (100, 0, i), 4 / 3)
        alone = [draw(replace(scene, things=(thing,)), 96, 128)[1] for thing in scene.things]
        full = sum((numbers >= len(scene.grounds)).sum() for numbers in alone)
        hidden += 1 - (draw(scene, 96, 128)[1] >= len(scene.grounds)).sum() / full
    assert 0.05 < hidden / 20 < 0.5


def test_shapes_and_textures_differ():
    y, x = np.mgrid[-1:1:64j, -1:1:64j].astype(np.float32)
    masks = [shape(x, y) for shape in SHAPES.values()]
    assert all(0.15 < mask.mean() < 0.85 for mask in masks)
    overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) < 0.92
    weights = [texture(4 * x, 4 * y) for texture in TEXTURES.values()]
    assert all(weight.min() >= 0 and weight.max() <= 1 for weight in weights)
    assert all(abs(a - b).mean() > 0.1 for i, a in enumerate(weights) for b in weights[:i])


# ---------------------------------------------------------------- registration


def test_records_of_the_three_tasks(tmp_path, names):
    register(names, 12, tmp_path, train=5, val=3)
    panoptic = DatasetCatalog.get("shapes12_panoptic_val")
    semantic = DatasetCatalog.get("shapes12_sem_seg_val")
    instance = DatasetCatalog.get("shapes12_instance_val")
    metadata = MetadataCatalog.get("shapes12_panoptic_val")
    assert len(panoptic) == len(semantic) == len(instance) == 3
    assert metadata.stuff_classes[:8] == metadata.thing_classes
    assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in range(8)}
    assert metadata.stuff_dataset_id_to_contiguous_id == {i + 1: i for i in range(12)}
    for whole, labels, objects in zip(panoptic, semantic, instance, strict=True):
        for key in ("file_name", "sem_seg_file_name", "image_id", "height", "width"):
            assert whole[key] == labels[key] == objects[key]
        assert (whole["height"], whole["width"]) == (96, 128)
        assert os.path.isfile(whole["file_name"]) and os.path.isfile(whole["pan_seg_file_name"])
        present = np.unique(read_label_map(labels["sem_seg_file_name"], metadata))
        categories = [segment["category_id"] for segment in whole["segments_info"]]
        assert set(categories) == set(present) - {255}
        things = sorted(category for category in categories if category < 8)
        assert sorted(a["category_id"] for a in objects["annotations"]) == things
        assert {a["bbox_mode"] for a in objects["annotations"]} <= {BoxMode.XYWH_ABS}
    assert not (tmp_path / "shapes" / "12" / "train").exists()  # nobody asked for it
    register_shapes(12, root=tmp_path / "other", num_images={"train": 1, "val": 2})
    assert len(DatasetCatalog.get("shapes12_panoptic_val")) == 2
    assert (tmp_path / "other" / "shapes" / "12" / "val" / "spec.json").is_file()


def test_the_default_size_can_be_drawn_ahead(tmp_path, monkeypatch):
    monkeypatch.setitem(shapes.NUM_IMAGES, "val", 2)
    words = ["dataset", "prepare", "shapes", "--root", str(tmp_path), "--splits", "val"]
    assert cli.main(words) == 0
    assert len(list((tmp_path / "shapes" / "100" / "val" / "images").iterdir())) == 2


def test_any_number_of_categories_is_known_by_name(names):
    register_named(["shapes321_panoptic_train", "shapes_sem_seg_val", "shapes_panoptic_tarin"])
    names += [name for name in DatasetCatalog.list() if name.startswith("shapes321_")]
    assert len(names) == 12
    register_named(["shapes321_sem_seg_val"])  # again
    assert len(MetadataCatalog.get("shapes321_sem_seg_val").stuff_classes) == 321
    assert len(MetadataCatalog.get("shapes_panoptic_val").stuff_classes) == 100


@pytest.mark.parametrize("name", ["shapes9_panoptic_train", "shapes2001_sem_seg_val"])
def test_other_numbers_of_categories_are_refused(name):
    number = "9" if "9" in name else "2001"
    with pytest.raises(ValueError, match=f"10 to 2000 categories, got {number}"):
        register_named([name])
    assert name not in DatasetCatalog.list()


def test_a_split_must_be_known_and_have_images():
    with pytest.raises(ValueError, match="train, val.*'test' with 5"):
        Spec(40, "test", 5)
    with pytest.raises(ValueError, match="with 1 image or more"):
        Spec(40, "val", 0)
