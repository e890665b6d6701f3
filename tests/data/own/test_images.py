import hashlib
import re
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import own_data
from support.own_data import CLASSES, NAMES, write_image, write_label, write_yaml

from rankseg_d2.config import get_config
from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.mappers import build_mapper
from rankseg_d2.data.own.description import read_own_data
from rankseg_d2.data.own.register import register_own_data
from rankseg_d2.evaluation.ground_truth.instances import load_instances
from rankseg_d2.evaluation.ground_truth.segments import PanopticGroundTruth

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def labels_of(name):
    """The labels of a registered data set as they are read, by image id."""
    metadata = MetadataCatalog.get(name)
    return {
        record["image_id"]: read_label_map(record["sem_seg_file_name"], metadata)
        for record in DatasetCatalog.get(name)
    }


# Label images


def test_a_semantic_yaml_registers_each_split(tmp_path):
    path, maps = own_data.semantic(tmp_path)
    assert register_own_data(path) == ["street_train", "street_val"]
    train, val = (DatasetCatalog.get(f"street_{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (8, 2)
    assert sorted(record["image_id"] for record in train + val) == NAMES
    for record in train:
        name = record["image_id"]
        assert record["file_name"] == str(tmp_path / "images" / f"{name}.jpg")
        assert record["sem_seg_file_name"] == str(tmp_path / "labels" / f"{name}.png")
    metadata = MetadataCatalog.get("street_val")
    assert metadata.stuff_classes == CLASSES
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
    assert metadata.image_root == str(tmp_path / "images")
    for name, labels in labels_of("street_train").items():
        np.testing.assert_array_equal(labels, maps[name])


def test_parts_are_the_same_on_every_machine_and_do_not_overlap(tmp_path):
    path, _ = own_data.semantic(tmp_path, splits={"train": 0.5, "val": 0.2, "test": 0.3})
    names = register_own_data(path)
    parts = [[record["image_id"] for record in DatasetCatalog.get(name)] for name in names]
    assert [len(part) for part in parts] == [5, 3, 2]
    assert sorted(sum(parts, [])) == NAMES
    hashes = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) for name in NAMES}
    ends = [0, 0.5 * 2**32, 0.7 * 2**32, 2**32]
    for part, first, end in zip(parts, ends, ends[1:], strict=False):
        assert part == [name for name in NAMES if first <= hashes[name] < end]


def test_images_stay_in_their_part_when_the_data_set_grows(tmp_path):
    small, _ = own_data.semantic(tmp_path / "small")
    large, _ = own_data.semantic(
        tmp_path / "large", names=[f"{i:03d}" for i in range(100)], name="larger"
    )
    parts = []
    for path in (small, large):
        names = register_own_data(path)
        parts.append([{r["image_id"] for r in DatasetCatalog.get(name)} for name in names])
    for before, after in zip(*parts, strict=True):
        assert before and before == after & set(NAMES)
    assert 60 <= len(parts[1][0]) <= 80


def test_offset_ignore_and_background_give_labels_without_conversion(tmp_path):
    path, maps = own_data.semantic(tmp_path, 1, ignore=[200, 255], background="ignore")
    values = own_data.label_map(0) + 1
    values[0, :4] = [0, 200, 255, 5]
    write_label(tmp_path / "labels" / "000.png", values)
    register_own_data(path)
    expected = maps["000"].copy()
    expected[0, :4] = [255, 255, 255, 4]
    labels = labels_of("street_train") | labels_of("street_val")
    np.testing.assert_array_equal(labels["000"], expected)
    np.testing.assert_array_equal(labels["007"], maps["007"])


def test_background_can_be_a_class(tmp_path):
    path, _ = own_data.semantic(tmp_path, 1, background="tree", splits={"train": 1.0})
    write_label(tmp_path / "labels" / "000.png", np.array([[0, 1, 5, 255]]))
    register_own_data(path)
    assert labels_of("street_train")["000"].tolist() == [[4, 0, 4, 255]]


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (0, "label_offset: 0 would fit: the values are 0 to 1"),
        (6, "no label_offset fits 5 classes and 2 values from 1 to 6"),
        (254, "no label_offset fits"),
    ],
)
def test_a_value_without_meaning_is_an_error_and_not_ignored(tmp_path, value, fix):
    path, _ = own_data.semantic(tmp_path, 1, splits={"train": 1.0})
    register_own_data(path)
    write_label(tmp_path / "labels" / "000.png", np.array([[1, value]]))
    message = rf"labels/000\.png has the value {value}, .* 1 to 5, 255 .* for this file, {fix}"
    with pytest.raises(ValueError, match=message):
        labels_of("street_train")


