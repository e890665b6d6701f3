"""`rankseg-d2 dataset list`: all data sets, as they are registered, and what a folder lacks."""

import json
import re
from functools import partial

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import raw_datasets as datasets
from support import raw_persons as raw

from rankseg_d2.cli import main
from rankseg_d2.data.checks import listing
from rankseg_d2.data.checks.listing import describe_all
from rankseg_d2.data.datasets import COMMANDS, atr, cihp, lip
from rankseg_d2.files import read_json


def rows_of(root):
    return {row["name"]: row for row in describe_all(root)}


def is_public(name):
    """Whether our module of a public data set has registered the name."""
    loader = DatasetCatalog[name]
    module = getattr(loader, "func", loader).__module__
    return module.startswith("rankseg_d2.data.datasets.") and not module.endswith("drawn")


def test_every_registered_data_set_is_in_one_row_with_its_classes(root):
    rows = describe_all(root)
    listed = [name for row in rows for name in row["registered"]]
    assert len(set(listed)) == len(listed)
    public = set(filter(is_public, DatasetCatalog.list()))
    assert len(public) > 60 and public - set(listed) == set()
    for row in rows:
        assert row["registered"]
        for name in row["registered"]:
            metadata = MetadataCatalog.get(name)
            if metadata.evaluator_type in ("coco", "ytvis") and len(row["tasks"]) > 1:
                continue  # the things alone
            count = len(metadata.get("stuff_classes") or metadata.thing_classes)
            with_person = metadata.get("part_classes") is not None
            expected = 1 if "_entity_" in f"{name}_" else row["classes"]
            is_either = expected == "59 or 60"
            assert count in ((59, 60) if is_either else (expected + with_person,)), name


def test_every_data_set_has_a_note_on_its_licence(root):
    for row in describe_all(root):
        note, _, home = row["licence"].rpartition("; see ")
        assert note and home == row["home"]
    rows = rows_of(root)
    assert rows["COCO"]["licence"].startswith("annotations: CC BY 4.0; images: Flickr's terms")
    assert rows["VSPW"]["licence"].startswith("not stated here; see https://")


def test_commands_are_those_of_prepare(root):
    named = {row["command"] for row in describe_all(root) if "command" in row}
    assert named == COMMANDS.keys() - {"ade20k-instance", "ytvis-2019", "ytvis-2021"}


