"""Keys of the model follow the data sets that a config names; DATASETS.FILES: test_data_custom."""

import pytest
from detectron2.data import MetadataCatalog

from rankseg_d2.config import get_config
from rankseg_d2.data.own import config_defaults as follow

CLASSES, VOID = "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"
BASE = "_BASE_: ade20k/semantic/r50\n"


def head(cfg):
    return cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "config.yaml").write_text(text)
        return tmp_path / "config.yaml"

    return write


@pytest.mark.parametrize(
    "dataset, expected",
    [
        ("shapes_panoptic_train", (100, 255)),
        ("shapes300_panoptic_train", (300, 65535)),
        ("ade20k_full_sem_seg_train", (847, 65535)),
        ("coco_lvis_sem_seg_train", (1284, 65535)),
        ("cityscapes_fine_sem_seg_train", (19, 255)),
        ("registered_by_nobody", (150, 255)),
    ],
)
def test_what_a_base_says_of_another_data_set_does_not_count(dataset, expected, write):
    named = f"DATASETS: {{TRAIN: [{dataset}]}}"
    assert head(get_config(write(BASE + named))) == expected
    assert head(get_config("ade20k/semantic/r50", ["DATASETS.TRAIN", [dataset]])) == expected
    assert "registered_by_nobody" not in MetadataCatalog.list()


def test_what_is_set_beside_the_name_or_later_stays(write):
    beside = "MODEL: {SEM_SEG_HEAD: {NUM_CLASSES: 7}}\nDATASETS: {TRAIN: [coco_lvis_sem_seg_train]}"
    assert head(get_config(write(BASE + beside))) == (7, 65535)
    later = get_config(write(BASE + "DATASETS: {TRAIN: [pascal_context_59_sem_seg_train]}"),
                       [CLASSES, 8])
    assert head(later) == (8, 255)
    with pytest.raises(ValueError, match="IGNORE_VALUE is 255, but coco_lvis.* uses 65535"):
        get_config(write(BASE + beside), [VOID, 255])


def test_things_are_counted_where_only_they_are_predicted():
    only_things = ["MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False,
                   "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False]
    named = ["DATASETS.TRAIN", ["ade20k_panoptic_train"]]
    assert head(get_config("coco/panoptic/r50", named))[0] == 150
    assert head(get_config("coco/panoptic/r50", [*named, *only_things]))[0] == 100
    named = ["DATASETS.TRAIN", ["ade20k_instance_train"]]
    assert head(get_config("coco/panoptic/r50", [*named, *only_things]))[0] == 100


def test_more_ranks_than_classes_are_an_error_with_the_fix():
    message = r"TOPK must be in \[1, 20\], .* shapes20_panoptic_train; got 75"
    with pytest.raises(ValueError, match=message):
        get_config("shapes/panoptic/r10t_rankseg", ["DATASETS.TRAIN", ["shapes20_panoptic_train"]])


def test_the_last_source_counts():
    sources = [("a", {"X", "A"}), ("b", {"B"}), ("c", {"X", "C"}), ("opts", {"D"})]
    assert follow._since(sources, "X") == ("c", {"X", "C", "D"})
    assert follow._since(sources, "B") == ("b", {"B", "X", "C", "D"})
