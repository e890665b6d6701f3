"""Own data as tools write them: tables of values, colours, polygons, splits without labels."""

import base64
import json
import re
import time

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import own_data, own_formats
from support.end_to_end import small_config, train
from support.own_formats import LEAF, NAMES, SIZE, STEM, class_map, corners
from torch import nn

from rankseg_d2.cli import main
from rankseg_d2.config import get_config
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.mappers import build_mapper
from rankseg_d2.data.own.description import read_own_data
from rankseg_d2.data.own.register import register_own_data
from rankseg_d2.engine import Trainer
from rankseg_d2.evaluation.ground_truth import LabelMaps

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def labels_of(path, split="train"):
    """The label maps of a split, as evaluation reads them."""
    register_own_data(path)
    maps = LabelMaps(f"plants_{split}")
    size = {"height": SIZE[0], "width": SIZE[1]}
    return [maps.read(record | size)[0] for record in DatasetCatalog.get(f"plants_{split}")]


def sample_of(name, mapper="mask_former_semantic"):
    """The first training sample, at the size of the image."""
    cfg = get_config("toy/semantic/base", ["DATASETS.TRAIN", [name], "INPUT.RANDOM_FLIP", "none",
                                           "INPUT.DATASET_MAPPER_NAME", mapper])
    cfg.INPUT.MIN_SIZE_TRAIN = (SIZE[0],)
    return build_mapper(cfg, is_train=True)(DatasetCatalog.get(name)[0])


def check(path, *options):
    """Status and faults of `dataset check`."""
    report = path.parent / "report.json"
    words = ["dataset", "check", str(path), "--workers", "1", "--json", str(report), *options]
    status = main(words)
    return status, json.loads(report.read_text())["faults"]


class AlwaysTheSame(nn.Module):
    """Predicts the label map of every image of these data sets."""

    def forward(self, samples):
        ranking = {"scores": torch.rand(3), "classes": torch.tensor([0, 1])}
        labels = torch.from_numpy(class_map())
        return [{"sem_seg_labels": labels, "ranking": ranking} for _ in samples]


# Values


def test_a_table_of_values_gives_classes_and_ignored_pixels(tmp_path):
    path = own_formats.values(tmp_path, {0: 255, 1: 7, 2: 300}, values={
        7: "leaf", 300: "stem", 255: "ignore"}, classes=["stem", "leaf"])
    path.write_text(path.read_text().replace('"7"', "7").replace('"300"', "300")
                    .replace('"255"', "255"))
    for labels in labels_of(path):
        np.testing.assert_array_equal(labels, np.array([255, 1, 0])[class_map()])
    assert MetadataCatalog.get("plants_val").stuff_classes == ["stem", "leaf"]
    assert check(path)[0] == 0


