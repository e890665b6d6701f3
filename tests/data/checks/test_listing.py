"""`rankseg-d2 dataset list`: all data sets, as they are registered, and what a folder lacks."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import raw_persons as raw

from rankseg_d2.cli import main
from rankseg_d2.data.checks.listing import describe_all
from rankseg_d2.data.datasets import COMMANDS
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
        assert row["registered"] and row["home"] in row["licence"]
        for name in row["registered"]:
            metadata = MetadataCatalog.get(name)
            if metadata.evaluator_type in ("coco", "ytvis") and len(row["tasks"]) > 1:
                continue  # the things alone
            count = len(metadata.get("stuff_classes") or metadata.thing_classes)
            with_person = metadata.get("part_classes") is not None
            expected = 1 if "_entity_" in f"{name}_" else row["classes"]
            is_either = expected == "59 or 60"
            assert count in ((59, 60) if is_either else (expected + with_person,)), name


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
    assert "Cityscapes: non-commercial purposes, see https://www.cityscapes-dataset.com" in text


@pytest.mark.parametrize("nested", [False, True])
def test_a_complete_data_set_lacks_nothing(root, nested):
    raw.make_lip(root, nested)
    row = rows_of(root)["LIP"]
    assert (row["missing"], row["to_prepare"]) == ([], [])


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
    assert row["images"] == {"train": 15403, "val": 5000}
    assert row["tasks"] == ["semantic", "parsing"]
    assert len(row["to_prepare"]) == 2 and json.dumps(content)
    for split in ("train", "val"):
        COMMANDS["mhpv2"].prepare(root, split, 1)
    assert rows_of(root)["MHP v2"]["to_prepare"] == []
    assert main(words) == 0
    assert "    nothing" in capsys.readouterr().out


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
    assert "no data set has 'mph v1' in its name or task; the nearest" in capsys.readouterr().err
