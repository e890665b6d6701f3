"""What is registered, under which names, with which metadata; on both engines the same."""

import copy
import itertools
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import raw_datasets as raw
from support.paths import ROOT as REPOSITORY

from rankseg_d2.data.classes import load_classes
from rankseg_d2.data.datasets import COMMANDS, register_all
from rankseg_d2.data.datasets.common import register_dataset

# name: (evaluator_type, number of classes, of things, ignore_label)
FACTS = {
    "ade20k_sem_seg": ("sem_seg", 150, None, 255),
    "ade20k_panoptic": ("ade20k_panoptic_seg", 150, 100, 255),
    "ade20k_instance": ("coco", None, 100, None),
    "ade20k_full_sem_seg": ("sem_seg", 847, None, 65535),
    "coco_2017": ("coco", None, 80, None),
    "coco_2017_*_panoptic": ("coco_panoptic_seg", 133, 80, 255),
    "coco_2017_*_panoptic_with_sem_seg": ("coco_panoptic_seg", 133, 80, 255),
    "coco_2017_*_entity": ("entity_seg", 1, 1, 255),
    "coco_2017_*_stuff_164k_sem_seg": ("sem_seg", 171, None, 255),
    "coco_lvis_sem_seg": ("sem_seg", 1284, None, 65535),
    "pascal_context_59_sem_seg": ("sem_seg", 59, None, 255),
    "pascal_context_60_sem_seg": ("sem_seg", 60, None, 255),
    "cityscapes_fine_sem_seg": ("cityscapes_sem_seg", 19, 8, 255),
    "lip_sem_seg": ("sem_seg", 20, None, 255),
    "cihp_sem_seg": ("sem_seg", 20, None, 255),
    "cihp_parsing": ("human_parsing", 21, 1, 255),
    "mhpv1_sem_seg": ("sem_seg", 19, None, 255),
    "mhpv2_sem_seg": ("sem_seg", 59, None, 255),
    "mhpv2_parsing": ("human_parsing", 60, 1, 255),
    "cityscapes_fine_panoptic": ("cityscapes_panoptic_seg", 19, 8, 255),
}


def names():
    for pattern, facts in FACTS.items():
        pattern = pattern if "*" in pattern else f"{pattern}_*"
        yield from ((pattern.replace("*", split), facts) for split in ("train", "val"))
    for split in ("train", "test"):
        yield f"coco_2017_{split}_stuff_10k_sem_seg", ("sem_seg", 171, None, 255)
    for split in ("train", "val", "test"):
        yield f"camvid_sem_seg_{split}", ("sem_seg", 11, None, 255)
        yield f"atr_sem_seg_{split}", ("sem_seg", 18, None, 255)
        yield f"mhpv1_parsing_{split}", ("human_parsing", 20, 1, 255)
    for kind in ("lip_sem_seg", "cihp_sem_seg", "cihp_parsing", "mhpv2_sem_seg", "mhpv2_parsing"):
        yield f"{kind}_test", FACTS[kind]
    for split in ("train", "val", "test"):
        yield f"vspw_{split}", ("vspw_sem_seg", 124, None, 255)
        for year in (2019, 2021):
            yield f"ytvis_{year}_{split}", ("ytvis", None, 40, None)
    for year, part in itertools.product((2019, 2021), ("held_in", "held_out")):
        yield f"ytvis_{year}_train_{part}", ("ytvis", None, 40, None)


@pytest.mark.parametrize(("name", "facts"), names())
def test_metadata(root, name, facts):
    metadata = MetadataCatalog.get(name)
    evaluator_type, num_classes, num_things, ignore_label = facts
    assert metadata.evaluator_type == evaluator_type
    assert metadata.get("ignore_label") == ignore_label
    for kind, number in (("stuff", num_classes), ("thing", num_things)):
        if number is None:
            assert metadata.get(f"{kind}_classes") is None
            continue
        classes = metadata.get(f"{kind}_classes")
        ids = metadata.get(f"{kind}_dataset_id_to_contiguous_id")
        assert len(classes) == len(ids) == number
        assert all(c == c.strip() and c for c in classes)
        if kind == "stuff":
            assert list(ids.values()) == list(range(number))
        colors = metadata.get(f"{kind}_colors")
        assert (colors is None) == ("ade20k_full" in name)
        assert colors is None or len(colors) == number
    if evaluator_type.endswith("panoptic_seg"):
        assert metadata.label_divisor == 1000
        assert metadata.panoptic_json == f"{metadata.panoptic_root}.json" or "coco" in name
    roots = ("image_root", "sem_seg_root", "panoptic_root", "panoptic_json", "json_file")
    for path in filter(None, map(metadata.get, roots)):
        assert isinstance(path, str) and Path(path).is_relative_to(root)


