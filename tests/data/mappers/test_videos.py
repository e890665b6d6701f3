"""Clips: which frames, one augmentation for all of them, and one row for each object."""

import pickle
import random

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from PIL import Image
from pycocotools import mask as coco
from support.mapping import mapper_config

from rankseg_d2.data.formats.video_frames import LazyFrames, natural_order
from rankseg_d2.data.mappers import build_mapper
from rankseg_d2.data.mappers import videos as clips
from rankseg_d2.data.mappers.augmentations import RandomRotation, RandomSaturation, Rotate
from rankseg_d2.data.mappers.packed_masks import BitPackedMasks, IdMapMasks
from rankseg_d2.data.mappers.videos import FrameSampler
from rankseg_d2.modeling.clips import clip_targets
from rankseg_d2.modeling.oracle import present_labels

NAME = "video_mappers_test"
CLASSES, IGNORE = 12, 255
H, W = 60, 84


@pytest.fixture(autouse=True)
def metadata():
    names = [str(i) for i in range(CLASSES)]
    yield MetadataCatalog.get(NAME).set(
        stuff_classes=names, thing_classes=names, ignore_label=IGNORE
    )
    MetadataCatalog.remove(NAME)


def config(mapper, *opts):
    small = {
        "INPUT.MIN_SIZE_TRAIN": (40, 60, 90),
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice_by_clip",
        "INPUT.RANDOM_FLIP": "flip_by_clip",
        "INPUT.MIN_SIZE_TEST": 30,
        "INPUT.SAMPLING_FRAME_NUM": 3,
        "INPUT.SAMPLING_FRAME_RANGE": 4,
    }
    return mapper_config(NAME, mapper, small, opts)


