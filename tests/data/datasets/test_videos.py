"""VSPW and YouTube-VIS: what is published becomes records, and what is damaged a clear error."""

import hashlib
import json
import logging

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as mask_util
from support import raw_videos as raw
from support.raw_datasets import HEIGHT, WIDTH, write_image

from rankseg_d2 import cli
from rankseg_d2.data.classes import load_classes
from rankseg_d2.data.datasets import register_all
from rankseg_d2.data.datasets.ytvis import is_held_out, load_video_instances
from rankseg_d2.data.formats import label_images as labels_module
from rankseg_d2.data.formats.image_files import UnreadableError
from rankseg_d2.data.formats.label_images import read_label_map


@pytest.fixture
def root(tmp_path):
    register_all(tmp_path)
    yield tmp_path
    register_all()


# ---------------------------------------------------------------- VSPW


def test_vspw_records_are_the_lists_videos_and_their_frames_in_time(root):
    made = raw.make_vspw(root)
    for split, videos in made.items():
        records = DatasetCatalog.get(f"vspw_{split}")
        assert [record["video_id"] for record in records] == list(videos)
        for record in records:
            frames = videos[record["video_id"]]
            folder = root / "VSPW_480p" / "data" / record["video_id"]
            assert record["file_names"] == [str(folder / f"origin/{name}.jpg") for name in frames]
            assert (record["length"], record["height"], record["width"]) == (5, HEIGHT, WIDTH)
            assert ("sem_seg_file_names" in record) == (split != "test")
            if split != "test":
                expected = [str(folder / f"mask/{name}.png") for name in frames]
                assert record["sem_seg_file_names"] == expected


def test_vspw_values_are_one_more_than_classes_and_0_and_255_are_ignored(root):
    made = raw.make_vspw(root)["train"]
    metadata = MetadataCatalog.get("vspw_train")
    assert metadata.stuff_classes == [entry["name"] for entry in load_classes("vspw_124")]
    assert (len(metadata.stuff_classes), metadata.ignore_label) == (124, 255)
    assert metadata.evaluator_type == "vspw_sem_seg"
    for record in DatasetCatalog.get("vspw_train"):
        values = made[record["video_id"]].values()
        for path, raw_values in zip(record["sem_seg_file_names"], values, strict=True):
            expected = raw_values.astype(int) - 1
            expected[(raw_values == 0) | (raw_values == 255)] = 255
            assert {0, 255} <= set(np.unique(raw_values))
            np.testing.assert_array_equal(read_label_map(path, metadata), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unknown_values_are_ignored_with_one_warning_that_counts(root, caplog, monkeypatch, dtype):
    monkeypatch.setattr(labels_module, "_warned_of", set())
    strays = [252, 125] if dtype == np.uint8 else [252, 1000]
    values = np.full((HEIGHT, WIDTH), 3, dtype)
    values[0, :7], values[1, :2] = strays
    path = str(root / "mask.png")
    write_image(path, values)
    with caplog.at_level(logging.WARNING, "rankseg_d2"):
        for _ in range(3):
            found = read_label_map(path, MetadataCatalog.get("vspw_val"))
    assert (found == np.where(values == 3, 2, 255)).all()
    (record,) = caplog.records
    listed = ", ".join(map(str, sorted(strays)))
    parts = ("9 pixels", path, "vspw_val", f"(values {listed})", "are ignored", "dataset check")
    for part in parts:
        assert part in record.message


def test_a_mask_in_colours_is_named(root):
    path = root / "mask.png"
    write_image(path, np.zeros((4, 4, 3), np.uint8))
    # of which INPUT.CORRUPT: skip takes another one
    with pytest.raises(UnreadableError, match=r"mask\.png has 3 channels"):
        read_label_map(str(path), MetadataCatalog.get("vspw_val"))


def test_dataset_check_counts_values_of_no_class_and_names_unreadable_frames(root, capsys):
    raw.make_vspw(root)
    folder = root / "VSPW_480p/data/2_v"
    write_image(folder / "mask/00000003.png", np.full((HEIGHT, WIDTH), 252, np.uint8))
    (folder / "origin/00000007.jpg").write_bytes(b"")
    assert cli.main(["dataset", "check", "vspw_val", "--json", str(root / "report.json")]) == 1
    faults = json.loads((root / "report.json").read_text())["faults"]
    found = {(fault["kind"], fault["file"]) for fault in faults}
    assert found == {
        ("unknown value", str(folder / "mask/00000003.png")),
        ("unreadable image", str(folder / "origin/00000007.jpg")),
    }
    assert faults[0]["text"] == f"252: {HEIGHT * WIDTH} pixels"


def test_statistics_are_of_whole_videos(root, capsys):
    made = raw.make_vspw(root)["train"]
    report = root / "report.json"
    assert cli.main(["dataset", "stats", "vspw_train", "--json", str(report)]) == 0
    facts = json.loads(report.read_text())["splits"]["vspw_train"]
    present = [set(np.unique(list(frames.values()))) - {0, 255} for frames in made.values()]
    assert facts["images"] == 3
    assert facts["mean"] == pytest.approx(np.mean([len(classes) for classes in present]))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("data/7_q/origin/00000008.jpg", r"train\.txt do not pair.* no image for 1 \(7_q/00000008"),
        ("data/7_q/mask/00000008.png", r"no label map for 1 \(7_q/00000008\)"),
    ],
)
def test_a_frame_without_mask_or_a_mask_without_frame_is_named(root, lost, message):
    raw.make_vspw(root)
    (root / "VSPW_480p" / lost).unlink()
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("vspw_train")