def test_the_values_name_the_classes_and_several_may_have_one(tmp_path):
    path = own_formats.values(tmp_path, {0: 0, 1: 255, 2: 4})
    path.write_text(path.read_text()[:-1] + ", values: {0: soil, 255: plant, 4: plant}}")
    assert [entry.name for entry in read_own_data(path).classes] == ["soil", "plant"]
    np.testing.assert_array_equal(labels_of(path)[0], class_map().clip(0, 1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("values: {0: a, 1: c}, classes: [a, b]", r"values\[1\]: 'c' is not known; .* a, b|b, a"),
        ("values: {0: a, x: b}", "values must have whole numbers from 0 to 65535, got 'x'"),
        ("values: {0: a, 70000000000: b}", "whole numbers from 0 to 65535, got 70000000000"),
        ("values: {0: a, -1: b}", "whole numbers from 0 to 65535, got -1"),
        ("values: {0: a, true: b}", "whole numbers from 0 to 65535, got True"),
        ("values: {0: a, 1: 3}", "the name of a class or `ignore`, got 3; put it in quotes"),
        ("values: {}", "values is empty|classes is empty"),
        ("values: [a, b]", "values must be {value: name of a class or ignore, ...}, got"),
        ("values: {0: a, 1: b}, label_offset: 1", "values replaces label_offset; remove one"),
        ("values: {0: a, 1: b}, background: a", "values replaces background; remove one"),
        ("values: {0: a, 1: b}, ignore: 1", "ignore has 1, which is the class 'b'"),
        ("classes: [a, b], label_offset: 10000000000", "no class above 65535.* got 10000000000"),
        ("classes: [a, b], label_offset: 65535", "no class above 65535"),
        ("classes: [a, b], ignore: 4000000000", "ignore must have whole numbers from 0 to 65535"),
        ("classes: [a, b], ignore: [[300, 0, 0]]", r"ignore must have .* got \[300, 0, 0\]"),
        ("classes: [a, b, c], flip_pairs: [[a, b], [b, c]]", "flip_pairs has 'b' twice; a class"),
        ("classes: [a, b], flip_pairs: [[a, a]]", "flip_pairs has 'a' twice"),
        ("classes: [a, b], flip_pairs: [[a, [b]]]", "flip_pairs: .*is not known"),
        ("classes: [a, b], resize_labels: 1", "resize_labels must be true or false, got 1"),
        ("classes: [a, b], task: instances", "task: instances needs polygons"),
        ("classes: [a, b], task: segmentation", "task: 'segmentation' is not known"),
        ("classes: [a, b], images: ~nobody_here/x", "names the home folder of a user who does not"),
        ('classes: [a, b], images: ""', "'' is not the path of a file or folder"),
        ("classes: [a, b], splits: {test: {labels: none}}", "no split has labels; labels must be"),
        ("classes: [a, b], labels: {labelme: x, yolo: y}", "must have one format"),
        ("names: [a], train: images/train", "is a data.yaml of YOLO; write another yaml"),
    ],
)
def test_a_wrong_value_of_a_key_is_a_sentence(tmp_path, keys, message):
    path = tmp_path / "my.yaml"
    common = {"name: x": "name", "images: i": "images", "labels: l": "labels",
              "splits: {train: 1.0}": "splits"}
    more = [text for text, key in common.items() if not re.search(rf"\b(?<!_){key}: ", keys)]
    path.write_text("{" + ", ".join([*more, keys]) + "}")
    started = time.process_time()
    with pytest.raises((ValueError, KeyError)) as caught:
        read_own_data(path)
    assert re.search(message, str(caught.value)), caught.value
    assert "my.yaml" in str(caught.value)
    assert time.process_time() - started < 2


def test_no_ignored_value_and_many_classes_are_read(tmp_path):
    path = own_formats.values(tmp_path, {0: 0, 1: 1, 2: 2}, classes=["soil", *NAMES], ignore=[])
    np.testing.assert_array_equal(labels_of(path)[0], class_map())
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(tmp_path / "labels/000.png")
    assert {fault["kind"] for fault in check(path)[1]} == {"unknown value"}
    names = tmp_path / "many.txt"
    names.write_text("\n".join(f"class {i}" for i in range(60_000)))
    keys = json.loads(path.read_text()) | {"classes": "many.txt"}
    keys["flip_pairs"] = [[f"class {i}", f"class {i + 30_000}"] for i in range(2000)]
    path.write_text(json.dumps(keys))
    started = time.process_time()
    assert len(read_own_data(path).flip_pairs) == 2000
    names.write_text(names.read_text() + "\nclass 7")
    with pytest.raises(ValueError, match="has 'class 7' twice"):
        read_own_data(path)
    names.write_text("\n".join(map(str, range(70_000))))
    with pytest.raises(ValueError, match="70000 classes do not fit into label images of 16 bits"):
        read_own_data(path)
    assert time.process_time() - started < 10


# Colours


@pytest.mark.parametrize("alpha", [False, True])
def test_label_images_with_the_colours_of_the_classes(tmp_path, alpha):
    path = own_formats.rgb(tmp_path, alpha=alpha)
    for labels in labels_of(path):
        np.testing.assert_array_equal(labels, class_map())
    masks = sample_of("plants_train")["instances"]
    assert masks.gt_classes.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(masks.gt_masks.tensor[1], class_map() == 1)
    assert check(path) == (0, [])


