"""Configs follow the data sets that their yaml files describe."""

import os
import pickle
import subprocess
import sys

import pytest
from detectron2.data import DatasetCatalog
from support import own_data
from support.paths import ROOT

from rankseg_d2.config import get_config
from rankseg_d2.data.mappers import build_mapper
from rankseg_d2.data.own import config_defaults
from rankseg_d2.engine import check_datasets, check_num_classes

MODEL = "MODEL: {META_ARCHITECTURE: MaskFormer, DEVICE: cpu}\n"


pytestmark = pytest.mark.usefixtures("clean_catalogs")

@pytest.fixture
def config(tmp_path):
    def config(text, opts=()):
        path = tmp_path / "run" / "config.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(MODEL + text)
        return get_config(path, opts)

    return config


def test_a_config_follows_its_data(tmp_path, config):
    own_data.semantic(tmp_path)
    cfg = config("DATASETS: {FILES: [../my.yaml]}")
    assert list(cfg.DATASETS.FILES) == [str(tmp_path / "my.yaml")]
    assert cfg.DATASETS.TRAIN == ("street_train",)
    assert cfg.DATASETS.TEST == ("street_val",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5
    check_datasets(cfg)
    check_num_classes(cfg)
    assert len(DatasetCatalog.get(cfg.DATASETS.TRAIN[0])) == 8


def test_keys_set_beside_files_or_later_stay_and_those_of_a_base_follow(tmp_path, config):
    own_data.semantic(tmp_path)
    (tmp_path / "base.yaml").write_text(
        "MODEL: {SEM_SEG_HEAD: {NUM_CLASSES: 150}}\nDATASETS: {TRAIN: [a], TEST: [b]}\n"
    )
    base, files = "_BASE_: ../base.yaml\n", "DATASETS: {FILES: [../my.yaml]}"
    assert config(base + files).MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5
    assert config(base + files).DATASETS.TEST == ("street_val",)
    cfg = config(base, ["DATASETS.FILES", [str(tmp_path / "my.yaml")]])
    assert (cfg.DATASETS.TRAIN, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) == (("street_train",), 5)
    cfg = config("DATASETS: {FILES: [../my.yaml], TRAIN: [x]}",
                 ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 9])
    assert cfg.DATASETS.TRAIN == ("x",)
    assert cfg.DATASETS.TEST == ("street_val",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 9
    with pytest.raises(ValueError, match="NUM_CLASSES is 9, but the data set street_val"):
        check_num_classes(cfg)


def test_void_and_things_follow_too(tmp_path, config):
    own_data.semantic(tmp_path, classes=[f"c{i}" for i in range(300)])
    cfg = config("DATASETS: {FILES: [../my.yaml]}")
    assert cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 65535
    with pytest.raises(ValueError, match="IGNORE_VALUE is 255, but street_train uses"):
        config("DATASETS: {FILES: [../my.yaml]}", ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 255])
    own_data.panoptic(tmp_path / "run")
    cfg = config("DATASETS: {FILES: [my.yaml]}")
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    only_instances = ["MODEL.MASK_FORMER.TEST.INSTANCE_ON", True,
                      "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False]
    cfg = config("DATASETS: {FILES: [my.yaml]}", only_instances)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2


def test_several_files_train_together(tmp_path, config):
    own_data.semantic(tmp_path / "a", name="a")
    own_data.semantic(tmp_path / "b", name="b", splits={"train": 1.0})
    cfg = config("DATASETS: {FILES: [../a/my.yaml, ../b/my.yaml]}")
    assert cfg.DATASETS.TRAIN == ("a_train", "b_train")
    assert cfg.DATASETS.TEST == ("a_val",)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"classes": own_data.CLASSES[::-1]}, "stuff_classes"),
        ({"ignore": [77]}, "label_table"),
        ({"flip_pairs": [own_data.CLASSES[:2]]}, "flip_pairs"),
    ],
)
def test_files_with_labels_of_other_meanings_are_not_mixed(tmp_path, config, keys, what):
    own_data.semantic(tmp_path / "a", name="a")
    own_data.semantic(tmp_path / "b", name="b", **keys)
    cfg = config("DATASETS: {FILES: [../a/my.yaml, ../b/my.yaml]}")
    message = f"a_train and b_train cannot be used together: their metadata differ in {what}"
    with pytest.raises(ValueError, match=message):
        build_mapper(cfg, is_train=True)
    build_mapper(cfg, is_train=False, dataset_name="b_val")


