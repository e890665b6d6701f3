"""Human parsing in training: squares, rotation, left and right, and persons as targets."""

import re

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from support import raw_persons as raw
from support.mapping import mapper_config
from support.paths import ROOT

from rankseg_d2.data.classes import load_flip_pairs
from rankseg_d2.data.mappers import MAPPERS, build_mapper
from rankseg_d2.data.mappers.augmentations import Stretch, StretchAndCrop
from rankseg_d2.data.mappers.images import TrainMapper, present_classes
from rankseg_d2.modeling.passes import TestTimeAugmentation
from rankseg_d2.tasks import TASKS

NAME = "cihp_parsing_train"
KEYS = {
    "INPUT.KEEP_RATIO": False,
    "INPUT.IMAGE_SIZE": 60,
    "INPUT.MIN_SCALE": 0.75,
    "INPUT.MAX_SCALE": 1.25,
    "INPUT.MIN_SIZE_TEST": 48,
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": [48, 48],
    "INPUT.SIZE_DIVISIBILITY": 48,
}
STILL = {"INPUT.IMAGE_SIZE": 40, "INPUT.MIN_SCALE": 1.0, "INPUT.MAX_SCALE": 1.0,
         "INPUT.CROP.ENABLED": False, "INPUT.SIZE_DIVISIBILITY": -1}  # fmt: skip


@pytest.fixture
def record(root):
    raw.make_cihp(root)
    return DatasetCatalog.get(NAME)[0]


def mapped(record, seed, mapper="parsing", **keys):
    keys = KEYS | {key.replace("__", "."): value for key, value in keys.items()}
    np.random.seed(seed)
    return build_mapper(mapper_config(NAME, mapper, keys), True)(dict(record))


@pytest.mark.parametrize("mapper", [m for m in MAPPERS if not MAPPERS[m].is_video])
def test_the_page_on_data_says_which_mappers_make_squares(record, mapper):
    """All but those that end in _lsj in training; every one in a test."""
    cfg = mapper_config(NAME, mapper, KEYS)
    text = str(build_mapper(cfg, True).augmentations)
    assert ("Stretch" in text) == (not mapper.endswith("_lsj"))
    assert "Stretch" in str(build_mapper(cfg, False).augmentations)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_the_page_on_data_names_the_mappers_that_read_label_maps(mapper):
    page = (ROOT / "docs" / "data.md").read_text()
    (named,) = re.findall(r"where a label map was read\s+\((.*?)\)", page, re.DOTALL)
    kind = MAPPERS[mapper]
    assert (f"`{mapper}`" in named) == (kind.reads_labels and not kind.is_video)


def test_texts_on_the_tasks_name_all_of_them():
    page = (ROOT / "docs" / "architecture.md").read_text()
    (line,) = re.findall(r"one row per task: (.*) \|", page)
    assert line.split(", ") == list(TASKS)
    assert all(task in TrainMapper.__doc__ for task in TASKS)


def test_persons_come_after_the_parts_of_all(record):
    for seed in range(6):
        sample = mapped(record, seed, INPUT__ROTATION__DEGREES=30.0)
        labels, objects = sample["sem_seg"], sample["instances"]
        assert sample["image"].shape[1:] == labels.shape == (48, 48)
        masks, classes = objects.gt_masks.tensor, objects.gt_classes.tolist()
        parts = [c for c in classes if c != 20]
        assert parts == sorted(set(labels.unique().tolist()) - {255})
        assert classes == parts + [20] * (len(classes) - len(parts)) and 20 in classes
        for part, mask in zip(parts, masks, strict=False):
            assert torch.equal(mask, labels == part)
        persons = masks[len(parts) :]
        assert torch.equal(persons.any(0), (labels > 0) & (labels != 255))
        assert (persons.sum(0) <= 1).all()


