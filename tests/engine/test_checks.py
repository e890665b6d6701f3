"""The data sets must exist, and the number of classes of a model must be that of its data."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from support.small import CLASSES, make_config

from rankseg_d2.engine import check_datasets, check_num_classes, class_names


@pytest.fixture
def datasets():
    """Data sets by the lists that their metadata has."""
    lists = {
        "classes_sem": {"stuff_classes": list("abcde")},
        "classes_inst": {"thing_classes": list("xyz")},
        "classes_pan": {"stuff_classes": list("abcdexyz"), "thing_classes": list("xyz")},
        "classes_unknown": {},
    }
    for name, metadata in lists.items():
        DatasetCatalog.register(name, list)
        if metadata:
            MetadataCatalog.get(name).set(**metadata)
    yield lists
    for name, metadata in lists.items():
        DatasetCatalog.remove(name)
        if metadata:
            MetadataCatalog.remove(name)
    assert "classes_unknown" not in MetadataCatalog.list()


def test_an_unregistered_data_set_is_named_with_near_names():
    DatasetCatalog.register("config_test_train", list)
    try:
        cfg = get_cfg()
        cfg.DATASETS.TRAIN = ("config_test_train",)
        check_datasets(cfg)
        cfg.DATASETS.TEST = ("config_test_trian",)
        with pytest.raises(KeyError, match=r"DATASETS\.TEST: .*'config_test_trian'.*_train"):
            check_datasets(cfg)
    finally:
        DatasetCatalog.remove("config_test_train")


ONLY_INSTANCES = {
    "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": False,
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": True,
}


@pytest.mark.parametrize(
    "dataset, number, options",
    [
        ("sem", 5, {}),
        ("sem", 5, {"MODEL.META_ARCHITECTURE": "RankSegVideoMaskFormer"}),
        ("sem", 5, {"MODEL.META_ARCHITECTURE": "PixelClassifier"}),
        ("pan", 8, {"MODEL.MASK_FORMER.TEST.PANOPTIC_ON": True}),
        ("pan", 3, ONLY_INSTANCES),
        ("inst", 3, ONLY_INSTANCES),
    ],
)
def test_number_of_classes_must_be_the_data_sets(dataset, number, options, datasets):
    dataset = f"classes_{dataset}"
    for key in ("TRAIN", "TEST"):
        cfg = make_config(options, {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": number})
        cfg.DATASETS[key] = ("classes_unknown", dataset)
        check_num_classes(cfg)
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 150
        error = rf"NUM_CLASSES is 150, but .* {dataset} of DATASETS.{key} has {number} \w+_classes"
        with pytest.raises(ValueError, match=error):
            check_num_classes(cfg)
        cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"  # does not classify by that key
        check_num_classes(cfg)


def test_unknown_classes_are_not_checked(datasets):
    cfg = make_config({"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 77})
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("classes_unknown", "classes_inst")
    check_num_classes(cfg)
    assert class_names(cfg) is None


def test_class_names_are_the_training_datas(datasets):
    cfg = make_config()
    cfg.DATASETS.TRAIN = ("classes_unknown", "classes_pan")
    assert class_names(cfg) == list("abcdexyz")
    cfg = make_config(ONLY_INSTANCES)
    cfg.DATASETS.TRAIN = ("classes_pan",)
    assert class_names(cfg) == list("xyz")


def test_trainer_saves_the_names_and_refuses_another_number(datasets, tmp_path):
    from support.toy import ToyTrainer

    from rankseg_d2.engine import Trainer

    MetadataCatalog.get("toy_named").set(stuff_classes=["r", "g", "b"])
    DatasetCatalog.register("toy_named", DatasetCatalog.data["toy"])
    try:
        keys = {"OUTPUT_DIR": str(tmp_path), "MODEL.DEVICE": "cpu", "SOLVER.IMS_PER_BATCH": 2}
        cfg = make_config(keys, {"MODEL.META_ARCHITECTURE": "ToyModel"})
        cfg.DATASETS.TRAIN = ("toy_named",)
        ToyTrainer(cfg).checkpointer.save("a")
        assert torch.load(tmp_path / "a.pth", weights_only=True)["class_names"] == ["r", "g", "b"]
        cfg = make_config(keys)
        cfg.DATASETS.TRAIN = ("toy_named",)
        error = f"NUM_CLASSES is {CLASSES}, but the data set toy_named of"
        with pytest.raises(ValueError, match=error):
            Trainer(cfg)
    finally:
        DatasetCatalog.remove("toy_named")
        MetadataCatalog.remove("toy_named")