def test_16_bit_labels_with_more_than_255_classes(tmp_path):
    classes = [f"class {i}" for i in range(300)]
    path, _ = own_data.semantic(tmp_path, 1, classes=classes, background="ignore",
                                splits={"train": 1.0})
    write_label(tmp_path / "labels" / "000.png", np.array([[0, 1, 256, 300, 65535]]))
    register_own_data(path)
    assert MetadataCatalog.get("street_train").ignore_label == 65535
    assert labels_of("street_train")["000"].tolist() == [[65535, 0, 255, 299, 65535]]


def test_splits_by_sub_folder_and_by_own_folders(tmp_path):
    own_data.semantic(tmp_path, subfolder="training/city")
    own_data.semantic(tmp_path, subfolder="validation", names=["a", "b"])
    path = write_yaml(tmp_path, name="street", images="images", labels="labels", classes=CLASSES,
                      splits={"train": "training", "val": {"images": "images/validation",
                                                           "labels": "labels/validation"}})
    register_own_data(path)
    assert [r["image_id"] for r in DatasetCatalog.get("street_train")] == [
        f"city/{name}" for name in NAMES
    ]
    assert [r["image_id"] for r in DatasetCatalog.get("street_val")] == ["a", "b"]


def test_splits_by_list_files(tmp_path):
    path, _ = own_data.semantic(tmp_path, splits={"train": "lists/train.txt", "val": "val.txt"})
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("003\n\n001.jpg\n 005 \n")
    (tmp_path / "val.txt").write_text("004\n")
    register_own_data(path)
    assert [r["image_id"] for r in DatasetCatalog.get("street_train")] == ["003", "001", "005"]
    (tmp_path / "val.txt").write_text("004\nnine\n")
    with pytest.raises(ValueError, match=r"split val: 1 times listed image missing, such as nine"):
        DatasetCatalog.get("street_val")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"splits: val: .*val\.txt does not exist"):
        DatasetCatalog.get("street_val")


def test_suffixes_tell_images_and_labels_of_one_folder_apart(tmp_path):
    for name in ("a", "b.c"):
        write_image(tmp_path / "all" / f"{name}_rgb.png")
        write_label(tmp_path / "all" / f"{name}_mask.png", own_data.label_map(0))
    keys = {"name": "street", "images": "all", "labels": "all", "classes": CLASSES}
    path = write_yaml(tmp_path, **keys, image_suffix="_rgb.png", label_suffix="_mask.png",
                      splits={"train": 1})
    register_own_data(path)
    assert [r["image_id"] for r in DatasetCatalog.get("street_train")] == ["a", "b.c"]


@pytest.mark.parametrize("form", ["txt", "json", "names", "objects", "known"])
def test_classes_from_a_list_or_a_file(tmp_path, form):
    entries = [{"name": name, "color": [i, 2, 3], "isthing": i > 1} for i, name in
               enumerate(CLASSES)]
    classes = {"txt": "c.txt", "json": "c.json", "names": CLASSES, "objects": entries,
               "known": "cityscapes_19"}[form]
    (tmp_path / "c.txt").write_text("\n".join(CLASSES) + "\n\n")
    own_data.write_json(tmp_path / "c.json", {"classes": [e | {"id": 1} for e in entries]})
    path, _ = own_data.semantic(tmp_path, classes=classes)
    register_own_data(path)
    metadata = MetadataCatalog.get("street_train")
    if form == "known":
        assert metadata.stuff_classes[:3] == ["road", "sidewalk", "building"]
        return
    assert metadata.stuff_classes == CLASSES
    if form in ("json", "objects"):
        assert metadata.stuff_colors[4] == [4, 2, 3]
        assert metadata.thing_classes == ["car", "bus", "tree"]
        assert metadata.thing_dataset_id_to_contiguous_id == {2: 2, 3: 3, 4: 4}


def test_flip_pairs_are_class_ids(tmp_path):
    path, _ = own_data.semantic(tmp_path, flip_pairs=[["car", "bus"]])
    register_own_data(path)
    assert MetadataCatalog.get("street_train").flip_pairs == ((2, 3),)


# Json


def test_an_instance_json_has_the_classes_of_its_categories(tmp_path):
    path, content = own_data.instances(tmp_path)
    register_own_data(path)
    metadata = MetadataCatalog.get("cars_train")
    assert metadata.thing_classes == ["car", "bus"]
    assert metadata.thing_dataset_id_to_contiguous_id == {7: 0, 9: 1}
    assert (metadata.evaluator_type, metadata.get("json_file")) == ("coco", None)
    records = DatasetCatalog.get("cars_train")
    assert len(records) == 8
    for record in records:
        odd = (record["image_id"] - 1) % 2
        assert [note["category_id"] for note in record["annotations"]] == [0, 1][: 1 + odd]
        assert (record["height"], record["width"]) == own_data.SIZE