def blocks(rng, high):
    """Values from 0 to high - 1 in squares of 12 pixels: (H, W)."""
    return rng.integers(0, high, (H // 12, W // 12)).repeat(12, 0).repeat(12, 1)


def write_video(folder, length=8, seed=0):
    """A record with both kinds of labels; what it holds: label maps, and masks by object id.

    The objects 3, 5, 8 and 4 come and go; 4 is a crowd; the last frame has no object.
    """
    rng = np.random.default_rng(seed)
    record = {"video_id": f"v{seed}", "length": length, "height": H, "width": W}
    record |= {"file_names": [], "sem_seg_file_names": [], "annotations": []}
    maps, objects = [], []
    for t in range(length):
        labels = blocks(rng, CLASSES + 1)
        labels[labels == CLASSES] = IGNORE
        paths = [str(folder / f"{seed}_{kind}{t:03d}.png") for kind in ("frame", "labels")]
        Image.fromarray(rng.integers(0, 256, (H, W, 3), np.uint8)).save(paths[0])
        Image.fromarray(labels.astype(np.uint8)).save(paths[1])
        record["file_names"].append(paths[0])
        record["sem_seg_file_names"].append(paths[1])
        there = [i for i in (5, 3, 8, 4) if rng.random() < 0.6 and t + 1 < length]
        masks = {i: blocks(rng, 2).astype(bool) for i in there}
        record["annotations"].append(
            [
                {
                    "id": i,
                    "category_id": i + 2,
                    "iscrowd": int(i == 4),
                    "segmentation": coco.encode(np.asfortranarray(masks[i], np.uint8)),
                }
                for i in there
            ]
        )
        maps.append(labels)
        objects.append({i: mask for i, mask in masks.items() if i != 4 and mask.any()})
    return record, maps, objects


def seeded(function, *args, seed):
    np.random.seed(seed)
    random.seed(seed)
    return function(*args)


def sampled(length, number=3, reach=4):
    """The frames of a clip as upstream draws them."""
    reference = random.randrange(length)
    near = [i for i in range(length) if i != reference and abs(i - reference) <= reach]
    return sorted([*np.random.choice(near, number - 1), reference])


def plain(record, augmentations):
    """Indices and images of a clip, and the transforms: drawn for the first frame, done to all."""
    chosen = sampled(record["length"])
    images = [np.asarray(Image.open(record["file_names"][i])) for i in chosen]
    transforms = T.AugmentationList(augmentations)(T.AugInput(images[0]))
    return chosen, [transforms.apply_image(image) for image in images], transforms


def recipe():
    return [T.ResizeShortestEdge((40, 60, 90), 1333, "choice"), T.RandomFlip()]


# ---------------------------------------------------------------- which frames


@pytest.mark.parametrize("number", [1, 2, 5])
def test_frames_are_drawn_as_upstream_draws_them(number):
    sampler = FrameSampler(number, 4, 5, True, False)
    for seed in range(50):
        length = 2 + seed
        frames = seeded(sampler, length, seed=seed)
        assert frames == seeded(sampled, length, number, 4, seed=seed)
        assert len(frames) == number and frames == sorted(frames)
        assert frames[-1] - frames[0] <= 8 and set(frames) <= set(range(length))


def test_every_frame_and_every_distance_in_reach_occurs():
    sampler = FrameSampler(2, 3, 5, True, False)
    pairs = {tuple(seeded(sampler, 10, seed=seed)) for seed in range(1500)}
    assert pairs == {(a, b) for a in range(10) for b in range(10) if 0 < b - a <= 3}


@pytest.mark.parametrize("is_random", [False, True])
def test_a_video_of_one_frame_repeats_it(is_random):
    assert FrameSampler(4, 20, 5, is_random, False)(1) == [0, 0, 0, 0]


def test_frames_are_shuffled_if_that_is_asked_for():
    sampler = FrameSampler(3, 9, 5, True, True)
    orders = {tuple(np.argsort(seeded(sampler, 50, seed=seed))) for seed in range(60)}
    assert len(orders) == 6


def test_frames_can_be_an_interval_apart():
    sampler = FrameSampler(3, 20, 5, False, False)
    clips_of_20 = {tuple(seeded(sampler, 20, seed=seed)) for seed in range(300)}
    assert clips_of_20 == {(a, a + 5, a + 10) for a in range(10)}
    assert {tuple(seeded(sampler, 7, seed=seed)) for seed in range(30)} == {(0, 5, 6)}


@pytest.mark.parametrize(("key", "value"), [("FRAME_NUM", 0), ("FRAME_RANGE", -1), ("INTERVAL", 0)])
def test_impossible_samplings_are_refused(key, value):
    with pytest.raises(ValueError, match=f"INPUT.SAMPLING_{key} must be .* got {value}"):
        build_mapper(config("video_instance", f"INPUT.SAMPLING_{key}", value), True)


# ---------------------------------------------------------------- training samples


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_semantic_clips_beside_the_simple_way(tmp_path, image_format):
    record, maps, _ = write_video(tmp_path)
    mapper = build_mapper(config("video_semantic", "INPUT.FORMAT", image_format), True)
    for seed in range(8):
        chosen, images, transforms = seeded(plain, record, recipe(), seed=seed)
        sample = seeded(mapper, record, seed=seed)
        labels = [transforms.apply_segmentation(maps[i].astype(float)) for i in chosen]
        classes = sorted(set(np.unique(labels).astype(int)) - {IGNORE})
        assert sample["file_names"] == [record["file_names"][i] for i in chosen]
        assert (sample["height"], sample["width"], sample["video_id"]) == (H, W, "v0")
        for t, instances in enumerate(sample["instances"]):
            image = images[t] if image_format == "RGB" else images[t][..., ::-1]
            np.testing.assert_array_equal(sample["image"][t], image.transpose(2, 0, 1))
            masks = labels[t] == np.reshape(classes, (-1, 1, 1))
            assert isinstance(instances.gt_masks, IdMapMasks)
            np.testing.assert_array_equal(instances.gt_masks.tensor, masks)
            assert instances.gt_classes.tolist() == classes
            ids = [i if mask.any() else -1 for i, mask in zip(classes, masks, strict=True)]
            assert instances.gt_ids.tolist() == ids


def test_instance_clips_beside_the_simple_way(tmp_path):
    record, _, objects = write_video(tmp_path)
    mapper = build_mapper(config("video_instance"), True)
    absent = overlaps = 0
    for seed in range(30):
        chosen, images, transforms = seeded(plain, record, recipe(), seed=seed)
        sample = seeded(mapper, record, seed=seed)
        frames = [objects[i] for i in chosen]
        ids = {i for frame in frames for i in frame}
        rows = np.stack([frame.gt_ids.numpy() for frame in sample["instances"]])  # (T, N)
        assert set(rows.max(0)) == ids and rows.shape == (3, len(ids))
        for t, instances in enumerate(sample["instances"]):
            np.testing.assert_array_equal(sample["image"][t], images[t].transpose(2, 0, 1))
            assert instances.image_size == images[t].shape[:2]
            overlaps += isinstance(instances.gt_masks, BitPackedMasks)
            for n, number in enumerate(rows.max(0)):
                assert instances.gt_classes[n] == number + 2  # also where it is absent
                mask = frames[t].get(number)
                if mask is None:
                    absent += 1
                    assert instances.gt_ids[n] == -1
                    assert not instances.gt_masks[n].tensor.any()
                else:
                    assert instances.gt_ids[n] == number
                    mask = transforms.apply_segmentation(mask.astype(np.uint8))
                    np.testing.assert_array_equal(instances.gt_masks[n].tensor[0], mask)
    assert absent > 10 and overlaps > 10


def test_the_class_is_known_although_the_last_frame_lacks_the_object(tmp_path):
    record, _, _ = write_video(tmp_path, length=2)
    polygon = [[0.0, 0.0, 30, 0, 30, 30, 0, 30]]
    record["annotations"] = [[{"id": 77, "category_id": 5, "segmentation": polygon}], []]
    mapper = build_mapper(config("video_instance", "INPUT.SAMPLING_FRAME_NUM", 2), True)
    for seed in range(4):
        sample = seeded(mapper, record, seed=seed)
        assert [frame.gt_ids.tolist() for frame in sample["instances"]] == [[77], [-1]]
        target = clip_targets(sample, (128, 128), CLASSES, torch.device("cpu"))
        assert target["labels"].tolist() == [5]
        assert target["masks"][:, 0].any() and not target["masks"][:, 1].any()
        assert present_labels(sample).tolist() == [5]


@pytest.mark.parametrize("annotations", ["none", "crowd", "empty mask"])
def test_clips_without_objects(tmp_path, annotations):
    record, _, _ = write_video(tmp_path, length=3)
    nothing = coco.encode(np.zeros((H, W), np.uint8, order="F"))
    frame = {
        "none": [],
        "crowd": [record["annotations"][0][0] | {"iscrowd": 1}],
        "empty mask": [{"id": 1, "category_id": 0, "segmentation": nothing}],
    }[annotations]
    record["annotations"] = [frame] * 3
    sample = seeded(build_mapper(config("video_instance"), True), record, seed=0)
    assert [len(instances) for instances in sample["instances"]] == [0, 0, 0]
    target = clip_targets(sample, (128, 128), CLASSES, torch.device("cpu"))
    assert target["masks"].shape[:2] == (0, 3)


def test_a_clip_that_is_all_ignored_has_no_class(tmp_path):
    record, _, _ = write_video(tmp_path, length=2)
    for path in record["sem_seg_file_names"]:
        Image.fromarray(np.full((H, W), IGNORE, np.uint8)).save(path)
    sample = seeded(build_mapper(config("video_semantic"), True), record, seed=0)
    assert [len(instances) for instances in sample["instances"]] == [0, 0, 0]


ALL = (
    "INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", [30, 50],
    "INPUT.COLOR_AUG_SSD", True,
    "INPUT.AUGMENTATIONS", ["brightness", "contrast", "saturation", "rotation"],
)  # fmt: skip


@pytest.mark.parametrize("mapper", ["video_semantic", "video_instance"])
def test_what_is_drawn_is_done_to_all_frames_alike(tmp_path, mapper):
    record, _, _ = write_video(tmp_path, length=1)
    for key in ("file_names", "sem_seg_file_names", "annotations"):
        record[key] = record[key] * 6  # the same frame six times
    mapper = build_mapper(config(mapper, *ALL), True)
    seen = set()
    for seed in range(12):
        sample = seeded(mapper, record, seed=seed)
        images, frames = sample["image"], sample["instances"]
        for image, instances in zip(images[1:], frames[1:], strict=True):
            assert torch.equal(image, images[0])
            assert torch.equal(instances.gt_masks.tensor, frames[0].gt_masks.tensor)
        seen.add(images[0].numpy().tobytes())
    assert len(seen) == 12


def test_clips_are_padded_alike(tmp_path):
    record, _, _ = write_video(tmp_path)
    sample = seeded(
        build_mapper(config("video_semantic", "INPUT.SIZE_DIVISIBILITY", 64), True), record, seed=1
    )
    height, width = sample["image"][0].shape[1:]
    assert height % 64 == width % 64 == 0
    assert {instances.image_size for instances in sample["instances"]} == {(height, width)}


def test_classes_with_sides_change_places_in_a_mirror(tmp_path, metadata):
    metadata.flip_pairs = ((0, 1),)
    record, maps, _ = write_video(tmp_path, length=2)
    mapper = build_mapper(config("video_semantic", "INPUT.MIN_SIZE_TRAIN", (H,)), True)
    mirrored = 0
    for seed in range(8):
        sample = seeded(mapper, record, seed=seed)
        for path, instances in zip(sample["file_names"], sample["instances"], strict=True):
            labels = maps[record["file_names"].index(path)]
            first = np.asarray(Image.open(sample["file_names"][0])).transpose(2, 0, 1)
            is_mirrored = not np.array_equal(sample["image"][0], first)
            mirrored += is_mirrored
            wanted = labels[:, ::-1] == 1 if is_mirrored else labels == 0
            (row,) = np.flatnonzero(instances.gt_classes == 0)
            np.testing.assert_array_equal(instances.gt_masks[row].tensor[0], wanted)
    assert 0 < mirrored < 24


def test_frames_of_two_sizes_are_refused(tmp_path):
    record, _, _ = write_video(tmp_path, length=2)
    Image.fromarray(np.zeros((H, W + 1, 3), np.uint8)).save(record["file_names"][1])
    message = r"frame001\.png is 85 x 60 .* its video v0 is 84 x 60; all frames of a video must"
    for name in ("video_semantic", "video_instance"):
        with pytest.raises(ValueError, match=message):
            build_mapper(config(name), True)(record)
    with pytest.raises(ValueError, match=message):
        build_mapper(config("video_semantic"), False)(record)["image"][1]
    del record["height"], record["width"]
    with pytest.raises(ValueError, match=r"all frames of a video must have the same size"):
        seeded(build_mapper(config("video_instance"), True), record, seed=0)


def test_masks_of_another_size_are_named_by_their_frame(tmp_path):
    record, _, _ = write_video(tmp_path, length=1)
    mask = coco.encode(np.ones((W, H), np.uint8, order="F"))
    record["annotations"] = [[{"id": 1, "category_id": 0, "segmentation": mask}]]
    message = r"frame000\.png: the mask of annotation 1 has the size \[84, 60\] .* is \[60, 84\]"
    with pytest.raises(ValueError, match=message):
        build_mapper(config("video_instance"), True)(record)


def test_unreadable_and_missing_frames_are_named_or_skipped(tmp_path, caplog):
    record, _, _ = write_video(tmp_path, length=1)
    skipping = build_mapper(config("video_semantic", "INPUT.CORRUPT", "skip"), True)
    strict = build_mapper(config("video_semantic"), True)
    path = tmp_path / "0_frame000.png"
    path.write_bytes(b"")
    for error, message in (
        (ValueError, r"0_frame000\.png cannot be read"),
        (FileNotFoundError, r"0_frame000\.png does not exist"),
    ):
        with pytest.raises(error, match=message):
            strict(record)
        with pytest.raises(error, match=message):
            build_mapper(config("video_semantic"), False)(record)["image"][0]
        caplog.clear()
        assert skipping(record) is None and skipping(record) is None
        assert len(caplog.records) == 1 and str(path) in caplog.records[0].message
        path.unlink(missing_ok=True)


def test_records_of_the_other_kind_are_refused(tmp_path):
    record, _, _ = write_video(tmp_path, length=1)
    image = {"file_name": record["file_names"][0]}
    for is_train in (False, True):
        with pytest.raises(ValueError, match=r"frame000\.png has no file_names.*MAPPER_NAME"):
            build_mapper(config("video_semantic"), is_train)(image)
        with pytest.raises(ValueError, match="no file_name; for videos.*video_semantic or"):
            build_mapper(config("mask_former_semantic"), is_train)(record)
        with pytest.raises(ValueError, match="the video v0 is empty"):
            build_mapper(config("video_instance"), is_train)(record | {"file_names": []})
    for name, key in (("video_semantic", "sem_seg_file_name"), ("video_instance", "annotations")):
        unlabelled = {"file_names": record["file_names"], "height": H, "width": W}
        with pytest.raises(ValueError, match=f"frame000.png has no {key}"):
            build_mapper(config(name), True)(unlabelled)


# ---------------------------------------------------------------- augmentations


def test_saturation_is_that_of_each_frame():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (7, 9, 3), np.uint8) for _ in range(3)]
    transform = seeded(RandomSaturation(0.5, 1.5).get_transform, frames[0], seed=4)
    for frame in frames:
        plain = seeded(T.RandomSaturation(0.5, 1.5).get_transform, frame, seed=4)
        difference = transform.apply_image(frame).astype(int) - plain.apply_image(frame)
        assert abs(difference).max() <= 1  # of rounding