def test_splits_of_other_names_are_an_error_unless_the_keys_name_them(tmp_path, config):
    own_data.semantic(tmp_path, splits={"training": 0.8, "validation": 0.2})
    message = r"only street_training, street_validation; rename the splits, or set both keys"
    with pytest.raises(ValueError, match=message):
        config("DATASETS: {FILES: [../my.yaml]}")
    cfg = config("DATASETS: {FILES: [../my.yaml], TRAIN: [street_training]}")
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5


def test_more_ranks_than_classes_are_an_error_with_the_fix(tmp_path, config):
    own_data.semantic(tmp_path)
    ranked = "DATASETS: {FILES: [../my.yaml]}"
    opts = ["MODEL.RANKSEG.FLAG", True, "MODEL.RANKSEG.TOPK"]
    message = r"TOPK must be in \[1, 5\], .*street_train; got 6.* stats"
    with pytest.raises(ValueError, match=message):
        config(ranked, [*opts, 6])
    assert config(ranked, [*opts, 5]).MODEL.RANKSEG.TOPK == 5


@pytest.mark.parametrize("ranking", ["", "_gt"])
def test_the_ranks_of_a_base_are_at_most_the_classes(tmp_path, config, caplog, ranking):
    own_data.semantic(tmp_path)
    config_defaults._warn_of_topk.cache_clear()
    base = f"_BASE_: own/semantic/lite0_small_rankseg{ranking}\nDATASETS: {{FILES: [../my.yaml]}}"
    for _ in range(2):
        assert config(base).MODEL.RANKSEG.TOPK == 5
    said = [record.getMessage() for record in caplog.records if "TOPK" in record.getMessage()]
    assert len(said) == 1
    assert "MODEL.RANKSEG.TOPK is 5, all classes of street_train, and not 50 as in" in said[0]
    assert config(base, ["MODEL.RANKSEG.TOPK", 3]).MODEL.RANKSEG.TOPK == 3
    with pytest.raises(ValueError, match=r"TOPK must be in \[1, 5\], .*street_train; got 7"):
        config(base, ["MODEL.RANKSEG.TOPK", 7])


def test_a_missing_data_file_is_named(tmp_path, config):
    with pytest.raises(FileNotFoundError, match=r"config\.yaml: DATASETS\.FILES names gone\.yaml, "
                                                r".*neither .*run/gone\.yaml nor"):
        config("DATASETS: {FILES: [gone.yaml]}")
    with pytest.raises(ValueError, match=r"DATASETS\.FILES must be"):
        config("DATASETS: {FILES: gone.yaml}")


@pytest.mark.slow
def test_a_new_process_registers_from_the_config_it_is_given(tmp_path, config):
    own_data.semantic(tmp_path)
    (tmp_path / "cfg.pkl").write_bytes(pickle.dumps(config("DATASETS: {FILES: [../my.yaml]}")))
    script = (
        "import rankseg_d2, pickle, sys\n"
        "from rankseg_d2.engine import check_datasets\n"
        "check_datasets(pickle.load(open('cfg.pkl', 'rb')))\n"
        "from detectron2.data import DatasetCatalog\n"
        "sys.exit(len(DatasetCatalog.get('street_train')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True
    )
    assert run.returncode == 8, run.stderr


def test_the_config_of_a_run_loads_where_its_data_are_not(tmp_path, config):
    own_data.semantic(tmp_path / "data", name="street")
    cfg = config("DATASETS: {FILES: [../data/my.yaml]}")
    saved = tmp_path / "config.yaml"  # as `setup` writes it
    saved.write_text(cfg.dump())
    (tmp_path / "data" / "my.yaml").unlink()
    there = get_config(saved, ["MODEL.WEIGHTS", "a.pth"])
    assert there.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5
    assert there.DATASETS == cfg.DATASETS
    with pytest.raises(FileNotFoundError, match=r"the data set file .*my\.yaml does not exist"):
        check_datasets(there)
