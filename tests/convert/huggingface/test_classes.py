"""Classes of config.json: their names, and the data set and tasks that they are of."""

import pytest
from detectron2.data import MetadataCatalog
from support.huggingface import NAMES

import rankseg_d2.data.datasets  # noqa: F401  (registers the data sets)
from rankseg_d2.convert.huggingface.classes import class_names, find_data


def classes_of(dataset, key="stuff_classes"):
    return list(MetadataCatalog.get(dataset).get(key))


@pytest.mark.parametrize(
    ("names_of", "said", "dataset", "tasks"),
    [
        ("ade20k_sem_seg_train", "", "ade20k_sem_seg_train", ("semantic",)),
        ("ade20k_sem_seg_train", "x-ade-panoptic", "ade20k_panoptic_train",
         ("semantic", "panoptic", "instance")),
        ("coco_2017_train_panoptic", "", "coco_2017_train_panoptic",
         ("semantic", "panoptic", "instance")),
        ("cityscapes_fine_panoptic_train", "cityscapes-semantic", "cityscapes_fine_sem_seg_train",
         ("semantic",)),
        ("cityscapes_fine_panoptic_train", "cityscapes-panoptic", "cityscapes_fine_panoptic_train",
         ("semantic", "panoptic", "instance")),
        ("coco_2017_train", "coco-instance", "coco_2017_train", ("instance",)),
        ("coco_2017_train", "", "coco_2017_train", ("instance",)),
    ],
)  # fmt: skip
def test_classes_are_those_of_a_known_data_set(names_of, said, dataset, tasks):
    key = "thing_classes" if tasks == ("instance",) else "stuff_classes"
    names = [f"{name} " for name in classes_of(names_of, key)]
    for number in range(0, len(names), 3):
        names[number] = "another synonym"
    found = find_data(names, said, is_video=False)
    assert (found.dataset, found.tasks) == (dataset, tasks)


def test_classes_of_videos_are_those_of_a_data_set_of_videos():
    found = find_data(classes_of("ytvis_2019_train", "thing_classes"), "", is_video=True)
    assert (found.dataset, found.tasks) == ("ytvis_2019_train", ("instance",))


@pytest.mark.parametrize(
    ("said", "tasks"),
    [("", ("semantic",)), ("my-instance", ("instance",)),
     ("my-panoptic", ("semantic", "panoptic", "instance"))],
)  # fmt: skip
def test_unknown_classes_are_predicted_as_the_name_says(said, tasks):
    assert find_data(NAMES, said, is_video=False).tasks == tasks


def test_class_names_are_in_the_order_of_their_numbers():
    labels = {"10": "k", "2": "c", **{str(i): f"{i} " for i in range(10) if i != 2}}
    assert class_names({"id2label": labels})[:3] == ["0", "1", "c"]
    assert class_names({"num_labels": 3}) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with pytest.raises(ValueError, match="id2label must name the classes 0 to 1"):
        class_names({"id2label": {"0": "a", "2": "b"}})