def test_colours_without_a_class_are_a_fault_and_can_be_ignored(tmp_path):
    path = own_formats.rgb(tmp_path)
    label = tmp_path / "labels/000.png"
    pixels = np.asarray(Image.open(label)).copy()
    pixels[0, :5], pixels[1, :2] = (100, 15, 15), (9, 9, 200)  # the first between two classes
    Image.fromarray(pixels).save(label)
    status, (fault,) = check(path)
    assert (status, fault["kind"], fault["file"]) == (1, "unknown color", str(label))
    assert fault["text"].startswith("[100, 15, 15]: 5 pixels, [9, 9, 200]: 2 pixels; one lies ")
    assert "the edges are probably anti-aliased" in fault["text"]
    register_own_data(path)
    message = r"000\.png has 7 pixels of 2 colours .*\[9, 9, 200\].*anti-aliased"
    with pytest.raises(ValueError, match=message):
        read_label_map(str(label), MetadataCatalog.get("plants_train"))
    path.write_text(path.read_text() + "ignore: [[100, 15, 15], [9, 9, 200]]\n")
    expected = class_map()
    expected[0, :5] = expected[1, :2] = 255
    found = labels_of(path) + labels_of(path, "val")
    assert sum(np.array_equal(labels, expected) for labels in found) == 1
    assert check(path) == (0, [])


def test_colours_without_color_in_the_classes_are_listed(tmp_path):
    path = own_formats.rgb(tmp_path)
    path.write_text(re.sub(r", color: \[[^]]*\]", "", path.read_text()))
    status, faults = check(path)
    assert status == 1 and "3 channels, with 3 colours: [0, 0, 0] 53 %" in faults[0]["text"]
    assert "give each class of its data set a `color`" in faults[0]["text"]


def test_grey_saved_as_rgb_is_read_as_one_channel(tmp_path):
    path = own_formats.values(tmp_path, {0: 0, 1: 1, 2: 2}, classes=["soil", *NAMES])
    for label in (tmp_path / "labels").iterdir():
        Image.fromarray(np.stack([class_map().astype(np.uint8)] * 3, -1)).save(label)
    np.testing.assert_array_equal(labels_of(path)[0], class_map())


# Sizes


def test_labels_of_another_size_are_resized_by_a_key(tmp_path):
    path = own_formats.values(tmp_path, {0: 0, 1: 1, 2: 2}, classes=["soil", *NAMES])
    large = class_map().repeat(3, 0).repeat(3, 1).astype(np.uint8)
    for label in (tmp_path / "labels").iterdir():
        Image.fromarray(large).save(label)
    status, faults = check(path)
    assert status == 1
    assert faults[0]["text"].endswith("label is 96 x 72; `resize_labels: true` in the data set's "
                                      "yaml scales label images to their images")
    register_own_data(path)
    with pytest.raises(ValueError, match="label image .* is 96 x 72; `resize_labels: true`"):
        sample_of("plants_train")
    path.write_text(path.read_text()[:-1] + ', "resize_labels": true}')
    np.testing.assert_array_equal(labels_of(path)[0], class_map())
    np.testing.assert_array_equal(sample_of("plants_train")["sem_seg"], class_map())
    assert check(path) == (0, [])
    for label in (tmp_path / "labels").iterdir():
        Image.fromarray(large.T.copy()).save(label)  # turned: must not be squeezed
    assert {fault["kind"] for fault in check(path)[1]} == {"size mismatch"}
    with pytest.raises(ValueError, match="72 x 96 .*, which is not the shape of its image of 32 x"):
        sample_of("plants_train")