def test_a_json_for_each_split_is_named_to_the_evaluator(tmp_path):
    own_data.instances(tmp_path)
    shutil.copy(tmp_path / "instances.json", tmp_path / "val.json")
    splits = {"train": {"labels": "instances.json"}, "val": {"labels": "val.json"}}
    register_own_data(write_yaml(tmp_path, name="cars", images="images", splits=splits))
    assert MetadataCatalog.get("cars_val").json_file == str(tmp_path / "val.json")
    assert len(DatasetCatalog.get("cars_val")) == 10


def test_classes_of_a_yaml_order_those_of_the_json(tmp_path):
    path, _ = own_data.instances(tmp_path, classes=["bus", "car"])
    register_own_data(path)
    assert MetadataCatalog.get("cars_train").thing_dataset_id_to_contiguous_id == {9: 0, 7: 1}
    with pytest.raises(ValueError, match="classes lacks 'car', a category of"):
        register_own_data(own_data.instances(tmp_path, classes=["bus"])[0])
    with pytest.raises(KeyError, match="'van' is not known; the nearest names are car, bus"):
        register_own_data(own_data.instances(tmp_path, classes=["bus", "car", "van"])[0])


def test_a_panoptic_json_with_its_png_files(tmp_path):
    path, _ = own_data.panoptic(tmp_path)
    register_own_data(path)
    metadata = MetadataCatalog.get("scenes_val")
    assert metadata.stuff_classes == ["sky", "car", "bus"]
    assert metadata.thing_classes == ["car", "bus"]
    assert metadata.stuff_dataset_id_to_contiguous_id == {3: 0, 7: 1, 9: 2}
    assert metadata.thing_dataset_id_to_contiguous_id == {7: 1, 9: 2}
    assert metadata.stuff_colors[0] == [70, 130, 180]
    assert (metadata.evaluator_type, metadata.label_divisor) == ("coco_panoptic_seg", 1000)
    (record, _) = DatasetCatalog.get("scenes_val")
    number = record["image_id"] - 1
    assert record["pan_seg_file_name"] == str(tmp_path / "panoptic" / f"{NAMES[number]}.png")
    assert [
        (s["id"], s["category_id"], s["isthing"], s["iscrowd"]) for s in record["segments_info"]
    ] == [(70000 + number, 0, False, 0), (300 + number, 1, True, 0), (5, 2, True, 1)]


def test_a_json_of_other_png_files_is_refused(tmp_path):
    path, content = own_data.panoptic(tmp_path, splits={"train": 1.0})
    register_own_data(path)
    for annotation in content["annotations"]:
        annotation["segments_info"][0]["id"] += 1
    own_data.write_json(tmp_path / "panoptic.json", content)
    message = r"panoptic\.json does not belong to .*panoptic: .*only in the json, such as id 70001"
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("scenes_train")
    shutil.rmtree(tmp_path / "panoptic")
    message = r"panoptic\.json names .*panoptic/000\.png, which does not exist; name the folders"
    with pytest.raises(FileNotFoundError, match=message):
        DatasetCatalog.get("scenes_train")


# What comes after: samples and ground truth


def sample_of(name, mapper):
    cfg = get_config("toy/semantic/base", ["DATASETS.TRAIN", [name], "INPUT.RANDOM_FLIP", "none",
                                           "INPUT.DATASET_MAPPER_NAME", mapper])
    cfg.INPUT.MIN_SIZE_TRAIN = (own_data.SIZE[0],)
    return build_mapper(cfg, is_train=True)(DatasetCatalog.get(name)[1])["instances"]


def test_a_mapper_gives_the_classes_and_masks_of_label_images(tmp_path):
    path, maps = own_data.semantic(tmp_path, 1, splits={"train": 1.0})
    register_own_data(path)
    objects = sample_of("street_train", "mask_former_semantic")
    assert objects.gt_classes.tolist() == np.unique(maps["001"]).tolist()
    for class_id, mask in zip(objects.gt_classes, objects.gt_masks.tensor, strict=True):
        np.testing.assert_array_equal(mask, maps["001"] == class_id.item())