def test_a_rotation_by_90_degrees_turns_image_labels_and_corners():
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    rotate = Rotate(8, 8, 90, (3.5, 3.5))
    np.testing.assert_array_equal(rotate.apply_image(image), np.rot90(image))
    labels = image[..., 0].astype(np.int32) * 1000
    np.testing.assert_array_equal(rotate.apply_segmentation(labels), np.rot90(labels))
    channels = np.concatenate([image, image], -1)
    np.testing.assert_array_equal(rotate.apply_segmentation(channels), np.rot90(channels))
    corners = rotate.apply_coords(np.array([[0.0, 0.0], [8, 2]]))
    np.testing.assert_allclose(corners, [[0, 8], [2, 0]], atol=1e-9)


def test_what_a_rotation_brings_in_is_ignored():
    transform = seeded(RandomRotation(15, 0.1, 255).get_transform, np.zeros((40, 50)), seed=3)
    labels = transform.apply_segmentation(np.zeros((40, 50), np.int32))
    assert set(np.unique(labels)) == {0, 255}
    assert 1 < abs(transform.angle) <= 15
    assert (abs(transform.center / (50, 40) - 0.5) <= 0.1).all()


def test_unknown_augmentations_are_refused():
    with pytest.raises(KeyError, match=r"INPUT.AUGMENTATIONS.*'rotate'.*rotation"):
        build_mapper(config("video_instance", "INPUT.AUGMENTATIONS", ["rotate"]), True)