def test_panoptic_things_keep_the_ids_of_all_classes():
    for name, class_list in (
        ("ade20k_panoptic_val", "ade20k_panoptic_150"),
        ("coco_2017_val_panoptic", "coco_panoptic_133"),
    ):
        metadata, entries = MetadataCatalog.get(name), load_classes(class_list)
        things = {x["id"]: x["train_id"] for x in entries if x["isthing"]}
        assert metadata.thing_dataset_id_to_contiguous_id == things
        assert metadata.thing_classes == [metadata.stuff_classes[i] for i in things.values()]


def test_a_name_that_somebody_else_has_registered_stays_theirs(root):
    name = "coco_lvis_sem_seg_val"
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: ["mine"])
    try:
        register_all(root / "other")
        assert DatasetCatalog.get(name) == ["mine"]
        assert DatasetCatalog["coco_lvis_sem_seg_train"].args[0] == root / "other"
    finally:
        DatasetCatalog.remove(name)


def test_paths_in_metadata_are_strings():
    name = "rankseg_d2_test_paths"
    register_dataset(name, list, image_root=Path("a/b"), evaluator_type="sem_seg")
    try:
        assert MetadataCatalog.get("rankseg_d2_test_paths").image_root == os.path.join("a", "b")
    finally:
        DatasetCatalog.remove("rankseg_d2_test_paths")
        MetadataCatalog.remove("rankseg_d2_test_paths")


@pytest.mark.slow
def test_the_environment_variable_names_the_folder(tmp_path):
    raw.make_coco_stuff_164k(tmp_path)
    code = (
        "import rankseg_d2.data\n"
        "from detectron2.data import DatasetCatalog\n"
        "assert len(DatasetCatalog.get('coco_2017_val_stuff_164k_sem_seg')) == 2\n"
    )
    script = REPOSITORY / "datasets" / "prepare.py"
    for command in ([str(script), "coco-stuff-164k", "--workers", "1"], ["-c", code]):
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"DETECTRON2_DATASETS": str(tmp_path), "PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_each_command_has_a_line_in_the_readme_and_each_script_a_command():
    readme = (REPOSITORY / "datasets" / "README.md").read_text()
    for name in COMMANDS:
        assert f"| `{name}` |" in readme
    scripts = re.findall(r"^\| `\w[\w.]+\.py`.* \| `(.+)` \|$", readme, re.MULTILINE)
    assert len(scripts) == 7
    assert set(scripts) <= set(COMMANDS)


def test_importing_reads_no_file():
    """Neither a list of classes, nor anything below the folder of the data sets."""
    code = """
import os, sys
import rankseg_d2
opened = []
def note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and arguments[0] is not None:
        opened.append(str(arguments[0]))
stat = os.stat
os.stat = lambda path, *a, **k: opened.append(str(path)) or stat(path, *a, **k)
sys.addaudithook(note)
import rankseg_d2.data
found = [path for path in opened if path.endswith(".json") or "all_my_data" in path]
assert not found, found
from detectron2.data import MetadataCatalog
assert len(MetadataCatalog.get("ade20k_sem_seg_train").stuff_classes) == 150
assert [path for path in opened if path.endswith("ade20k_150.json")]
"""
    environment = os.environ | {"DETECTRON2_DATASETS": "/all_my_data"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()


def test_metadata_that_are_read_later_behave_as_others_do(root):
    def fresh(name="ade20k_sem_seg_train"):
        register_all(root)
        return MetadataCatalog.get(name)

    names = [entry["name"].strip() for entry in load_classes("ade20k_150")]
    assert fresh().as_dict()["stuff_classes"] == names
    assert fresh().get("stuff_classes") == names and fresh().get("nothing", 5) == 5
    assert pickle.loads(pickle.dumps(fresh())).stuff_classes == names
    assert copy.copy(fresh()).stuff_classes == copy.deepcopy(fresh()).stuff_classes == names
    with pytest.raises(AssertionError):
        fresh().stuff_classes = ["another"]
    with pytest.raises(AttributeError, match="nothing"):
        fresh().nothing  # noqa: B018
    metadata = fresh()
    del metadata.stuff_classes
    metadata.set(stuff_classes=["another"])
    assert metadata.stuff_classes == ["another"] and "_read" not in metadata.as_dict()
