"""The videos of `shapes`: objects move, keep their ids, and both layouts tell the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from rankseg_d2.config import add_rankseg_config, get_config
from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.data.drawn import images, split, videos
from rankseg_d2.data.drawn.split import ensure_split
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.loading.records import load_records
from rankseg_d2.data.shapes.build import VERSION, ClipSpec
from rankseg_d2.engine import build_test_loader, build_train_loader
from rankseg_d2.modeling.clips import clip_targets

SPEC = ClipSpec(40, "train", 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "40" / "video_train"
    ensure_split(folder, SPEC, num_workers=1)
    return folder


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The data sets of 40 categories: {task: (records, metadata)}."""
    before = set(DatasetCatalog.list())
    root = tmp_path_factory.mktemp("registered")
    register_shapes(40, root=root, num_videos={"train": 6, "val": 2})
    found = {}
    for task in ("video_sem_seg", "video_instance"):
        name = f"shapes40_{task}_train"
        found[task] = DatasetCatalog.get(name), MetadataCatalog.get(name)
    yield found
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_files_follow_from_the_spec_alone(folder, tmp_path):
    ensure_split(tmp_path / "video_train", SPEC, num_workers=2)
    assert files_of(tmp_path / "video_train") == files_of(folder)
    assert json.loads((folder / "spec.json").read_text()) == {
        "num_categories": 40, "split": "train", "num_videos": 6, "hard": False,
        "shortest": 8, "longest": 24, "height": 96, "width": 128, "version": VERSION,
    }  # fmt: skip


def test_a_split_that_is_there_is_not_drawn_again(folder, monkeypatch):
    monkeypatch.setattr(split, "_build", None)
    ensure_split(folder, SPEC)


def test_val_has_other_scenes(folder, tmp_path):
    ensure_split(tmp_path / "video_val", ClipSpec(40, "val", 1), num_workers=1)
    frame = "data/00000/origin/00000000.jpg"
    assert files_of(tmp_path / "video_val")[frame] != files_of(folder)[frame]


def test_lengths_vary_within_what_is_asked_for(names):
    lengths = [record["length"] for record in names["video_sem_seg"][0]]
    assert len(set(lengths)) > 1 and all(8 <= length <= 24 for length in lengths)


def test_label_images_and_json_agree_pixel_by_pixel(names):
    (semantic, metadata), (objects, facts) = names["video_sem_seg"], names["video_instance"]
    num_things = len(facts.thing_classes)
    assert metadata.stuff_classes[:num_things] == facts.thing_classes
    assert (metadata.evaluator_type, facts.evaluator_type) == ("vspw_sem_seg", "ytvis")
    for video, tracked in zip(semantic, objects, strict=True):
        assert video["file_names"] == tracked["file_names"]
        for path, annotations in zip(
            video["sem_seg_file_names"], tracked["annotations"], strict=True
        ):
            labels = read_label_map(path, metadata)
            values = np.asarray(Image.open(path)).astype(int)
            np.testing.assert_array_equal(labels, np.where(values == 0, 255, values - 1))
            painted = np.zeros(labels.shape, bool)
            for annotation in annotations:
                mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
                assert mask.sum() >= split.MIN_AREA and not (painted & mask).any()
                assert (labels[mask] == annotation["category_id"]).all()
                y, x = np.nonzero(mask)
                box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
                assert annotation["bbox"] == box
                painted |= mask
            np.testing.assert_array_equal(painted, labels < num_things)


def test_objects_keep_id_and_class_and_move_but_do_not_jump(names):
    moved, steps, absent = [], [], 0
    for record in names["video_instance"][0]:
        tracks = {}
        for t, annotations in enumerate(record["annotations"]):
            for annotation in annotations:
                mask = coco_mask.decode(annotation["segmentation"])
                center = np.argwhere(mask).mean(0)
                tracks.setdefault(annotation["id"], []).append(
                    (t, annotation["category_id"], center)
                )
        for track in tracks.values():
            times, classes, centers = map(np.array, zip(*track, strict=True))
            assert len(set(classes.tolist())) == 1
            absent += record["length"] - len(times)
            moved.append(np.linalg.norm(centers[-1] - centers[0]))
            follow = np.diff(times) == 1
            steps += np.linalg.norm(np.diff(centers, axis=0), axis=1)[follow].tolist()
    assert np.median(moved) > 6  # pixels, of 96 x 128
    assert np.median(steps) < 4
    assert absent > 0  # some are hidden, or outside, for a while


def test_frames_are_pictures_of_one_scene_with_noise_of_their_own(names):
    record = names["video_sem_seg"][0][0]
    first, second, last = (
        np.asarray(Image.open(record["file_names"][t])).astype(int) for t in (0, 1, -1)
    )
    assert (first != second).mean() > 0.5
    assert abs(first - second).mean() < abs(first - last).mean()


