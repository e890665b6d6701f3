"""`rankseg-d2 dataset init` and `convert`: from a folder to a yaml that `check` calls good."""

import json
import os
import shutil

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import own_formats
from support.own_formats import IMAGES, NAMES, class_map

from rankseg_d2.cli import main
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.own.register import register_own_data

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def init(folder):
    """The content of the yaml that `init` writes, which `check` must call good."""
    assert main(["dataset", "init", str(folder)]) == 0
    path = folder / f"{folder.name}.yaml"
    assert main(["dataset", "check", str(path), "--workers", "1"]) == 0
    return yaml.safe_load(path.read_text())


@pytest.fixture
def plants(tmp_path):
    """A folder named plants."""
    folder = tmp_path / "plants"
    folder.mkdir()
    return folder


def label_images(folder, labels, names=IMAGES, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{name}{suffix}")


def test_init_of_binary_masks(plants, capsys):
    own_formats.images(plants / "photos")
    label_images(plants / "masks", class_map().clip(0, 1) * 255)
    assert init(plants) == {
        "name": "plants", "images": "photos", "labels": "masks",
        "splits": {"train": 0.7, "val": 0.3}, "values": {0: "background", 255: "object"},
    }  # fmt: skip
    written = capsys.readouterr().out
    assert "found: 10 label images, values 0, 255" in written
    assert "to edit: the names of the classes" in written


def test_init_of_masks_in_the_folder_of_the_images(plants):
    own_formats.images(plants, [f"{i}_a" for i in range(10)])
    label_images(plants, class_map() + 1, [f"{i}_a" for i in range(10)], "_mask.png")
    found = init(plants)
    assert (found["image_suffix"], found["label_suffix"]) == (".jpg", "_mask.png")
    assert found["values"] == {1: "class_1", 2: "class_2", 3: "class_3"}


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_init_finds_the_splits_and_names_of_classes(plants, layout):
    ignored = class_map()
    ignored[0] = 255
    for split, names in (("train", IMAGES[:6]), ("valid", IMAGES[6:])):
        own_formats.images(plants / layout.format(kind="img", split=split), names)
        label_images(plants / layout.format(kind="ann", split=split), ignored, names)
    own_formats.images(plants / layout.format(kind="img", split="test"), ["new"])
    (plants / "classes.txt").write_text("soil\nleaf\nstem\n")
    found = init(plants)
    assert found["values"] == {0: "soil", 1: "leaf", 2: "stem", 255: "ignore"}
    folders = {split: {"images": layout.format(kind="img", split=name),
                       "labels": layout.format(kind="ann", split=name)}
               for split, name in (("train", "train"), ("val", "valid"))}
    folders["test"] = {"images": layout.format(kind="img", split="test"), "labels": "none"}
    assert found["splits"] == folders


def test_init_of_colours_with_the_list_of_cvat(plants):
    own_formats.rgb(plants).unlink()
    plain = init(plants)
    assert [entry["color"] for entry in plain["classes"]] == [[0, 0, 0], [30, 200, 30],
                                                              [200, 30, 30]]
    (plants / "plants.yaml").unlink()
    (plants / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
                                         "leaf:200,30,30::\nstem:30,200,30::\n")
    assert init(plants)["classes"][1] == {"name": "leaf", "color": [200, 30, 30]}


def test_init_of_roboflows_masks(plants):
    own_formats.images(plants / "train")
    label_images(plants / "train", class_map(), suffix="_mask.png")
    (plants / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, leaf\n"
                                               "2, stem\n")
    assert init(plants)["values"] == {0: "background", 1: "leaf", 2: "stem"}


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
def test_init_of_polygons(plants, kind):
    getattr(own_formats, kind)(plants).unlink()
    parts = {"train": 0.7, "val": 0.3}
    assert init(plants) == {"name": "plants"} | {
        "coco": {"images": "images", "labels": "instances.json", "splits": parts},
        "labelme": {"images": "photos", "labels": {"labelme": "photos"}, "splits": parts,
                    "classes": NAMES},
        "yolo": {"yolo": "data.yaml"},
    }[kind]  # fmt: skip


def test_init_of_yolo_without_its_yaml_and_elsewhere(plants, tmp_path):
    own_formats.yolo(plants).unlink()
    (plants / "data.yaml").unlink()
    path = tmp_path / "other/mine.yaml"
    assert main(["dataset", "init", str(plants), "--output", str(path)]) == 0
    content = yaml.safe_load(path.read_text())
    assert content["classes"] == ["class_0", "class_1"]
    assert content["splits"]["val"] == {"images": "../plants/images/val",
                                        "labels": {"yolo": "../plants/labels/val"}}
    assert main(["dataset", "check", str(path), "--workers", "1"]) == 0


def test_init_overwrites_nothing_and_says_what_is_missing(plants, capsys):
    own_formats.images(plants / "images")
    assert main(["dataset", "init", str(plants)]) == 1
    assert "plants has no images with labels of the same names: put" in capsys.readouterr().err
    own_formats.write(plants / "labels/000.xml", "<annotation>")
    assert main(["dataset", "init", str(plants)]) == 1
    assert "xml files of Pascal VOC" in capsys.readouterr().err
    label_images(plants / "labels", class_map())
    (plants / "plants.yaml").write_text("mine")
    assert main(["dataset", "init", str(plants)]) == 1
    assert "plants.yaml exists and is not overwritten; remove it" in capsys.readouterr().err
    assert (plants / "plants.yaml").read_text() == "mine"
    assert main(["dataset", "init", str(plants / "gone")]) == 1
    assert "gone does not exist" in capsys.readouterr().err


# Convert


def convert(format_, source, output, *options):
    """The yaml of a converted data set, which `check` must call good."""
    words = ["dataset", "convert", format_, str(source), "--output", str(output), "--workers", "1"]
    assert main([*words, *options]) == 0
    (path,) = output.glob("*.yaml")
    content = path.read_text()
    path.write_text(content.replace("name: ", "name: new_", 1))
    assert main(["dataset", "check", str(path), "--workers", "1"]) == 0
    return path


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo", "rgb"])
def test_convert_to_label_images(tmp_path, kind):
    folder = tmp_path / "plants"
    folder.mkdir()
    source = getattr(own_formats, kind)(folder)
    options = () if kind == "rgb" else ("--background", "soil")
    path = convert(kind, source, tmp_path / "new", *options)
    names = register_own_data(path)
    assert names == ["new_plants_train", "new_plants_val"]
    records = [record for name in names for record in DatasetCatalog.get(name)]
    assert len(records) == (8 if kind == "yolo" else 10)
    for record in records:
        labels = read_label_map(record["sem_seg_file_name"], MetadataCatalog.get(names[0]))
        np.testing.assert_array_equal(labels, class_map())
    assert MetadataCatalog.get(names[0]).stuff_classes == ["soil", *NAMES]


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
def test_convert_to_a_coco_json_keeps_the_objects(tmp_path, kind):
    source = getattr(own_formats, kind)(tmp_path)
    register_own_data(source)
    before = DatasetCatalog.get("plants_train")
    path = convert(kind, source, tmp_path / "new", "--task", "instances")
    register_own_data(path)
    after = DatasetCatalog.get("new_plants_train")
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert os.path.samefile(old["file_name"], new["file_name"])
        for a, b in zip(old["annotations"], new["annotations"], strict=True):
            assert (a["category_id"], a["segmentation"]) == (b["category_id"], b["segmentation"])
    content = json.loads((tmp_path / "new/train.json").read_text())
    assert content["annotations"][0]["area"] == 120
    assert content["annotations"][0]["bbox"] == [2, 3, 10, 12]


def test_convert_of_a_folder_and_of_the_wrong_format(tmp_path, capsys):
    own_formats.labelme(tmp_path / "plants").unlink()
    convert("labelme", tmp_path / "plants", tmp_path / "new")
    words = ["dataset", "convert", "yolo", str(tmp_path / "plants"), "--output"]
    assert main([*words, str(tmp_path / "other")]) == 1
    assert "json files of labelme" in capsys.readouterr().err
    yaml_of_coco = own_formats.coco(tmp_path / "cars")
    words[3] = str(yaml_of_coco)
    assert main([*words, str(tmp_path / "other")]) == 1
    assert "of the format coco, not yolo" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_convert_overwrites_nothing(tmp_path, capsys):
    source = own_formats.labelme(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/mine.txt").write_text("mine")
    words = ["dataset", "convert", "labelme", str(source), "--output"]
    for output in (tmp_path / "new", tmp_path / "new/mine.txt"):
        assert main([*words, str(output)]) == 1
        assert "exists and is not an empty folder; name another" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.txt"]


def test_convert_writes_nothing_outside(tmp_path, capsys):
    path = own_formats.coco(tmp_path / "plants")
    shutil.move(tmp_path / "plants/images/003.jpg", tmp_path / "evil.jpg")
    json_path = tmp_path / "plants/instances.json"
    json_path.write_text(json_path.read_text().replace("003.jpg", "../../evil.jpg"))
    words = ["dataset", "convert", "coco", str(path), "--output", str(tmp_path / "new"),
             "--workers", "1"]
    for task in ("semantic", "instances"):
        assert main([*words, "--task", task]) == 1
        assert "leads out of" in capsys.readouterr().err
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.jpg", "plants"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"images": 3, "annotations": [], "categories": []}', '{"shapes": 1}',
             '{"images": [{"file_name": 7}, 3], "annotations": [], "categories": []}']
)
def test_init_ends_in_a_sentence_for_odd_files(plants, capsys, text):
    own_formats.images(plants / "images", ["000"])
    for name in ("labels/000.json", "labels/classes.txt", "data.yaml", "labelmap.txt"):
        own_formats.write(plants / name, text)
    (plants / "labels/000.txt").write_bytes(b"\xff\x00\n")
    (plants / "labels/000.png").write_bytes(b"\x89PNG")
    assert main(["dataset", "init", str(plants)]) == 1
    assert capsys.readouterr().err.startswith(f"rankseg-d2 dataset init {plants}: error: ")
