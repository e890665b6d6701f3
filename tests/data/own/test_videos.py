"""Own video data by a yaml: folders of label images, or a json as YouTube-VIS has it."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import own_data
from support.own_data import CLASSES, SIZE, write_image, write_label, write_yaml
from support.raw_videos import tracks

from rankseg_d2 import cli
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.own import register as custom
from rankseg_d2.data.own.register import register_own_data

VIDEOS = ["walk", "drive [2]", "ride", "swim", "run"]
NUMBERS = ["9", "10", "11"]  # of frames: not in the order of the alphabet


@pytest.fixture(autouse=True)
def forget():
    yield
    for data in custom._registered.values():
        custom._forget(data)
    custom._registered.clear()


def semantic(folder, frames="frames", masks="labels", below="", names=VIDEOS, **keys):
    """A yaml, and the label maps {video: [(H, W), ...]}; `below` is a folder of each video."""
    maps = {}
    for name in names:
        maps[name] = []
        for i, number in enumerate(NUMBERS):
            ids = own_data.label_map(len(maps) + i)
            maps[name].append(ids)
            first, second = ("origin", "mask") if below else ("", "")
            write_image(folder / frames / name / first / f"{number}.jpg")
            write_label(folder / masks / name / second / f"{number}.png", ids + 1)
    said = [f"{place}/*/{x}" if below else place
            for place, x in ((frames, "origin"), (masks, "mask"))]  # fmt: skip
    keys = {
        "name": "sport",
        "videos": said[0],
        "labels": said[1],
        "classes": CLASSES,
        "label_offset": 1,
        "background": "ignore",
        "splits": {"train": 0.85, "val": 0.15},  # by their hashes, 4 and 1 videos
    } | keys
    return write_yaml(folder, **keys), maps


def instances(folder, **keys):
    """A yaml with a json of a car, and in the second half a bus."""
    videos, annotations = [], []
    for i, name in enumerate(VIDEOS):
        files = [f"{name}/img_{number}.jpg" for number in NUMBERS]
        for file in files:
            write_image(folder / "frames" / file)
        size = {"height": SIZE[0], "width": SIZE[1]}
        videos.append({"id": i + 1, "file_names": files, "length": len(files)} | size)
        for category, start in ((7, 0), (9, 2)):
            masks = np.zeros((3, *SIZE), bool)
            masks[start:, 4:9, 2 : category + 4] = True
            facts = {"id": len(annotations) + 1, "video_id": i + 1, "category_id": category}
            annotations.append(facts | tracks(masks, "rle"))
    things = [entry for entry in own_data.CATEGORIES if entry["isthing"]]
    content = {"videos": videos, "annotations": annotations, "categories": things}
    own_data.write_json(folder / "objects.json", content)
    keys = {
        "name": "traffic",
        "videos": "frames",
        "labels": "objects.json",
        "splits": {"train": 0.7, "val": 0.3},  # by their hashes, 3 and 2 videos
    } | keys
    return write_yaml(folder, **keys), content


@pytest.mark.parametrize("below", ["", "vspw"])
def test_label_images_of_videos(tmp_path, below):
    places = {"frames": "data", "masks": "data"} if below else {}
    path, maps = semantic(tmp_path, below=below, **places)
    names = register_own_data(path)
    assert names == ["sport_train", "sport_val"]
    records = [record for name in names for record in DatasetCatalog.get(name)]
    assert len(DatasetCatalog.get("sport_train")) == 4
    assert sorted(record["video_id"] for record in records) == sorted(VIDEOS)
    metadata = MetadataCatalog.get("sport_train")
    assert metadata.evaluator_type == "vspw_sem_seg"
    assert metadata.stuff_classes == CLASSES and metadata.ignore_label == 255
    for record in records:
        assert (record["length"], record["height"], record["width"]) == (3, *SIZE)
        stems = [file.rpartition("/")[2] for file in record["file_names"]]
        assert stems == ["9.jpg", "10.jpg", "11.jpg"]
        for file, ids in zip(record["sem_seg_file_names"], maps[record["video_id"]], strict=True):
            np.testing.assert_array_equal(read_label_map(file, metadata), ids)


@pytest.mark.parametrize(
    ("splits", "train"),
    [
        ({"train": "train.txt", "val": "val.txt"}, ["swim", "walk"]),
        ({"train": {"videos": "frames", "labels": "labels"}}, sorted(VIDEOS)),
    ],
)
def test_splits_of_videos(tmp_path, splits, train):
    (tmp_path / "train.txt").write_text("swim  \n\nwalk")
    (tmp_path / "val.txt").write_text("run\n")
    path, _ = semantic(tmp_path, splits=splits)
    register_own_data(path)
    assert [record["video_id"] for record in DatasetCatalog.get("sport_train")] == train


@pytest.mark.parametrize("make", [semantic, instances])
def test_a_part_without_videos_is_an_error_that_says_how_to_fix_it(tmp_path, make):
    path, _ = make(tmp_path, name="few", splits={"train": 0.99, "val": 0.01})
    register_own_data(path)
    message = r"no video of .*frames falls into the part 'val' \(0\.01 of 5 videos\): make the part"
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("few_val")
    assert len(DatasetCatalog.get("few_train")) == len(VIDEOS)


def test_sub_folders_of_videos(tmp_path):
    for split, videos in (("train", VIDEOS[:3]), ("val", VIDEOS[3:])):
        semantic(tmp_path, f"frames/{split}", f"labels/{split}", names=videos)
    path, _ = semantic(tmp_path, names=[], splits={"train": "train", "val": "val"})
    register_own_data(path)
    found = [[r["video_id"] for r in DatasetCatalog.get(f"sport_{x}")] for x in ("train", "val")]
    assert found == [sorted(VIDEOS[:3]), sorted(VIDEOS[3:])]


def test_objects_of_videos(tmp_path):
    path, content = instances(tmp_path)
    names = register_own_data(path)
    records = [record for name in names for record in DatasetCatalog.get(name)]
    metadata = MetadataCatalog.get("traffic_val")
    assert (metadata.evaluator_type, metadata.thing_classes) == ("ytvis", ["car", "bus"])
    assert metadata.get("stuff_classes") is None and metadata.get("json_file") is None
    assert sorted(record["video_id"] for record in records) == [1, 2, 3, 4, 5]
    for record in records:
        found = [[note["category_id"] for note in frame] for frame in record["annotations"]]
        assert found == [[0], [0], [0, 1]]


@pytest.mark.parametrize("make", [semantic, instances])
def test_check_and_stats_of_videos(tmp_path, make, capsys):
    path, _ = make(tmp_path)
    assert cli.main(["dataset", "check", str(path), "--workers", "1"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    report = tmp_path / "report.json"
    assert cli.main(["dataset", "stats", str(path), "--json", str(report)]) == 0
    splits = json.loads(report.read_text())["splits"]
    assert sum(facts["images"] for facts in splits.values()) == len(VIDEOS)
    if make is instances:
        assert {facts["mean"] for facts in splits.values()} == {2.0}


def test_what_does_not_pair_is_listed(tmp_path, capsys):
    path, _ = semantic(tmp_path, splits={"train": 1.0})
    (tmp_path / "labels/walk/9.png").unlink()
    (tmp_path / "frames/ride/11.jpg").unlink()
    (tmp_path / "frames/empty").mkdir()
    write_label(tmp_path / "labels/alone/1.png", np.ones(SIZE, int))
    register_own_data(path)
    with pytest.raises(ValueError, match=r"1 times image without label, such as .*walk.9\.jpg"):
        DatasetCatalog.get("sport_train")
    assert cli.main(["dataset", "check", str(path)]) == 1
    out = capsys.readouterr().out
    for line in ("image without label: 1", "label without image: 1", "empty video: 1",
                 "labels without video: 1"):  # fmt: skip
        assert line in out


def test_frames_that_a_json_names_must_be_there(tmp_path):
    path, _ = instances(tmp_path)
    (tmp_path / "frames/walk/img_10.jpg").unlink()
    (tmp_path / "frames/ride/img_10.jpg").unlink()
    names = register_own_data(path)
    with pytest.raises(FileNotFoundError, match=r"frames are missing, such as .*img_10\.jpg"):
        for name in names:
            DatasetCatalog.get(name)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"images": "frames"}, "both images and videos are set; keep one"),
        ({"labels": {"json": "a.json", "folder": "b"}}, "labels of videos must be a folder"),
        ({"videos": "nowhere"}, r"nowhere does not exist"),
        ({"videos": "frames/*/x", "splits": {"train": "a"}}, "a path with \\* have no sub-folders"),
        ({"splits": {"train": "train.txt"}}, r"train\.txt does not exist"),
    ],
)
def test_a_wrong_yaml_is_named_with_what_is_right(tmp_path, keys, message):
    path, _ = semantic(tmp_path, **keys)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DatasetCatalog.get(register_own_data(path)[0])


def test_a_json_of_another_form_is_named(tmp_path):
    path, content = instances(tmp_path)
    own_data.write_json(tmp_path / "objects.json", content | {"videos": [{"id": 1}]})
    register_own_data(path)
    with pytest.raises(ValueError, match=r"objects\.json: videos\[0\] has no file_names"):
        DatasetCatalog.get("traffic_train")