def test_a_video_that_is_not_there_is_named(root):
    raw.make_vspw(root)
    path = root / "VSPW_480p/val.txt"
    path.write_text(path.read_text() + "\n4_gone\n\n")
    message = r"1 of the 2 videos of .*val\.txt have no frame, such as 4_gone;"
    with pytest.raises(FileNotFoundError, match=message):
        DatasetCatalog.get("vspw_val")
    path.write_bytes(b"\xef\xbb\xbf2_v\t\r\n\r\n")  # as an editor may leave it
    assert [record["video_id"] for record in DatasetCatalog.get("vspw_val")] == ["2_v"]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"the list .*val\.txt does not exist"):
        DatasetCatalog.get("vspw_val")


def test_a_first_frame_that_cannot_be_read_does_not_hide_the_others(root):
    raw.make_vspw(root)
    folder = root / "VSPW_480p/data/2_v/origin"
    (folder / "00000003.jpg").write_bytes(b"")
    (record,) = DatasetCatalog.get("vspw_val")
    assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"2_v.origin.00000003\.jpg cannot be read"):
        DatasetCatalog.get("vspw_val")


def test_files_of_the_system_are_no_frames(root):
    raw.make_vspw(root)
    (root / "VSPW_480p/data/2_v/origin/._00000003.jpg").write_bytes(b"x")
    assert DatasetCatalog.get("vspw_val")[0]["length"] == 5


@pytest.mark.parametrize("name", ["../evil", "/evil", "2_v/../../evil"])
def test_a_video_of_a_list_stays_in_the_data_set(root, name):
    raw.make_vspw(root)
    with open(root / "VSPW_480p/val.txt", "a") as file:
        file.write(f"\n{name}\n")
    with pytest.raises(ValueError, match=rf"val\.txt: the name '{name}' leads out of"):
        DatasetCatalog.get("vspw_val")


# ---------------------------------------------------------------- YouTube-VIS


def decode(segmentation):
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, HEIGHT, WIDTH))
    return mask_util.decode(segmentation).astype(bool)