# ---------------------------------------------------------------- whole videos


def test_frames_of_a_whole_video_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    record, _, _ = write_video(tmp_path)
    sample = build_mapper(config("video_semantic"), False)(record)
    frames = sample["image"]
    reads, read_image = [], clips.read_image
    monkeypatch.setattr(
        clips, "read_image", lambda frame: reads.append(frame["file_name"]) or read_image(frame)
    )
    assert isinstance(frames, LazyFrames) and len(frames) == 8 and not reads
    resize = T.ResizeShortestEdge(30, 1333).get_transform(np.zeros((H, W)))
    plain = [
        resize.apply_image(np.asarray(Image.open(path))).transpose(2, 0, 1)
        for path in record["file_names"]
    ]
    np.testing.assert_array_equal(frames[2], plain[2])
    np.testing.assert_array_equal(frames[-1], plain[-1])
    assert reads == [record["file_names"][2], record["file_names"][7]]
    assert isinstance(frames[3:5], list)
    np.testing.assert_array_equal(np.stack(frames[3:5]), plain[3:5])
    np.testing.assert_array_equal(np.stack(list(frames)), plain)
    with pytest.raises(IndexError):
        frames[8]
    assert sample["sem_seg_file_names"] == record["sem_seg_file_names"]
    assert "annotations" not in sample
    assert (sample["height"], sample["width"], sample["length"]) == (H, W, 8)