@pytest.mark.parametrize(("num_categories", "mode"), [(254, "L"), (255, "I;16"), (300, "I;16")])
def test_label_images_have_room_for_void_and_all_categories(tmp_path, num_categories, mode):
    ensure_split(tmp_path / "train", ClipSpec(num_categories, "train", 1), num_workers=1)
    image = Image.open(tmp_path / "train/data/00000/mask/00000000.png")
    assert image.mode == mode
    table = videos.label_table(num_categories)
    assert table[0] == images.ignore_label(num_categories)
    assert table[1:].tolist() == list(range(num_categories))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_videos": 0}, "1 video or more"),
        ({"shortest": 0}, "1 frame or more"),
        ({"longest": 3}, "got 8 to 3"),
        ({"num_categories": 3}, "10 to 2000"),
    ],
)
def test_impossible_specs_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        ClipSpec(**({"num_categories": 40, "split": "train", "num_videos": 2} | keys))


# ---------------------------------------------------------------- through the loaders


def config(mapper, task, *opts):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    keys = {
        "DATASETS.TRAIN": (f"shapes40_{task}_train",),
        "DATASETS.TEST": (f"shapes40_{task}_val",),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.DATASET_MAPPER_NAME": mapper,
        "INPUT.FORMAT": "RGB",
        "INPUT.MIN_SIZE_TRAIN": (96,),
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice_by_clip",
        "INPUT.MIN_SIZE_TEST": 48,
        "INPUT.RANDOM_FLIP": "flip_by_clip",
        "SOLVER.IMS_PER_BATCH": 2,
    }
    cfg.merge_from_list([word for item in keys.items() for word in item] + list(opts))
    return cfg


TASKS = [("video_semantic", "video_sem_seg"), ("video_instance", "video_instance")]


@pytest.mark.parametrize(("mapper", "task"), TASKS)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_training_loader_gives_clips_the_same_every_time(names, mapper, task, num_workers):
    cfg = config(mapper, task, "DATALOADER.NUM_WORKERS", num_workers)
    batches = build_train_loader(cfg).batches(seed=5)
    again = build_train_loader(config(mapper, task)).batches(seed=5, start=1)
    next(batches)
    for sample, same in zip(next(batches), next(again), strict=True):
        assert sample["file_names"] == same["file_names"]
        assert all(map(torch.equal, sample["image"], same["image"]))
        target = clip_targets(sample, (96, 128), 40, torch.device("cpu"))
        expected = clip_targets(same, (96, 128), 40, torch.device("cpu"))
        assert target["masks"].shape == (len(target["labels"]), 2, 96, 128)
        assert torch.equal(target["masks"], expected["masks"])
        assert torch.equal(target["labels"], expected["labels"])


def test_videos_can_be_repeated_by_their_rarest_category(names):
    cfg = config("video_instance", "video_instance")
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.9
    sample = next(build_train_loader(cfg).batches(seed=1))[0]
    assert len(sample["image"]) == 2


def test_videos_with_crowds_only_can_be_left_out(names):
    records = names["video_instance"][0]
    name = "crowded_videos_test"
    crowds = [[note | {"iscrowd": 1} for note in frame] for frame in records[0]["annotations"]]
    made = [records[0] | {"annotations": crowds}, records[1], records[2] | {"annotations": [[]]}]
    DatasetCatalog.register(name, lambda: made)
    MetadataCatalog.get(name).set(thing_classes=names["video_instance"][1].thing_classes)
    try:
        assert load_records([name], filter_empty=True) == [records[1]]
        assert load_records([name]) == made
        del made[1]
        with pytest.raises(ValueError, match=f"{name} has usable annotations"):
            load_records([name], filter_empty=True)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(("mapper", "task"), TASKS)
def test_the_test_loader_gives_whole_videos(names, mapper, task):
    cfg = config(mapper, task)
    samples = [sample for (sample,) in build_test_loader(cfg, cfg.DATASETS.TEST[0])]
    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    assert [sample["video_id"] for sample in samples] == [r["video_id"] for r in records]
    for sample, record in zip(samples, records, strict=True):
        assert len(sample["image"]) == record["length"]
        assert sample["image"][0].shape == (3, 48, 64)
        assert (sample["height"], sample["width"]) == (96, 128)


def test_a_config_may_name_any_number_of_categories():
    before = set(DatasetCatalog.list())
    get_config("shapes/panoptic/r10t", ["DATASETS.TRAIN", ["shapes33_video_instance_train"]])
    new = set(DatasetCatalog.list()) - before
    assert {"shapes33_video_sem_seg_val", "shapes33_video_instance_train"} <= new
    for name in new:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