def test_labels_before_an_exif_rotation_are_named(tmp_path):
    path = own_formats.values(tmp_path, {0: 0, 1: 1, 2: 2}, classes=["soil", *NAMES],
                              splits={"train": 1.0})
    turned = Image.new("RGB", SIZE[::-1])  # as the label, but to be turned by 90 degrees
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images/000.jpg", exif=exif)
    status, (fault,) = check(path)
    assert status == 1 and "size of the photo before its EXIF rotation: turn" in fault["text"]
    register_own_data(path)
    with pytest.raises(ValueError, match="the size of the photo before its EXIF rotation"):
        sample_of("plants_train")


# Polygons


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
@pytest.mark.parametrize("background", ["soil", "stem", "ignore"])
def test_polygons_are_drawn_as_label_maps_small_ones_on_top(tmp_path, kind, background):
    path = getattr(own_formats, kind)(tmp_path)
    path.write_text(path.read_text() + f"task: semantic\nbackground: {background}\n")
    ids = {"soil": [0, 1, 2], "stem": [1, 0, 1], "ignore": [255, 0, 1]}[background]
    for labels in labels_of(path) + labels_of(path, "val"):
        np.testing.assert_array_equal(labels, np.array(ids)[class_map()])
    names = ["soil", *NAMES] if background == "soil" else NAMES
    assert MetadataCatalog.get("plants_train").stuff_classes == names
    np.testing.assert_array_equal(sample_of("plants_train")["sem_seg"],
                                  np.array(ids)[class_map()])
    assert check(path) == (0, [])


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
def test_polygons_are_objects_without_a_task(tmp_path, kind):
    path = getattr(own_formats, kind)(tmp_path)
    register_own_data(path)
    metadata = MetadataCatalog.get("plants_train")
    assert (metadata.thing_classes, metadata.evaluator_type) == (NAMES, "coco")
    objects = sample_of("plants_train", "mask_former_instance")["instances"]
    assert objects.gt_classes.tolist() == [0, 1]
    for mask, (x, y, u, v) in zip(objects.gt_masks.tensor, (LEAF, STEM), strict=True):
        assert mask.sum() == (u - x) * (v - y) and mask[y:v, x:u].all()
    assert check(path) == (0, [])
    path.write_text(path.read_text() + "background: soil\n")
    with pytest.raises(ValueError, match="background is the class of pixels in no polygon, .*task"):
        read_own_data(path)


def test_drawn_labels_need_a_background(tmp_path):
    path = own_formats.coco(tmp_path)
    path.write_text(path.read_text() + "task: semantic\n")
    with pytest.raises(ValueError, match="background is missing; it must be `ignore`, or a name"):
        read_own_data(path)