def test_a_mapper_gives_the_instances_of_a_json_and_its_part_is_the_truth(tmp_path):
    path, _ = own_data.instances(tmp_path)
    register_own_data(path)
    record = DatasetCatalog.get("cars_train")[1]
    objects = sample_of("cars_train", "mask_former_instance")
    assert objects.gt_classes.tolist() == [note["category_id"] for note in record["annotations"]]
    assert objects.gt_masks.tensor.flatten(1).sum(1).tolist() == [80] * len(objects)
    truth = load_instances("cars_val")
    ids = {record["image_id"] for record in DatasetCatalog.get("cars_val")}
    assert {image["id"] for image in truth.content["images"]} == ids
    assert len(ids) == 2


def test_a_mapper_gives_the_segments_of_a_panoptic_json_and_its_part_is_the_truth(tmp_path):
    path, _ = own_data.panoptic(tmp_path)
    register_own_data(path)
    objects = sample_of("scenes_train", "mask_former_panoptic")
    assert objects.gt_classes.tolist() == [0, 1]  # sky and car; the bus is a crowd
    assert objects.gt_masks.tensor.flatten(1).sum(1).tolist() == [320, 120]
    truth = PanopticGroundTruth("scenes_val")
    assert (truth.names, truth.is_thing.tolist()) == (["sky", "car", "bus"], [False, True, True])
    assert set(truth.images) == {r["image_id"] for r in DatasetCatalog.get("scenes_val")}


# Wrong data


def test_images_and_labels_that_do_not_pair(tmp_path):
    path, _ = own_data.semantic(tmp_path, splits={"train": 1.0})
    register_own_data(path)
    (tmp_path / "labels/002.png").unlink()
    (tmp_path / "labels/003.png").rename(tmp_path / "labels/x.png")
    message = r"2 times image without label, such as .*002\.jpg; 1 times label without image, .*x\."
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("street_train")


def test_an_empty_split_and_missing_folders(tmp_path):
    path, _ = own_data.semantic(tmp_path, splits={"train": "a", "val": 'b'})
    register_own_data(path)
    with pytest.raises(FileNotFoundError, match=r"folder .*images/a does not exist; .*relative to"):
        DatasetCatalog.get("street_train")
    for folder in ("images/b", "labels/b"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match=r"split 'val' is empty: .*images/b has no image"):
        DatasetCatalog.get("street_val")
    (tmp_path / "none.txt").write_text("\n")
    register_own_data(own_data.semantic(tmp_path, splits={"val": "none.txt"})[0])
    with pytest.raises(ValueError, match=r"split 'val' is empty: list at least one image in .*e\."):
        DatasetCatalog.get("street_val")


@pytest.mark.parametrize("make", [own_data.semantic, own_data.instances, own_data.panoptic])
def test_a_part_without_images_is_an_error_that_says_how_to_fix_it(tmp_path, make):
    path, _ = make(tmp_path, splits={"train": 0.95, "val": 0.05}, name="few")
    register_own_data(path)
    message = (rf"my\.yaml: no image of {tmp_path}/images falls into the part 'val' \(0\.05 of 10 "
               r"images\): make the part larger, or list its names in a file$")
    with pytest.raises(ValueError, match=message):
        DatasetCatalog.get("few_val")
    assert len(DatasetCatalog.get("few_train")) == 10