def test_an_empty_folder_lacks_everything_but_what_is_drawn(root, capsys):
    assert main(["dataset", "list", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    lines = [line.strip() for line in text.splitlines()]
    assert any(line.startswith("CIHP") and line.endswith(" no") for line in lines)
    assert any(line.startswith("shapes") and line.endswith("drawn on first use") for line in lines)
    assert "LIP: LIP/TrainVal_images/train_images/*.jpg, " in text and ", and 2 more" in text
    assert "Cityscapes: non-commercial purposes; see https://www.cityscapes-dataset.com" in text


@pytest.mark.parametrize("nested", [False, True])
def test_a_complete_data_set_lacks_nothing(root, nested):
    raw.make_lip(root, nested)
    row = rows_of(root)["LIP"]
    assert (row["missing"], row["to_prepare"]) == ([], [])
    assert row["missing_unlabelled"] == ["LIP/Testing_images/*.jpg"]
    raw.make_tests(root)
    row = rows_of(root)["LIP"]
    assert (row["missing_unlabelled"], row["found"]) == ([], 6)


def test_files_that_need_no_preparation_are_looked_for(root, capsys):
    words = ["dataset", "prepare", "lip", "--root", str(root)]
    assert main(words) != 0
    assert f"{root} lacks LIP/TrainVal_images/train_images/*.jpg, " in capsys.readouterr().err
    raw.make_lip(root)
    assert main(words) == 0
    assert "are read as they were published" in capsys.readouterr().out


def test_a_name_may_be_spelled_in_other_ways(root, capsys):
    errors = set()
    for name in ("coco-entity", "coco_entity", "COCO-Entity", "cocoentity"):
        assert main(["dataset", "prepare", name, "--root", str(root), "--workers", "1"]) == 1
        errors.add(capsys.readouterr().err)
    (error,) = errors
    assert error.startswith("rankseg-d2 dataset prepare coco-entity: error: ")
    assert "panoptic_train2017.json" in error


def test_what_is_to_be_prepared_names_its_command(root, capsys):
    raw.make_mhp(root, 2)
    words = ["dataset", "list", "mhpv2", "--root", str(root)]
    assert main([*words, "--json", str(root / "list.json")]) == 0
    text = capsys.readouterr().out
    assert "to prepare" in text and "run `rankseg-d2 dataset prepare mhpv2`" in text
    content = read_json(root / "list.json")
    (row,) = content["datasets"]
    assert row["images"] == {"train": 15403, "val": 5000, "test": 5000}
    assert row["tasks"] == ["semantic", "parsing"]
    assert len(row["to_prepare"]) == 2 and json.dumps(content)
    for split in ("train", "val"):
        COMMANDS["mhpv2"].prepare(root, split, 1)
    assert rows_of(root)["MHP v2"]["to_prepare"] == []
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "in part: 4 of 25,403\n" in text
    assert "25,399 of 25,403 images, LV-MHP-v2/test/images/*.jpg (without labels)\n" in text


@pytest.fixture
def publish(tmp_path_factory, monkeypatch):
    """Makes the catalog say that a data set was published with these numbers of images."""

    def publish(name, images):
        content = read_json(listing._CATALOG)
        (row,) = [row for row in content["datasets"] if row["name"] == name]
        row["images"] = images
        path = tmp_path_factory.mktemp("catalog") / "catalog.json"
        path.write_text(json.dumps(content))
        monkeypatch.setattr(listing, "_CATALOG", path)

    return publish


def test_a_data_set_with_all_its_images_is_here(root, publish, capsys):
    publish("LIP", {"train": 2, "val": 2, "test": 2})
    raw.make_lip(root)
    raw.make_tests(root)
    assert main(["dataset", "list", "lip", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^LIP .* yes$", text, re.MULTILINE) and "    nothing" in text


def test_a_few_of_the_published_images_are_a_part(root, capsys):
    folder = root / raw.ATR
    raw.write_image(folder / "JPEGImages/a.jpg", np.zeros((4, 4, 3), np.uint8))
    raw.write_image(folder / "SegmentationClassAug/b.png", np.zeros((4, 4), np.uint8))
    assert main(["dataset", "list", "atr", "--root", str(root)]) == 0
    assert "in part: 1 of 17,700\n" in capsys.readouterr().out
    assert main(["dataset", "prepare", "atr", "--root", str(root)]) == 0
    assert "published; missing: 17,699 of 17,700 images\n" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["unfinished", "damaged"])
def test_an_interrupted_preparation_is_to_be_run_again(root, publish, capsys, content):
    publish("CamVid", {"train": 2, "val": 2, "test": 2})
    raw.make_camvid(root)
    for split in COMMANDS["camvid"].splits:
        COMMANDS["camvid"].prepare(root, split, 1)
    words = ["dataset", "list", "camvid", "--root", str(root)]
    assert main(words) == 0
    assert " yes\n" in capsys.readouterr().out
    record = root / "CamVid/prepared_val.json"
    unfinished = json.dumps(read_json(record) | {"finished": False})
    record.write_text(unfinished if content == "unfinished" else "{")
    with pytest.raises((RuntimeError, ValueError)):
        DatasetCatalog.get("camvid_sem_seg_val")
    assert rows_of(root)["CamVid"]["to_prepare"] == ["CamVid/prepared_val.json"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert " to prepare\n" in text and "run `rankseg-d2 dataset prepare camvid`\n" in text


MAKERS = {
    "ADE20K": (datasets.make_ade20k, "ade20k"),
    "ADE20K panoptic": (datasets.make_ade20k, "ade20k-panoptic"),
    "ADE20K-Full": (datasets.make_ade20k_full, "ade20k-full"),
    "COCO panoptic": (datasets.make_coco, "coco-panoptic"),
    "COCO entity": (datasets.make_coco, "coco-entity"),
    "COCO-Stuff 10k": (datasets.make_coco_stuff_10k, "coco-stuff-10k"),
    "COCO-Stuff 164k": (datasets.make_coco_stuff_164k, "coco-stuff-164k"),
    "COCO+LVIS": (datasets.make_coco_lvis, "coco-lvis"),
    "PASCAL-Context": (datasets.make_pascal_context, "pascal-context"),
    "Cityscapes": (datasets.make_cityscapes, "cityscapes"),
    "CamVid": (raw.make_camvid, "camvid"),
    "MHP v1": (partial(raw.make_mhp, version=1), "mhpv1"),
    "MHP v2": (partial(raw.make_mhp, version=2), "mhpv2"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_only_a_preparation_reads_is_not_missed_afterwards(root, name):
    make, command = MAKERS[name]
    make(root)
    row = rows_of(root)[name]
    assert row["missing"] == [] and row["to_prepare"] == row["makes"] and row["found"] > 0
    for split in COMMANDS[command].splits:
        COMMANDS[command].prepare(root, split, 1)
    row = rows_of(root)[name]
    assert row["to_prepare"] == []
    records = {str(path.relative_to(root)) for path in root.glob("**/prepared_*.json")}
    assert records == set(row["records"])
    for pattern in row.get("sources", ()):
        for choice in [pattern] if isinstance(pattern, str) else pattern:
            for path in root.glob(choice):
                path.unlink()
    row = rows_of(root)[name]
    assert (row["missing"], row["to_prepare"]) == ([], [])
    for registered in row["registered"]:
        if MetadataCatalog.get(registered).get("has_labels", True):
            try:
                assert DatasetCatalog.get(registered)
            except FileNotFoundError as error:  # one of detectron2's own, which lie elsewhere
                assert str(root) not in str(error)


@pytest.mark.parametrize("place", cihp.places(""))
def test_every_place_that_the_reader_of_cihp_accepts_is_known(root, place):
    raw.make_cihp(root / "made")
    raw.make_tests(root / "made")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "made" / raw.CIHP).rename(root / place)
    for split, count in (("train", 2), ("val", 2), ("test", 2)):
        assert len(DatasetCatalog.get(f"cihp_parsing_{split}")) == count
    row = rows_of(root)["CIHP"]
    assert (row["missing"], row["missing_unlabelled"], row["found"]) == ([], [], 6)
    assert main(["dataset", "prepare", "cihp", "--root", str(root)]) == 0


def test_every_place_that_other_readers_accept_is_known(root):
    rows = {row["name"]: row for row in read_json(listing._CATALOG)["datasets"]}
    folders = [f"{folder}/*.jpg" for folder in lip.folders_of_test()]
    assert set(rows["LIP"]["unlabelled"][0]) == set(folders)
    (images,) = rows["ATR"]["files"]
    assert set(images) == {f"{folder}/JPEGImages/*.jpg" for folder in atr.FOLDERS}


@pytest.mark.parametrize("word", ["coco-entity", "coco_entity", "COCO-Entity", "coco-lvis"])
def test_a_word_is_compared_with_commands_in_any_spelling(root, capsys, word):
    assert main(["dataset", "list", word, "--root", str(root)]) == 0
    names = re.findall(r"^COCO.*?(?=  )", capsys.readouterr().out, re.MULTILINE)
    assert names == ["COCO+LVIS" if word == "coco-lvis" else "COCO entity"]


def test_a_part_that_is_absent_is_named(root, capsys):
    raw.make_mhp(root, 1)
    (root / "LV-MHP-v1/test_list.txt").unlink()
    assert main(["dataset", "list", "MHP v1", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert "in part" in text and "MHP v1: LV-MHP-v1/test_list.txt" in text


def test_a_word_chooses_by_task_and_an_unknown_one_is_answered(root, capsys):
    assert main(["dataset", "list", "parsing", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert "MHP v2" in text and "CIHP" in text and "ADE20K" not in text
    assert main(["dataset", "list", "mph v1", "--root", str(root)]) == 1
    error = capsys.readouterr().err
    assert "no data set has 'mph v1' in its name, task or command; the nearest" in error