def test_shapes_of_labelme(tmp_path):
    png = tmp_path / "mask.png"
    Image.fromarray(np.full((4, 6), 1, np.uint8) * 255).save(png)
    text = base64.b64encode(png.read_bytes()).decode()
    shapes = [("leaf", "circle", [[16, 12], [16, 20]]), ("stem", "mask", [[1, 2], [6, 5]]),
              ("old", "polygon", corners((20, 0, 24, 4))), ("hair", "linestrip", [[0, 0], [9, 9]])]
    path = own_formats.labelme(tmp_path, shapes)
    for label in (tmp_path / "photos").glob("*.json"):
        content = json.loads(label.read_text())
        content["shapes"][1]["mask"] = text
        label.write_text(json.dumps(content))
    path.write_text(path.read_text() + "values: {old: stem, hair: ignore}\ntask: semantic\n"
                    "background: soil\n")
    labels = labels_of(path)[0]
    assert abs((labels == 1).sum() - np.pi * 64) < 12  # the disk, less what lies on it
    assert (labels[2:6, 1:7] == 2).all() and (labels[0:4, 20:24] == 2).all()
    assert (labels == 2).sum() == 24 + 16
    path.write_text(path.read_text().replace(", hair: ignore", ", hair: leaf"))
    status, faults = check(path)
    assert status == 1
    assert re.search(r"shapes\[3\] is a linestrip, which has no area; .*hair: ignore",
                     faults[0]["text"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("twig", "polygon", corners(LEAF)), r"shapes\[0\]: label.*'twig' is not known; .*leaf"),
        (("leaf", "point", [[1, 2]]), "is a point, which has no area; draw one of polygon"),
        (("leaf", "polygon", [[1, 2], [3, 4]]), "is a polygon of 2 points; it needs 3 or more"),
        (("leaf", "circle", [[1, 2]]), "is a circle of 1 points; it needs 2"),
        (("leaf", "polygon", "abc"), r"points must be a list of \[x, y\]"),
        (("leaf", "polygon", [[1, 2], [3, 4], [1e9, 4]]), r"coordinate 1e\+09, far outside"),
        (("leaf", "polygon", [[1, 2], [3, 4], [float("nan"), 4]]), "a point that is not finite"),
        (("leaf", "mask", [[1, 2], [3, 4]]), "mask must be a PNG in base64"),
        ((None, "polygon", corners(LEAF)), "must have a label, a text"),
    ],
)
def test_a_wrong_shape_of_labelme_is_a_fault_with_its_file(tmp_path, shape, message):
    path = own_formats.labelme(tmp_path, names=["a", "b"])
    path.write_text(path.read_text().replace("{train: 0.7, val: 0.3}", "{train: 1.0}"))
    (tmp_path / "photos/a.json").write_text(own_formats.labelme_json([shape]))
    status, faults = check(path)
    assert (status, faults[0]["kind"]) == (1, "unreadable label")
    assert "photos/a.json" in faults[0]["file"] and re.search(message, faults[0]["text"]), faults
    register_own_data(path)
    with pytest.raises(ValueError, match=r"1 times unreadable label, such as .*a\.json"):
        DatasetCatalog.get("plants_train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.1 0.1 0.2 0.1 0.2 0.2", "line 2: class 2 is not one of the 2 classes, 0 to 1"),
        ("1.0 0.1 0.1 0.2 0.1 0.2 0.2", "line 2: the class is '1.0'"),
        ("1 0.5 0.5 0.2 0.1", "line 2 is a box and not a polygon"),
        ("1 0.1 0.1 0.2 0.1 0.2", "line 2 has 5 coordinates"),
        ("1 0.1 0.1 0.2 0.1 0.2 x", "line 2 has a word that is not a number"),
        ("1 0.1 0.1 35 0.1 0.2 0.2", "line 2 has the coordinate 35; .* divide by the width"),
        ("1 0.1 0.1 nan 0.1 0.2 0.2", "line 2 has the coordinate nan"),
        ("1 0.1 0.1 1e400 0.1 0.2 0.2", "line 2 has the coordinate inf"),
    ],
)
def test_a_wrong_line_of_yolo_is_a_fault_with_its_file(tmp_path, line, message):
    path = own_formats.yolo(tmp_path)
    label = tmp_path / "labels/train/002.txt"
    label.write_text(own_formats.yolo_text([(0, LEAF)]) + line + "\n")
    status, faults = check(path)
    assert (status, faults[0]["kind"], faults[0]["file"]) == (1, "unreadable label", str(label))
    assert re.search(message, faults[0]["text"]), faults


def test_yolo_has_images_without_objects_roboflows_paths_and_a_test_split(tmp_path):
    path = own_formats.yolo(tmp_path, ("train", "val", "test"))
    (tmp_path / "labels/train/001.txt").unlink()
    (tmp_path / "labels/val/001.txt").write_text("")
    (tmp_path / "labels/val/classes.txt").write_text("leaf\nstem\n")
    for label in (tmp_path / "labels/test").iterdir():
        label.unlink()
    (tmp_path / "labels/test").rmdir()
    (tmp_path / "data.yaml").write_text("train: ../images/train\nval: ../images/val\n"
                                        "test: ../images/test\nnc: 2\nnames: [leaf, stem]\n")
    assert register_own_data(path) == ["plants_train", "plants_val", "plants_test"]
    for split in ("train", "val"):
        counts = [len(r["annotations"]) for r in DatasetCatalog.get(f"plants_{split}")]
        assert counts == [2, 0, 2, 2]
    assert not MetadataCatalog.get("plants_test").get("has_labels", True)
    assert check(path) == (0, [])