@pytest.mark.parametrize("year", [2019, 2021])
def test_ytvis_records_have_the_objects_of_each_frame(root, year):
    made = raw.make_ytvis(root, year)["train"]
    classes = {x["id"]: x["train_id"] for x in load_classes(f"ytvis{year}_40")}
    records = DatasetCatalog.get(f"ytvis_{year}_train")
    assert [record["video_id"] for record in records] == sorted(made)
    for record in records:
        objects = made[record["video_id"]]
        assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
        assert len(record["file_names"]) == len(record["annotations"]) == record["length"]
        assert record["file_names"] == sorted(record["file_names"])
        for t, annotations in enumerate(record["annotations"]):
            there = {i: x for i, x in objects.items() if x[1][t].any()}
            assert [annotation["id"] for annotation in annotations] == list(there)
            for annotation in annotations:
                category, masks = there[annotation["id"]]
                assert annotation["category_id"] == classes[category]
                np.testing.assert_array_equal(decode(annotation["segmentation"]), masks[t])
                y, x = np.nonzero(masks[t])
                box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
                assert annotation["bbox"] == box


def test_records_without_public_labels_have_no_annotations(root):
    raw.make_ytvis(root)
    records = DatasetCatalog.get("ytvis_2019_val")
    assert len(records) == 3
    assert not any("annotations" in record for record in records)
    metadata = MetadataCatalog.get("ytvis_2019_val")
    assert metadata.evaluator_type == "ytvis"
    assert metadata.json_file == str(root / "ytvis_2019/valid.json")
    assert metadata.thing_dataset_id_to_contiguous_id == {i: i - 1 for i in range(1, 41)}


def test_the_two_years_have_their_own_classes():
    names = [MetadataCatalog.get(f"ytvis_{year}_train").thing_classes for year in (2019, 2021)]
    assert "sedan" in names[0] and "squirrel" not in names[0]
    assert "squirrel" in names[1] and "sedan" not in names[1]


def test_the_json_may_lie_where_the_archive_of_2021_has_it(root):
    raw.make_ytvis(root, 2021)
    (root / "ytvis_2021/train.json").rename(root / "ytvis_2021/train/instances.json")
    assert len(DatasetCatalog.get("ytvis_2021_train")) == 3
    register_all(root)
    found = MetadataCatalog.get("ytvis_2021_train").json_file
    assert found == str(root / "ytvis_2021/train/instances.json")


def test_what_is_held_out_follows_from_the_names_alone():
    names = [f"{i:010x}" for i in range(3000)]
    held_out = [name for name in names if is_held_out(name)]
    numbers = [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) for name in names]
    assert held_out == [names[i] for i, number in enumerate(numbers) if number < 2**64 / 10]
    assert 240 < len(held_out) < 360
    assert is_held_out("003234408d") and not is_held_out("0043f083b5")


def test_held_in_and_held_out_are_train(root):
    raw.make_ytvis(root)
    path = root / "ytvis_2019/train.json"
    content = json.loads(path.read_text())
    names = iter(f"{i:010x}" for i in range(1000))
    chosen = {2: next(filter(is_held_out, names))}  # so that both parts have videos
    for video in content["videos"]:
        name = chosen.get(video["id"]) or next(n for n in names if not is_held_out(n))
        folder = root / "ytvis_2019/train/JPEGImages"
        (folder / video["file_names"][0]).parent.rename(folder / name)
        video["file_names"] = [f"{name}/{x.partition('/')[2]}" for x in video["file_names"]]
    path.write_text(json.dumps(content))
    whole, held_in, held_out = (
        DatasetCatalog.get(f"ytvis_2019_train{part}") for part in ("", "_held_in", "_held_out")
    )
    assert [record["video_id"] for record in held_out] == [2]
    assert sorted(held_in + held_out, key=lambda record: record["video_id"]) == whole
    assert MetadataCatalog.get("ytvis_2019_train_held_out").get("json_file") is None

    assert cli.main(["dataset", "prepare", "ytvis-2019", "--root", str(root)]) == 0
    metadata = MetadataCatalog.get("ytvis_2019_train").as_dict()
    for part, records in (("held_in", held_in), ("held_out", held_out)):
        json_file, frames = path.with_name(f"train_{part}.json"), path.parent / "train/JPEGImages"
        assert load_video_instances(json_file, frames, metadata) == records


