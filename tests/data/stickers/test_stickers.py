"""The files of `stickers`: they agree with each other and follow from the pictures of emoji."""

import json
import multiprocessing

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask
from support.emoji import make_emoji

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.data.datasets import register_named, stickers
from rankseg_d2.data.datasets.stickers import register_stickers
from rankseg_d2.data.drawn import images, split
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.stickers import pictures

COUNTS = {"num_images": {"train": 6, "val": 2}, "num_videos": {"train": 3, "val": 1}}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Without a font and without choices by the environment; registered names are removed."""
    monkeypatch.setattr(pictures, "_FONT_FOLDERS", ())
    monkeypatch.delenv("RANKSEG_EMOJI", raising=False)
    monkeypatch.delenv("RANKSEG_PHOTOS", raising=False)
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    return make_emoji(tmp_path_factory.mktemp("pictures") / "emoji", 300)


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def decoded(annotation):
    return coco_mask.decode(annotation["segmentation"]).astype(bool)


def files_of(folder):
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(("number", "ignore"), [(40, 255), (300, 65535)])
def test_labels_segments_and_instances_agree_pixel_by_pixel(number, ignore, emoji, tmp_path):
    register_stickers(number, root=tmp_path, emoji=emoji, **COUNTS)
    kinds = ("panoptic", "sem_seg", "instance")
    records = [DatasetCatalog.get(f"stickers{number}_{kind}_train") for kind in kinds]
    metadata = MetadataCatalog.get(f"stickers{number}_panoptic_train")
    assert len(metadata.stuff_classes) == number and metadata.ignore_label == ignore
    assert metadata.stuff_classes[:3] == ["red apple", "banana", "grapes"]
    assert metadata.stuff_classes[:-10] == metadata.thing_classes
    num_things = 0
    for whole, labelled, objects in zip(*records, strict=True):
        labels = pixels(labelled["sem_seg_file_name"])
        assert labels.shape == (128, 160) == pixels(whole["file_name"]).shape[:2]
        assert np.array_equal(read_label_map(whole["sem_seg_file_name"], metadata), labels)
        ids = pixels(whole["pan_seg_file_name"]) @ [1, 256, 65536]
        assert {segment["id"] for segment in whole["segments_info"]} == set(np.unique(ids)) - {0}
        rest = [(a["category_id"], decoded(a)) for a in objects["annotations"]]
        for segment in whole["segments_info"]:
            mask = ids == segment["id"]
            assert (labels[mask] == segment["category_id"]).all() and segment["area"] == mask.sum()
            if segment["category_id"] < number - 10:
                found = [i for i, (_, other) in enumerate(rest) if np.array_equal(other, mask)]
                assert rest.pop(found[0])[0] == segment["category_id"]
                num_things += 1
        assert not rest
        assert np.array_equal(ids == 0, labels == ignore)
    assert num_things > 12


@pytest.mark.slow
def test_files_do_not_depend_on_the_number_of_processes(emoji, tmp_path, monkeypatch):
    register_stickers(40, root=tmp_path / "one", emoji=emoji, **COUNTS)
    DatasetCatalog.get("stickers40_panoptic_train")
    monkeypatch.setattr(images, "_IMAGES_PER_PROCESS", 2)
    monkeypatch.setattr(split, "usable_cpus", lambda: 2)
    register_stickers(40, root=tmp_path / "two", emoji=emoji, **COUNTS)
    DatasetCatalog.get("stickers40_panoptic_train")
    files = files_of(tmp_path / "one")
    assert files == files_of(tmp_path / "two") and len(files) == 3 * 6 + 3 + 1  # and the lock


def test_pictures_decide_what_is_drawn_and_photos_are_backgrounds(emoji, tmp_path, monkeypatch):
    def draw(**sources):
        register_stickers(40, root=tmp_path, **sources, **COUNTS)
        DatasetCatalog.get("stickers40_panoptic_train")
        folder = tmp_path / "stickers/40/train"
        files = files_of(folder / "images")
        return json.loads((folder / "spec.json").read_text()), list(files.values())

    first, images_first = draw(emoji=emoji)
    moved = make_emoji(tmp_path / "copy", 40)
    monkeypatch.setattr(split, "_build", None)  # nothing is drawn
    assert draw() == (first, images_first)  # whatever it was made from
    assert draw(emoji=moved) == (first, images_first)  # the same pictures elsewhere
    monkeypatch.undo()
    monkeypatch.setattr(pictures, "_FONT_FOLDERS", ())
    monkeypatch.setenv("RANKSEG_EMOJI", str(make_emoji(tmp_path / "other", 40, seed=1)))
    second, images_second = draw()
    assert second == first | {"emoji": second["emoji"]} != first
    assert not set(images_first) & set(images_second)
    (tmp_path / "photos").mkdir()
    Image.effect_noise((300, 300), 90).save(tmp_path / "photos/noise.png")
    third, images_third = draw(photos=tmp_path / "photos")
    assert third == second | {"photos": third["photos"]} != second
    names = MetadataCatalog.get("stickers40_panoptic_train").stuff_classes
    records = DatasetCatalog.get("stickers40_panoptic_train")
    for record, before, after in zip(records, images_second, images_third, strict=True):
        shown = {names[segment["category_id"]] for segment in record["segments_info"]}
        assert (before != after) is ("background" in shown)


def test_without_a_font_nothing_is_drawn_and_one_sentence_says_so(tmp_path):
    register_stickers(40, root=tmp_path, **COUNTS)
    assert len(MetadataCatalog.get("stickers40_panoptic_val").stuff_classes) == 40
    with pytest.raises(FileNotFoundError, match="NotoColorEmoji.ttf is not installed; install"):
        DatasetCatalog.get("stickers40_panoptic_val")
    assert list(tmp_path.iterdir()) == []


def test_a_split_of_another_version_is_drawn_again_and_needs_the_pictures(emoji, tmp_path):
    register_stickers(40, root=tmp_path, emoji=emoji, **COUNTS)
    DatasetCatalog.get("stickers40_panoptic_val")
    file = tmp_path / "stickers/40/val/spec.json"
    spec = json.loads(file.read_text())
    file.write_text(json.dumps(spec | {"version": 0}))
    register_stickers(40, root=tmp_path, **COUNTS)
    with pytest.raises(FileNotFoundError, match="not installed"):
        DatasetCatalog.get("stickers40_panoptic_val")
    register_stickers(40, root=tmp_path, emoji=emoji, **COUNTS)
    DatasetCatalog.get("stickers40_panoptic_val")
    assert json.loads(file.read_text()) == spec


def _load_and_count(root, emoji, builds):
    original = split._build

    def counted(*args):
        with builds.get_lock():
            builds.value += 1
        original(*args)

    split._build = counted
    register_stickers(40, root=root, emoji=emoji, **COUNTS)
    assert len(DatasetCatalog.get("stickers40_panoptic_train")) == 6


def test_of_two_processes_one_draws_and_the_other_waits(emoji, tmp_path):
    context = multiprocessing.get_context("fork")
    builds = context.Value("i", 0)
    args = (tmp_path, emoji, builds)
    processes = [context.Process(target=_load_and_count, args=args) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert builds.value == 1


def test_clips_show_the_same_objects_over_time(emoji, tmp_path):
    register_stickers(40, root=tmp_path, emoji=emoji, **COUNTS)
    semantic = DatasetCatalog.get("stickers40_video_sem_seg_train")
    objects = DatasetCatalog.get("stickers40_video_instance_train")
    metadata = MetadataCatalog.get("stickers40_video_sem_seg_train")
    steps = []
    for video, tracked in zip(semantic, objects, strict=True):
        assert 8 <= video["length"] <= 24
        centers = {}
        for t, (path, annotations) in enumerate(
            zip(video["sem_seg_file_names"], tracked["annotations"], strict=True)
        ):
            labels = read_label_map(path, metadata)
            painted = np.zeros(labels.shape, bool)
            for annotation in annotations:
                mask = decoded(annotation)
                assert (labels[mask] == annotation["category_id"]).all()
                painted |= mask
                key = annotation["id"], annotation["category_id"]
                centers.setdefault(key, {})[t] = np.argwhere(mask).mean(0)
            assert np.array_equal(painted, labels < 30)
        assert len({number for number, _ in centers}) == len(centers)  # one category each
        for track in centers.values():
            steps += [np.linalg.norm(track[t] - track[t - 1]) for t in track if t - 1 in track]
    assert 0.2 < np.median(steps) < 6  # pixels


def test_a_config_names_any_number_of_categories_and_wrong_numbers_are_refused():
    get_config("stickers/panoptic/lite0_300")
    assert len(MetadataCatalog.get("stickers300_panoptic_val").stuff_classes) == 300
    get_config("stickers/panoptic/lite0", ["DATASETS.TRAIN", ["stickers77_instance_train"]])
    assert "stickers77_video_sem_seg_val" in DatasetCatalog.list()
    assert len(MetadataCatalog.get("stickers77_instance_train").thing_classes) == 67
    with pytest.raises(ValueError, match="20 to 1000 categories, got 5000"):
        register_named(["stickers5000_panoptic_train"])


def test_the_default_size_is_prepared_from_a_folder(emoji, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(stickers.NUM_IMAGES, "val", 2)
    monkeypatch.setitem(stickers._NUM_VIDEOS, "val", 1)
    words = ["dataset", "prepare", "stickers", "--root", str(tmp_path), "--splits", "val"]
    assert cli.main(words) == 1
    assert "apt install fonts-noto-color-emoji" in capsys.readouterr().err
    assert cli.main([*words, "--emoji", str(emoji)]) == 0
    assert len(list((tmp_path / "stickers/100/val/images").iterdir())) == 2
    assert len(list((tmp_path / "stickers/100/video_val/data").iterdir())) == 1
    assert cli.main(words) == 0  # there it is
    (emoji.parent / "few").mkdir()
    assert cli.main([*words, "--emoji", str(emoji.parent / "few")]) == 1
    assert "no picture of 90 emoji" in capsys.readouterr().err