# Splits without labels


def test_a_split_without_labels_is_counted_predicted_and_not_trained_on(tmp_path, capsys):
    path = own_formats.values(tmp_path, {0: 0, 1: 1, 2: 2}, classes=["soil", *NAMES])
    own_formats.images(tmp_path / "new/sub", ["x", "y"])
    path.write_text(path.read_text().replace(
        '"splits": {"train": 0.7, "val": 0.3}', '"splits": {"train": {}, "val": {}, '
        '"test": {"images": "new", "labels": "none"}}'))
    assert check(path) == (0, [])
    assert main(["dataset", "stats", str(path), "--workers", "1"]) == 0
    assert "test has no labels" in capsys.readouterr().out
    keys = {"MODEL__RANKSEG__TOPK": 2}
    config = tmp_path / "train.yaml"
    config.write_text("_BASE_: ade20k/semantic/r50_rankseg\nDATASETS: {FILES: [my.yaml]}\n")
    cfg = small_config(config, tmp_path / "out", **keys, DATASETS__TEST=["plants_test"])
    assert Trainer.test(cfg, AlwaysTheSame()) == {}
    predicted = tmp_path / "out/inference/plants_test/sem_seg_predictions/sub/x.png"
    np.testing.assert_array_equal(np.asarray(Image.open(predicted)), class_map())
    with pytest.raises(ValueError, match="plants_test has no labels, so it is only for predict"):
        train(small_config(config, tmp_path / "out", **keys, DATASETS__TRAIN=["plants_test"]))


def test_videos_without_labels(tmp_path):
    for video in ("a", "b"):
        own_formats.images(tmp_path / "frames" / video, ["1", "10", "2"])
    path = tmp_path / "my.yaml"
    path.write_text("name: clips\nclasses: [leaf]\nsplits:\n  train: {videos: f, labels: l}\n"
                    "  test: {videos: frames, labels: none}\n")
    register_own_data(path)
    records = DatasetCatalog.get("clips_test")
    assert [record["video_id"] for record in records] == ["a", "b"]
    names = [name.rpartition("/")[2] for name in records[0]["file_names"]]
    assert names == ["1.jpg", "2.jpg", "10.jpg"]
    assert (records[0]["height"], records[0]["width"]) == SIZE