def changed(root, change):
    path = root / "ytvis_2019/train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


DAMAGE = {
    "length": (
        lambda content: content["videos"][1].update(length=5),
        r"train\.json: the video 2 has 4 file_names, but a length of 5; fix",
    ),
    "masks": (
        lambda content: content["annotations"][3]["segmentations"].pop(),
        r"train\.json: the object 4 of the video 2 has 3 segmentations, but its video has 4 ",
    ),
    "boxes": (
        lambda content: content["annotations"][3]["bboxes"].append(None),
        r"the object 4 of the video 2 has 5 bboxes, but its video has 4 file_names; give",
    ),
    "no masks": (
        lambda content: content["annotations"][3].pop("segmentations"),
        r"the object 4 of the video 2 has 0 segmentations",
    ),
    "empty video": (
        lambda content: content["videos"][0].update(file_names=[], length=0),
        r"train\.json: the video 5 has no file_names; remove",
    ),
    "class": (
        lambda content: content["annotations"][0].update(category_id=41),
        r"train\.json has category_id=41",
    ),
    "no video": (
        lambda content: content["videos"].pop(0),
        r"annotations of the video_id 5, which is none of its videos",
    ),
    "ids": (
        lambda content: content["annotations"][4].update(id=4),
        r"2 objects of the video 2 have the same id, 4; give",
    ),
    "videos": (
        lambda content: content["videos"][1].update(id=content["videos"][0]["id"]),
        r"train\.json: 2 videos have the same id, 5; give",
    ),
    "form": (
        lambda content: content.pop("videos"),
        r"train\.json has no list 'videos'",
    ),
    "video": (
        lambda content: content["videos"][0].pop("file_names"),
        r"train\.json: videos\[0\] has no file_names",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_json_that_contradicts_itself_is_named(root, damage):
    raw.make_ytvis(root)
    change, message = DAMAGE[damage]
    changed(root, change)
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("ytvis_2019_train")


def test_missing_frames_are_counted_and_the_first_is_named(root):
    raw.make_ytvis(root)
    folder = root / "ytvis_2019/train/JPEGImages"
    for name in ("train0000002/00010.jpg", "train0000009/00000.jpg"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 11 frames are missing, .*0002.00010\.jpg"):
        DatasetCatalog.get("ytvis_2019_train")


def test_polygons_of_two_corners_are_no_masks(root):
    raw.make_ytvis(root)

    def change(content):
        content["annotations"][0]["segmentations"] = [[[1, 2, 3, 4]]]  # a box, to pycocotools

    changed(root, change)
    record = next(r for r in DatasetCatalog.get("ytvis_2019_train") if r["video_id"] == 5)
    assert [annotation["id"] for annotation in record["annotations"][0]] == [2, 3]


def test_the_parts_of_2021_are_written_too(tmp_path):
    raw.make_ytvis(tmp_path, 2021)
    assert cli.main(["dataset", "prepare", "ytvis-2021", "--root", str(tmp_path)]) == 0
    parts = [tmp_path / f"ytvis_2021/train_held_{part}.json" for part in ("in", "out")]
    videos = [json.loads(path.read_text())["videos"] for path in parts]
    assert sum(map(len, videos)) == 3


def test_frames_are_turned_upright_before_they_are_measured(root):
    raw.make_vspw(root)
    for path in (root / "VSPW_480p/data/2_v/origin").iterdir():
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    (record,) = DatasetCatalog.get("vspw_val")
    assert (record["height"], record["width"]) == (WIDTH, HEIGHT)