def test_left_and_right_change_places_in_a_mirrored_image(record):
    swap = np.arange(256)
    for a, b in load_flip_pairs("cihp_20"):
        swap[[a, b]] = b, a
    flips = {key.replace(".", "__"): value for key, value in STILL.items()}
    flips |= {"INPUT__RANDOM_FLIP": "horizontal"}
    plain = mapped(record, 0, **flips | {"INPUT__RANDOM_FLIP": "none"})
    seen = set()
    for seed in range(8):
        sample = mapped(record, seed, **flips)
        is_flipped = not torch.equal(sample["image"], plain["image"])
        seen.add(is_flipped)
        labels = plain["sem_seg"].numpy()
        expected = swap[labels[:, ::-1]] if is_flipped else labels
        np.testing.assert_array_equal(sample["sem_seg"].numpy(), expected)
        persons = sample["instances"].gt_classes == 20
        assert persons.sum() == 2
        before = plain["instances"].gt_masks.tensor[plain["instances"].gt_classes == 20]
        after = sample["instances"].gt_masks.tensor[persons]
        assert torch.equal(after, before.flip(-1) if is_flipped else before)
    assert seen == {False, True}


def test_semantic_mappers_rotate_images_and_labels_alike(record):
    still = {key.replace(".", "__"): value for key, value in STILL.items()}
    still |= {"INPUT__RANDOM_FLIP": "none", "INPUT__ROTATION__DEGREES": 30.0}
    plain = mapped(record, 0, "mask_former_semantic", **still, INPUT__ROTATION__PROBABILITY=0.0)
    turned = [
        mapped(record, seed, "mask_former_semantic", **still, INPUT__ROTATION__PROBABILITY=0.5)
        for seed in range(12)
    ]
    is_turned = [not torch.equal(sample["sem_seg"], plain["sem_seg"]) for sample in turned]
    assert 0 < sum(is_turned) < 12
    for sample, was in zip(turned, is_turned, strict=True):
        corner = sample["image"][:, 0, 0]
        assert ((sample["sem_seg"] == 255).any().item()) is was
        if was and sample["sem_seg"][0, 0] == 255:
            assert (corner == 128).all()
        assert 255 not in sample["instances"].gt_classes


def test_images_become_squares_and_results_keep_their_size(record):
    mapper = build_mapper(mapper_config(NAME, "parsing", KEYS), False)
    sample = mapper(dict(record))
    assert sample["image"].shape == (3, 48, 48)
    assert (sample["height"], sample["width"]) == (40, 56)
    native = build_mapper(mapper_config(NAME, "parsing", KEYS | {"INPUT.MIN_SIZE_TEST": 0}), False)
    assert native(dict(record))["image"].shape == (3, 40, 56)


def test_a_scale_is_drawn_for_both_sides():
    image = np.zeros((30, 50, 3), np.uint8)
    sizes = set()
    for seed in range(20):
        np.random.seed(seed)
        resize = Stretch(100, 0.75, 1.25).get_transform(image)
        assert resize.new_h == resize.new_w and 75 <= resize.new_h <= 125
        sizes.add(resize.new_h)
        aug_input = T.AugInput(image, sem_seg=np.zeros((30, 50), np.int32))
        StretchAndCrop(100, 0.75, 1.25, "absolute", (90, 90))(aug_input)
        assert aug_input.image.shape[:2] == aug_input.sem_seg.shape
        assert 75 <= min(aug_input.image.shape[:2]) <= max(aug_input.image.shape[:2]) <= 90
    assert len(sizes) > 10
    assert Stretch(64).get_transform(image).new_w == 64


def test_the_oracle_knows_that_there_are_persons(record):
    metadata = MetadataCatalog.get(NAME)
    classes = present_classes(record, "parsing", metadata)
    assert classes == [*present_classes(record, "semantic", metadata), 20]


def test_augmented_tests_of_squares_have_squares():
    model = torch.nn.Module()
    plain = TestTimeAugmentation(model, [32, 48], 100, True)
    squares = TestTimeAugmentation(model, [32, 48], 100, True, keep_ratio=False)
    image = np.zeros((30, 50, 3), np.uint8)
    for found, expected in ((plain, [(32, 53), (48, 80)]), (squares, [(32, 32), (48, 48)])):
        transforms = [resizing.get_transform(image) for resizing in found.resizings]
        assert [(t.new_h, t.new_w) for t in transforms] == expected