def test_two_images_of_one_name(tmp_path):
    path, _ = own_data.semantic(tmp_path)
    write_image(tmp_path / "images/000.png")
    register_own_data(path)
    with pytest.raises(ValueError, match=r"000\.\w+ and .*000\.\w+ have the same name"):
        DatasetCatalog.get("street_train")


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"imges": "x"}, KeyError, "'imges' is not known; the nearest names are images"),
        ({"name": None}, ValueError, "name is missing; it must be a word"),
        ({"name": "a b"}, ValueError, "name must be letters, digits.* got 'a b'"),
        ({"images": 3}, ValueError, "images must be a folder, got 3"),
        ({"labels": ["x"]}, ValueError, "labels must be a folder of label images, a COCO"),
        ({"classes": 5}, ValueError, "classes must be a list of names or of .* got 5"),
        ({"classes": []}, ValueError, "classes is empty"),
        ({"classes": ["a", "a"]}, ValueError, "has 'a' twice"),
        ({"classes": ["a", True]}, ValueError, r"classes\[1\] must be a name, got True; put it in"),
        ({"classes": [{"name": "a", "colour": 1}]}, KeyError, "'colour' .* color"),
        ({"classes": [{"name": "a", "color": [1, 2]}]}, ValueError, r"color must be \[red, green"),
        ({"classes": [{"name": "a", "color": [1, 2, 3]}, "b"]}, ValueError, "must all have a colo"),
        ({"classes": "ade20k_15"}, KeyError, "'ade20k_15' .* ade20k_150"),
        ({"classes": "gone.txt"}, FileNotFoundError, r"gone\.txt, which does not exist"),
        ({"label_offset": -1}, ValueError, "label_offset must be 0 or more, .* got -1"),
        ({"label_offset": True}, ValueError, "label_offset must be a whole number"),
        ({"label_offset": 1.0}, ValueError, "label_offset must be a whole number, .* got 1.0"),
        ({"ignore": "void"}, ValueError, "ignore must be a value, a list"),
        ({"ignore": [4]}, ValueError, "ignore has 4, which is the class 'tree'"),
        ({"background": "ignore"}, ValueError, "with label_offset 0 that is the class 'road'"),
        ({"background": "grund", "label_offset": 1}, KeyError, "background.*'grund' is not known"),
        ({"background": "car", "label_offset": 1, "ignore": 0}, ValueError, "ignore has 0, which"),
        ({"flip_pairs": [["car"]]}, ValueError, r"flip_pairs must be a list of \[left class"),
        ({"splits": None}, ValueError, "splits is missing; it must be {train: train, val: val}"),
        ({"splits": {"train": 0.9, "val": 0.2}}, ValueError, "above 0, and their sum at most 1"),
        ({"splits": {"train": 0.9, "val": "val"}}, ValueError, "splits must be of one form"),
        ({"splits": {"train": ["a"]}}, ValueError, "splits: train must be as in"),
        ({"splits": {"train": {"image": "a"}}}, KeyError, "'image' .* images"),
        ({"splits": {"train": "a", "val": {"labels": "x.json"}}}, ValueError, "of one kind in all"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_right(tmp_path, keys, error, message):
    path, _ = own_data.semantic(tmp_path, names=[], **keys)
    with pytest.raises(error, match=re.escape("my.yaml")) as caught:
        read_own_data(path)
    assert re.search(message, str(caught.value)), caught.value


def test_keys_of_label_images_do_not_go_with_a_json(tmp_path):
    path, _ = own_data.instances(tmp_path, label_offset=1)
    with pytest.raises(ValueError, match="label_offset is for folders of label images, but labels"):
        read_own_data(path)


def test_two_images_of_one_name_in_a_json_cannot_be_split(tmp_path):
    path, content = own_data.instances(tmp_path)
    content["images"][1]["file_name"] = "000.png"
    own_data.write_json(tmp_path / "instances.json", content)
    register_own_data(path)
    with pytest.raises(ValueError, match=r"instances\.json has two images '000', so splits"):
        DatasetCatalog.get("cars_train")


def test_a_json_of_the_other_kind_is_named(tmp_path):
    own_data.panoptic(tmp_path)
    path = write_yaml(tmp_path, name="x", images="images", labels="panoptic.json",
                      splits={"train": {}})
    register_own_data(path)
    with pytest.raises(ValueError, match=r"not a COCO instance json, but .*labels: \{json: "):
        DatasetCatalog.get("x_train")
    own_data.write_json(tmp_path / "panoptic.json", {"annotations": []})
    with pytest.raises(ValueError, match=r"panoptic\.json is not a COCO json .* no categories"):
        read_own_data(path)
    (tmp_path / "panoptic.json").write_text("{")
    with pytest.raises(ValueError, match=r"panoptic\.json is not valid json"):
        read_own_data(path)


# Registration


def test_registering_again_is_no_error_and_follows_the_file(tmp_path):
    path, _ = own_data.semantic(tmp_path)
    register_own_data(path)
    loader = DatasetCatalog["street_train"]
    assert register_own_data(path) == ["street_train", "street_val"]
    assert DatasetCatalog["street_train"] is loader
    own_data.semantic(tmp_path, classes=[*CLASSES, "boat"], splits={"train": 1.0})
    assert register_own_data(path) == ["street_train"]
    assert MetadataCatalog.get("street_train").stuff_classes[-1] == "boat"
    assert "street_val" not in DatasetCatalog


def test_a_name_that_is_taken_is_an_error(tmp_path):
    path, _ = own_data.semantic(tmp_path)
    other, _ = own_data.semantic(tmp_path / "other")
    register_own_data(path)
    with pytest.raises(ValueError, match=r"other/my\.yaml: .*my\.yaml already has the name"):
        register_own_data(other)
    DatasetCatalog.register("mine_train", list)
    path, _ = own_data.semantic(tmp_path, name="mine")
    with pytest.raises(ValueError, match="'mine_train' is already registered, by code"):
        register_own_data(path)