def test_a_long_video_is_pickled_as_its_paths(tmp_path):
    record, _, _ = write_video(tmp_path, length=2)
    for key in ("file_names", "sem_seg_file_names"):
        record[key] = record[key] * 500
    frames = build_mapper(config("video_semantic"), False)(record)["image"]
    content = pickle.dumps(frames)
    assert len(content) < 1000 * 20
    np.testing.assert_array_equal(pickle.loads(content)[999], frames[1])


def test_the_size_of_a_video_is_read_if_the_record_does_not_say(tmp_path):
    record, _, _ = write_video(tmp_path, length=2)
    del record["height"], record["width"]
    sample = build_mapper(config("video_instance"), False)(record)
    assert (sample["height"], sample["width"]) == (H, W)
    assert sample["image"][1].shape == (3, 30, 42)


def test_the_oracle_knows_the_categories_of_all_frames(tmp_path):
    record, maps, _ = write_video(tmp_path)
    expected = {
        "video_semantic": set(np.unique(maps)) - {IGNORE},
        "video_instance": {
            note["category_id"]
            for frame in record["annotations"] for note in frame if not note["iscrowd"]
        },
    }  # fmt: skip
    for name, classes in expected.items():
        sample = build_mapper(config(name, "MODEL.RANKSEG.USE_GT", True), False)(record)
        assert present_labels(sample).tolist() == sorted(classes)
        assert "present_classes" not in build_mapper(config(name), False)(record)


def test_frames_are_ordered_by_their_numbers():
    names = ["v10", "v9", "a2b1", "a2b", "a10", "7", "007x"]
    assert sorted(names, key=natural_order) == ["7", "007x", "a2b", "a2b1", "a10", "v9", "v10"]


def test_objects_that_no_frame_of_a_clip_shows_are_kept_when_asked(tmp_path):
    record, _, _ = write_video(tmp_path, length=3)
    nothing = coco.encode(np.zeros((H, W), np.uint8, order="F"))
    for frame in record["annotations"]:
        frame.append({"id": 99, "category_id": 3, "segmentation": nothing})
    counts = {}
    for keep in (False, True):
        mapper = build_mapper(config("video_instance", "INPUT.KEEP_EMPTY", keep), True)
        sample = seeded(mapper, record, seed=0)
        counts[keep] = [len(instances) for instances in sample["instances"]]
        assert len(set(counts[keep])) == 1
    assert counts[True][0] > counts[False][0]
