"""CamVid, LIP, CIHP, MHP and ATR: labels, splits and persons, against the rules in their words."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import raw_persons as raw
from support.raw_datasets import write_image

from rankseg_d2.cli import main
from rankseg_d2.data.classes import load_classes, load_flip_pairs
from rankseg_d2.data.datasets import COMMANDS, atr, mhp
from rankseg_d2.data.formats.file_lists import read_stems
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.formats.person_labels import PersonLabels
from rankseg_d2.data.loading.records import require_labels
from rankseg_d2.evaluation import SemanticEvaluator


def prepare(name, root, splits=None):
    for split in splits or COMMANDS[name].splits:
        COMMANDS[name].prepare(root, split, 1)


def check_labels(name, expected):
    """The records of a data set are these, in sorted order, with these label maps."""
    metadata, records = MetadataCatalog.get(name), DatasetCatalog.get(name)
    assert [record["image_id"] for record in records] == sorted(expected)
    for record in records:
        labels = read_label_map(record["sem_seg_file_name"], metadata)
        np.testing.assert_array_equal(labels, expected[record["image_id"]])
    return records


@pytest.mark.parametrize("source", ["colors", "segnet"])
def test_camvids_colours_are_grouped_and_all_others_ignored(root, source):
    made = raw.make_camvid(root, source)
    prepare("camvid", root)
    for split, expected in made.items():
        check_labels(f"camvid_sem_seg_{split}", expected)


def test_the_32_colours_of_camvid_are_in_one_group_each():
    members = [m for entry in load_classes("camvid_11") for m in entry["raw_members"]]
    assert len({tuple(member["color"]) for member in members}) == len(members) == 31  # and void


def test_wrong_label_images_of_camvid_are_named(root):
    raw.make_camvid(root, "segnet")
    path = root / "CamVid/trainannot/0001TP_000060.png"
    write_image(path, np.full((40, 56), 12, np.uint8))
    with pytest.raises(ValueError, match=r"000060\.png has the value 12, .* 0 to 11 \(ignored\)"):
        prepare("camvid", root)
    write_image(path, np.full((40, 56, 3), 9, np.uint8))
    with pytest.raises(ValueError, match="no pixel in a colour of CamVid's classes"):
        prepare("camvid", root)


def test_coloured_label_images_of_camvid_may_have_a_palette(root):
    made = raw.make_camvid(root)
    for path in (root / "CamVid").glob("*_labels/*_L.png"):
        with Image.open(path) as image:
            image.convert("P", palette=Image.Palette.ADAPTIVE).save(path)
            assert Image.open(path).mode == "P"
    prepare("camvid", root)
    for split, expected in made.items():
        check_labels(f"camvid_sem_seg_{split}", expected)


def test_numbers_in_the_coloured_label_images_of_camvid_are_refused(root):
    raw.make_camvid(root)
    for path in (root / "CamVid").glob("*_labels/*_L.png"):
        write_image(path, np.full((40, 56), 3, np.uint8))
    with pytest.raises(ValueError, match=r"_L\.png has no pixel in a colour of CamVid's classes"):
        prepare("camvid", root)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_lip_is_read_as_its_archives_are_unpacked(root, nested, lists):
    made = raw.make_lip(root, nested, lists)
    for split, expected in made.items():
        check_labels(f"lip_sem_seg_{split}", expected)


def test_a_list_of_lip_says_which_files_count(root):
    made = raw.make_lip(root)
    (root / "LIP/TrainVal_images/val_id.txt").write_text("9_val\n")
    check_labels("lip_sem_seg_val", {"9_val": made["val"]["9_val"]})


def test_cihp_has_part_maps_and_persons(root):
    made = raw.make_cihp(root)
    for split, images in made.items():
        expected = {name: raw.merged(maps) for name, maps in images.items()}
        check_labels(f"cihp_sem_seg_{split}", expected)
        for record in check_labels(f"cihp_parsing_{split}", expected):
            found, maps = record["person_labels"], images[record["image_id"]]
            np.testing.assert_array_equal(found.read(), maps)
            assert found.classes() == [*np.unique(expected[record["image_id"]]), 20]


@pytest.mark.parametrize("version", [1, 2])
def test_persons_of_mhp_are_merged_and_the_first_stays_on_top(root, version):
    made = raw.make_mhp(root, version, overlapping=True)
    name = f"mhpv{version}"
    if version == 1:
        assert mhp.NUM_TRAIN == 3000
        (root / "LV-MHP-v1/val_list.txt").write_text("0101.jpg\n0111.jpg\n")
    prepare(name, root)
    for split, images in made.items():
        expected = {image: raw.merged(maps) for image, maps in images.items()}
        assert all(len(maps) == 3 and (maps > 0).sum(0).max() > 1 for maps in images.values())
        for record in check_labels(f"{name}_parsing_{split}", expected):
            labels = record["person_labels"]
            np.testing.assert_array_equal(labels.read(), images[record["image_id"]])
            np.testing.assert_array_equal(labels.merged(), expected[record["image_id"]])


def test_without_a_list_of_its_own_val_is_what_follows_the_first_images_of_mhp_v1(
    root, monkeypatch
):
    made = raw.make_mhp(root, 1)
    (root / "LV-MHP-v1/val_list.txt").unlink()
    monkeypatch.setattr(mhp, "NUM_TRAIN", 2)
    prepare("mhpv1", root)
    for split in made:
        records = DatasetCatalog.get(f"mhpv1_sem_seg_{split}")
        assert [record["image_id"] for record in records] == list(made[split])


def test_a_list_of_val_that_comes_later_says_which_command_to_run(root, monkeypatch):
    made = raw.make_mhp(root, 1)
    path = root / "LV-MHP-v1/val_list.txt"
    content = path.read_text()
    path.unlink()
    monkeypatch.setattr(mhp, "NUM_TRAIN", 2)
    prepare("mhpv1", root)
    path.write_text(content)
    for split in ("train", "val"):
        with pytest.raises(RuntimeError, match=r"val_list\.txt; update it with `.* prepare mhpv1"):
            DatasetCatalog.get(f"mhpv1_sem_seg_{split}")
    assert len(DatasetCatalog.get("mhpv1_sem_seg_test")) == len(made["test"])
    prepare("mhpv1", root)
    for split in made:
        assert len(DatasetCatalog.get(f"mhpv1_parsing_{split}")) == len(made[split])


def test_an_image_takes_only_the_persons_of_its_own_number(root):
    """Not those of all names that begin as its own does: 1 and 11."""
    made = raw.make_mhp(root, 2)
    prepare("mhpv2", root, ["train"])
    records = {r["image_id"]: r["person_labels"] for r in DatasetCatalog.get("mhpv2_parsing_train")}
    assert {name: len(labels.files) for name, labels in records.items()} == {"1": 2, "11": 2}
    np.testing.assert_array_equal(records["1"].read(), made["train"]["1"])


def test_atr_takes_the_users_lists(root):
    for split, expected in raw.make_atr(root).items():
        check_labels(f"atr_sem_seg_{split}", expected)
    (root / raw.ATR / "val.txt").unlink()
    text = (
        r"humanparsing has train\.txt and test\.txt but no val\.txt; write all three of "
        r"train\.txt, val\.txt, test\.txt, or remove train\.txt and test\.txt$"
    )
    with pytest.raises(FileNotFoundError, match=text):
        DatasetCatalog.get("atr_sem_seg_val")


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_names_in_a_list_may_have_endings(root, ending):
    made = raw.make_atr(root)
    path = root / raw.ATR / "val.txt"
    path.write_text("".join(f"{name}{ending}\n" for name in made["val"]))
    check_labels("atr_sem_seg_val", made["val"])


def test_only_endings_of_images_are_taken_from_the_names_of_a_list(tmp_path):
    (tmp_path / "names.txt").write_text("a.jpg\nb.5\nc.png\nd.txt\n")
    assert read_stems(tmp_path / "names.txt") == ["a", "b.5", "c", "d.txt"]


def test_atr_without_lists_is_sorted_and_sliced_with_one_warning(root, monkeypatch, caplog):
    made = raw.make_atr(root, lists=False)
    with pytest.raises(ValueError, match=r"has 6 images, and no lists .* more than 16700 images"):
        DatasetCatalog.get("atr_sem_seg_train")
    monkeypatch.setattr(atr, "SIZES", {"train": 3, "val": 1})
    names = sorted(name for images in made.values() for name in images)
    parts = {"train": names[:3], "val": names[3:4], "test": names[4:]}
    with caplog.at_level(logging.WARNING, "rankseg_d2"):
        for split, expected in parts.items():
            records = DatasetCatalog.get(f"atr_sem_seg_{split}")
            assert [record["image_id"] for record in records] == expected
    assert [r.message for r in caplog.records if "ATR publishes none" in r.message] == [
        caplog.records[0].message
    ]


TESTS = ["lip_sem_seg", "cihp_sem_seg", "cihp_parsing", "mhpv2_sem_seg", "mhpv2_parsing"]


@pytest.mark.parametrize("name", TESTS)
def test_images_without_public_labels_are_registered_as_such(root, name):
    folders = raw.make_tests(root)
    records = DatasetCatalog.get(f"{name}_test")
    assert [sorted(record) for record in records] == [["file_name", "image_id"]] * 2
    assert [record["image_id"] for record in records] == ["7", "8"]
    assert str(Path(records[0]["file_name"]).parent.relative_to(root)) in folders
    metadata, labelled = (MetadataCatalog.get(f"{name}_{split}") for split in ("test", "val"))
    assert not metadata.has_labels and labelled.has_labels
    assert metadata.stuff_classes == labelled.stuff_classes
    with pytest.raises(ValueError, match=f"the data set {name}_test has no labels"):
        require_labels([f"{name}_test"])


@pytest.mark.parametrize(
    "folder",
    ["", "testing_images", "Testing_images", "Testing_images/testing_images"],
)
def test_the_test_images_of_lip_may_be_nested(root, folder):
    path = root / raw.LIP / "Testing_images" / folder / "5.jpg"
    write_image(path, np.zeros((40, 56, 3), np.uint8))
    assert [r["file_name"] for r in DatasetCatalog.get("lip_sem_seg_test")] == [str(path)]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lip_sem_seg", f"{raw.LIP}/Testing_images/test_id.txt"),
        ("cihp_parsing", f"{raw.CIHP}/Testing/test_id.txt"),
        ("mhpv2_sem_seg", "LV-MHP-v2/list/test.txt"),
    ],
)
def test_a_list_of_test_says_which_images_count(root, name, path):
    raw.make_tests(root)
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text("8\n")
    assert [record["image_id"] for record in DatasetCatalog.get(f"{name}_test")] == ["8"]
    (root / path).write_text("8\n9\n")
    with pytest.raises(FileNotFoundError, match=r"has no 9\.jpg, which .* names; unpack"):
        DatasetCatalog.get(f"{name}_test")


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("lip_sem_seg_test", "LIP/Testing_images"),
        ("mhpv2_sem_seg_test", "LV-MHP-v2/test/images"),
        ("lip_sem_seg_train", "LIP/TrainVal_images/train_images"),
        ("cihp_sem_seg_val", "instance-level_human_parsing/Validation"),
        ("atr_sem_seg_val", "humanparsing"),
    ],
)
def test_missing_folders_are_named(root, name, lacks):
    with pytest.raises(FileNotFoundError, match=f"{lacks} does not exist; download the data set"):
        DatasetCatalog.get(name)


def test_cihp_without_persons_still_has_part_maps(root):
    raw.make_cihp(root)
    folder = root / raw.CIHP / "Validation/Human_ids"
    (folder / "0000003.png").unlink()
    with pytest.raises(ValueError, match=r"Human_ids do not pair.* no label map for 1 \(0000003\)"):
        DatasetCatalog.get("cihp_parsing_val")
    (folder / "0000001.png").unlink()
    folder.rmdir()
    assert len(DatasetCatalog.get("cihp_sem_seg_val")) == 2
    with pytest.raises(FileNotFoundError, match="Human_ids does not exist"):
        DatasetCatalog.get("cihp_parsing_val")


def test_a_check_counts_parts_and_finds_images_without_a_person(root, capsys):
    raw.make_cihp(root)
    words = ["dataset", "check", "cihp_parsing_val", "--workers", "1"]
    assert main(words) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    folder = root / raw.CIHP / "Validation/Human_ids"
    write_image(folder / "0000001.png", np.zeros((40, 56), np.uint8))
    write_image(folder / "0000003.png", np.ones((40, 55), np.uint8))
    assert main(words) == 1
    text = capsys.readouterr().out
    assert "no person: 1" in text and "0000001.png" in text
    assert "unreadable label: 1" in text and "0000003.png is 55 x 40" in text


def test_wrong_part_maps_are_named(root, tmp_path):
    raw.make_mhp(root, 1)
    path = root / "LV-MHP-v1/annotations/0001_02_02.png"
    write_image(path, np.full((40, 56), 19, np.uint8))
    with pytest.raises(ValueError, match=r"0001_02_02\.png has the value 19, .* to 18; download"):
        prepare("mhpv1", root, ["train"])
    write_image(path, np.ones((41, 56), np.uint8))
    with pytest.raises(ValueError, match=r"_02_02\.png is 56 x 41 .* of the same image is 56 x 40"):
        prepare("mhpv1", root, ["train"])
    write_image(path, np.stack([np.full((40, 56), i, np.uint8) for i in range(3)], -1))
    with pytest.raises(ValueError, match="3 channels that differ"):
        prepare("mhpv1", root, ["train"])
    path.unlink()
    (root / "LV-MHP-v1/annotations/0001_02_01.png").unlink()
    with pytest.raises(ValueError, match=r"no label map for 1 \(0001\)"):
        prepare("mhpv1", root, ["train"])
    (root / "LV-MHP-v1/train_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_list\.txt does not exist"):
        prepare("mhpv1", root, ["train"])


def test_a_label_of_another_size_is_named_where_it_is_read(root):
    raw.make_lip(root)
    record = DatasetCatalog.get("lip_sem_seg_val")[0]
    with Image.open(record["sem_seg_file_name"]) as image:
        smaller = np.asarray(image)[:-1]
    write_image(record["sem_seg_file_name"], smaller)
    evaluator = SemanticEvaluator("lip_sem_seg_val")
    prediction = {"sem_seg_labels": torch.zeros(40, 56, dtype=int)}
    evaluator.process([record], [prediction])
    with pytest.raises(ValueError, match=r"has 56 x 39 pixels, but the prediction"):
        evaluator.evaluate()


def test_grey_part_maps_with_three_channels_are_read_as_one(tmp_path):
    parts = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_image(tmp_path / "grey.png", np.stack([parts] * 3, -1))
    np.testing.assert_array_equal(
        PersonLabels((str(tmp_path / "grey.png"),), 19).read(), parts[None]
    )


def test_an_image_without_a_person_has_only_background(tmp_path):
    write_image(tmp_path / "none.png", np.zeros((3, 4), np.uint8))
    labels = PersonLabels((str(tmp_path / "none.png"),), 19)
    assert labels.read().shape == (0, 3, 4) and labels.classes() == [0]
    numbers = PersonLabels(labels.files, 19, numbers=labels.files[0])
    assert numbers.read().shape == (0, 3, 4)


@pytest.mark.parametrize("name", ["lip_20", "cihp_20", "mhpv1_19", "mhpv2_59", "atr_18"])
def test_flip_pairs_are_the_left_and_right_of_one_name(name):
    names = [entry["name"] for entry in load_classes(name)]
    pairs = load_flip_pairs(name)
    for left, right in pairs:
        assert {names[left].replace("left", "right"), names[right]} == {names[right]}
        assert "left" in names[left]
    sided = [entry for entry in names if entry.startswith(("left", "right"))]
    assert 2 * len(pairs) == len(sided)


def test_ade20k_has_no_flip_pairs():
    assert load_flip_pairs("ade20k_150") == ()


@pytest.mark.parametrize("name", ["cihp", "mhpv1", "mhpv2"])
def test_metadata_of_persons(name):
    parts = MetadataCatalog.get(f"{name}_sem_seg_val")
    persons = MetadataCatalog.get(f"{name}_parsing_val")
    count = len(parts.stuff_classes)
    assert persons.stuff_classes == [*parts.stuff_classes, "person"]
    assert persons.part_classes == parts.stuff_classes[1:]
    assert parts.stuff_classes[0] == "background"
    assert persons.thing_dataset_id_to_contiguous_id == {count: count}
    assert persons.flip_pairs == parts.flip_pairs != ()
    assert persons.evaluator_type == "human_parsing" and parts.evaluator_type == "sem_seg"