# Formats that are not read, and labels that teach nothing


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", "<annotation><object><name>x</name></object></annotation>", "Pascal VOC, which"),
        ("a.xml", '<?xml version="1.0"?>\n<annotations><version>1.1', "CVAT: export .* `COCO 1.0`"),
        ("a.json", own_formats.labelme_json([]), "labelme: `rankseg-d2 dataset convert labelme"),
        ("a.txt", own_formats.yolo_text(), "YOLO's text files: `rankseg-d2 dataset convert yolo"),
        ("a.json", '{"a.jpg12": {"filename": "a.jpg", "regions": []}}', "VGG Image Annotator: exp"),
        ("a.json", '{"size": {"height": 1, "width": 2}, "objects": []}', "Supervisely: export as"),
        ("a.json", '[{"id": 1, "data": {}, "annotations": []}]', "Label Studio: export as `COCO`"),
        ("a.json", '{"imgHeight": 1, "objects": []}', "Cityscapes: use its label images"),
        ("a.json", '{"items": [], "categories": {}}', "Datumaro: export as `coco_instances`"),
        ("a.json", '{"images": [], "annotations": [], "categories": []}', "write `labels: FILE.js"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_do(tmp_path, name, content, message):
    own_formats.images(tmp_path / "images", ["a"])
    own_formats.write(tmp_path / "labels" / name, content)
    path = own_data.write_yaml(tmp_path, name="plants", images="images", labels="labels",
                               classes=NAMES, splits={"train": 1.0})
    register_own_data(path)
    with pytest.raises(ValueError, match=rf"no image has a label, but .*labels has .*{message}"):
        DatasetCatalog.get("plants_train")
    status, faults = check(path)
    assert status == 1 and re.search(message, "".join(fault["text"] for fault in faults))


def test_a_video_file_and_a_json_of_another_format_are_named(tmp_path):
    own_formats.write(tmp_path / "mine.mp4", "")
    own_formats.write(tmp_path / "labelme.json", own_formats.labelme_json([]))
    path = own_data.write_yaml(tmp_path, name="clips", videos="mine.mp4", labels="labels",
                               classes=NAMES, splits={"train": 1.0})
    register_own_data(path)
    with pytest.raises(OSError, match=r"mine\.mp4 is a file, but must be a folder.*ffmpeg -i mine"):
        DatasetCatalog.get("clips_train")
    path = own_data.write_yaml(tmp_path, name="x", images="i", labels="labelme.json",
                               splits={"train": 1.0})
    with pytest.raises(ValueError, match="no categories; it has json files of labelme"):
        read_own_data(path)


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        (["background", "fruit"], "`values: {0: background, 255: fruit}`"),
        (["soil", "fruit"], "`values: {0: soil, 255: fruit}`"),
        (["fruit"], "`values: {0: background, 255: fruit}`, without `classes`"),
    ],
)
def test_labels_of_0_and_255_are_a_fault_with_the_line_to_write(tmp_path, classes, line, capsys):
    path = own_formats.values(tmp_path, {0: 0, 1: 255, 2: 255}, classes=classes)
    status, faults = check(path)
    assert (status, faults[0]["kind"]) == (1, "only 0 and 255")
    assert faults[0]["text"].endswith(f"write {line}")
    main(["dataset", "stats", str(path), "--workers", "1"])
    assert f"{len(faults)} faults" in capsys.readouterr().out
    keys = json.loads(path.read_text())
    del keys["classes"]
    values = line.split("`")[1]
    path.write_text(json.dumps(keys)[:-1] + f", {values}}}")
    assert check(path) == (0, [])


def test_a_class_in_no_split_is_a_fault_and_stats_count_the_same(tmp_path, capsys):
    path = own_formats.values(tmp_path, {0: 0, 1: 1, 2: 1}, classes=["soil", *NAMES])
    (tmp_path / "labels/003.png").unlink()
    (tmp_path / "images/004.jpg").unlink()
    (tmp_path / "images/005.jpg").write_bytes(b"no image")
    status, faults = check(path)
    kinds = sorted(fault["kind"] for fault in faults)
    assert (status, kinds) == (1, ["class in no split", "image without label",
                                   "label without image", "unreadable image"])
    assert faults[-1]["text"].startswith("stem: remove from the classes")
    main(["dataset", "stats", str(path), "--workers", "1"])
    assert "\n4 faults:" in capsys.readouterr().out


def test_values_that_no_offset_fits_are_proposed_as_a_table(tmp_path, capsys):
    path = own_formats.values(tmp_path, {0: 10, 1: 20, 2: 30}, classes=["soil", *NAMES])
    assert check(path)[0] == 1
    assert "`values: {10: soil, 20: leaf, 30: stem}` would fit" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["rgb", "yolo"])
def test_colours_and_polygons_train_in_workers_and_are_evaluated(tmp_path, kind):
    path = getattr(own_formats, kind)(tmp_path)
    if kind == "yolo":
        path.write_text(path.read_text() + "task: semantic\nbackground: soil\n")
    config = tmp_path / "train.yaml"
    config.write_text("_BASE_: ade20k/semantic/r50_rankseg\nDATASETS: {FILES: [my.yaml]}\n")
    cfg = small_config(config, tmp_path / "out", MODEL__RANKSEG__TOPK=2, DATALOADER__NUM_WORKERS=1)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    train(cfg)
    results = Trainer.test(cfg, AlwaysTheSame())
    assert results["sem_seg"]["mIoU"] == 100
