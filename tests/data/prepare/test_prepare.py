"""Preparations that are killed, repeated, out of date, or run by several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image
from support import raw_datasets as raw

from rankseg_d2 import files
from rankseg_d2.cli import main
from rankseg_d2.data.datasets import COMMANDS, ade20k, cityscapes, coco_lvis, register_all
from rankseg_d2.data.prepare import ade20k as ade20k_convert
from rankseg_d2.data.prepare import job as prepare

ADE = "ADEChallengeData2016"


def run(name, root, workers=1, splits=("train",), **options):
    for split in splits:
        COMMANDS[name].prepare(root, split, workers, **options)


def content_of(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def make_newer(path):
    later = time.time() + 10
    os.utime(path, (later, later))


def count_images(monkeypatch, module, fail_at=None):
    """The names of the images that `module` writes from now on; the `fail_at`th fails."""
    written = []

    def write_image(path, values):
        if len(written) + 1 == fail_at:
            raise OSError("no space left on device")
        written.append(path.name)
        files.write_image(path, values)

    monkeypatch.setattr(module, "write_image", write_image)
    return written


@pytest.mark.parametrize("name", ["ade20k", "ade20k-panoptic"])
def test_goes_on_where_it_stopped(root, monkeypatch, name):
    raw.make_ade20k(root)
    data_set = {"ade20k": "ade20k_sem_seg_train", "ade20k-panoptic": "ade20k_panoptic_train"}[name]
    if name == "ade20k-panoptic":
        run("ade20k", root)
    with monkeypatch.context() as patch:
        first = count_images(patch, ade20k_convert, fail_at=3)
        with pytest.raises(OSError, match="no space left"):
            run(name, root)
    with pytest.raises(RuntimeError, match=f"was not finished; run `rankseg-d2 .* {name} --root"):
        DatasetCatalog.get(data_set)
    second = count_images(monkeypatch, ade20k_convert)
    run(name, root)
    assert first + second == [f"ADE_train_{i:08d}.png" for i in (1, 2, 3)]
    assert len(DatasetCatalog.get(data_set)) == 3
    run(name, root)
    assert len(second) == 1  # all is there: nothing is written


def test_a_json_is_the_same_after_a_restart(root, tmp_path, monkeypatch):
    raw.make_ade20k(root)
    raw.make_ade20k(tmp_path / "other")
    run("ade20k-panoptic", tmp_path / "other")
    with monkeypatch.context() as patch:
        count_images(patch, ade20k_convert, fail_at=6)  # the third of the panoptic ones
        with pytest.raises(OSError, match="no space left"):
            run("ade20k-panoptic", root)
    journal = root / ADE / ".ade20k_panoptic_train.json.journal"
    with open(journal, "a") as file:
        file.write('["ADE_train_0000')  # a line that a kill has cut off
    run("ade20k-panoptic", root)
    name = "ade20k_panoptic_train.json"
    assert (root / ADE / name).read_bytes() == (tmp_path / "other" / ADE / name).read_bytes()
    assert not journal.exists()


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_file_leaves_no_half_file(root):
    raw.make_ade20k(root)
    code = """
import os, signal, sys
from pathlib import Path
from rankseg_d2.data.datasets import COMMANDS
replace, done = os.replace, []
def replace_or_die(source, target):
    if target.suffix == ".png":
        done.append(target)
        if len(done) == 2:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replace_or_die
COMMANDS["ade20k"].prepare(Path(sys.argv[1]), "train", 1)
"""
    status = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True)
    assert status.returncode == -signal.SIGKILL, status.stderr
    folder = root / ADE / "annotations_detectron2/training"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 2 and ".tmp." in names[0] and names[1] == "ADE_train_00000001.png"
    with pytest.raises(RuntimeError, match="was not finished"):
        DatasetCatalog.get("ade20k_sem_seg_train")
    run("ade20k", root)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"ADE_train_{i:08d}.png" for i in (1, 2, 3)
    ]
    assert len(DatasetCatalog.get("ade20k_sem_seg_train")) == 3


def test_a_source_that_has_changed_is_noticed_and_only_its_file_is_made_anew(root, monkeypatch):
    raw.make_ade20k(root)
    run("ade20k", root)
    path = root / ADE / "annotations/training/ADE_train_00000002.png"
    Image.fromarray(np.full((raw.HEIGHT, raw.WIDTH), 7, np.uint8)).save(path)
    make_newer(path)
    with pytest.raises(RuntimeError, match=r"is older than its source .*3 files.*prepare ade20k"):
        DatasetCatalog.get("ade20k_sem_seg_train")
    written = count_images(monkeypatch, ade20k_convert)
    run("ade20k", root)
    assert written == ["ADE_train_00000002.png"]
    record = DatasetCatalog.get("ade20k_sem_seg_train")[1]
    assert np.unique(np.asarray(Image.open(record["sem_seg_file_name"]))).tolist() == [6]


def test_a_source_that_is_replaced_by_an_older_file_is_noticed_too(root):
    raw.make_ade20k(root)
    run("ade20k", root)
    for path in (root / ADE / "annotations/training").iterdir():
        Image.fromarray(np.full((raw.HEIGHT, raw.WIDTH), 7, np.uint8)).save(path)
        os.utime(path, (1000, 1000))
    with pytest.raises(RuntimeError, match="is older than its source"):
        DatasetCatalog.get("ade20k_sem_seg_train")
    run("ade20k", root)
    for record in DatasetCatalog.get("ade20k_sem_seg_train"):
        assert np.unique(np.asarray(Image.open(record["sem_seg_file_name"]))).tolist() == [6]


def test_another_kind_of_source_makes_all_files_anew(root):
    run_of = {}
    for source in ("matlab", "detail"):
        raw.make_pascal_context(root, source)
        for path in root.glob("VOCdevkit/VOC2010/trainval_merged.json"):
            os.utime(path, (1000, 1000))
        run("pascal-context", root)
        run_of[source] = content_of(root / "VOCdevkit/VOC2010/SegmentationClassContext")
    assert run_of["matlab"].keys() == run_of["detail"].keys()
    assert all(run_of["matlab"][name] != run_of["detail"][name] for name in run_of["matlab"])


def test_a_folder_may_have_brackets_in_its_name(root):
    place = root / "data [old]"
    raw.make_ade20k(place)
    run("ade20k-panoptic", place)
    register_all(place)
    assert len(DatasetCatalog.get("ade20k_panoptic_train")) == 3


def test_the_sources_may_be_deleted_afterwards(root):
    raw.make_ade20k(root)
    run("ade20k", root)
    for path in (root / ADE / "annotations/training").iterdir():
        path.unlink()
    assert len(DatasetCatalog.get("ade20k_sem_seg_train")) == 3


def test_a_new_rule_makes_all_files_anew_also_when_it_is_interrupted(root, monkeypatch):
    raw.make_coco_lvis(root)
    run("coco-lvis", root)
    before = content_of(root / "coco_lvis/train")
    for path in (root / "coco_lvis/train").iterdir():
        os.utime(path, (path.stat().st_mtime - 10,) * 2)  # not of the same moment as the next run
    with monkeypatch.context() as patch:
        count_images(patch, coco_lvis, fail_at=2)
        with pytest.raises(OSError, match="no space left"):
            run("coco-lvis", root, essnet_compat=True)
    written = count_images(monkeypatch, coco_lvis)
    run("coco-lvis", root, essnet_compat=True)
    assert written == ["000000000025.png"]
    after = content_of(root / "coco_lvis/train")
    assert before.keys() == after.keys() and all(before[name] != after[name] for name in before)


def test_files_by_an_older_rule_are_refused(root):
    raw.make_ade20k(root)
    run("ade20k", root)
    path = root / ADE / "prepared_semantic_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    with pytest.raises(RuntimeError, match="files of rule 0, but the current rule is 1"):
        DatasetCatalog.get("ade20k_sem_seg_train")


def test_what_other_tools_have_made_is_taken_and_kept(root, monkeypatch):
    made = raw.make_cityscapes(root)
    folder = root / "cityscapes/gtFine"
    name = sorted(made["train"])[0]
    theirs = folder / f"train/{name.split('_')[0]}/{name}_gtFine_labelTrainIds.png"
    Image.fromarray(np.full((raw.HEIGHT, raw.WIDTH), 3, np.uint8)).save(theirs)
    before = theirs.read_bytes()
    written = count_images(monkeypatch, cityscapes)
    run("cityscapes", root)
    assert theirs.read_bytes() == before and theirs.name not in written
    for record in root.glob("cityscapes/prepared_*"):
        record.unlink()
    written.clear()
    run("cityscapes", root)
    assert written == []
    assert len(DatasetCatalog.get("cityscapes_fine_panoptic_train")) == 4


@pytest.mark.slow
def test_two_processes_make_what_one_makes(root, tmp_path):
    for place in (root, tmp_path / "other"):
        raw.make_ade20k(place)
    run("ade20k-panoptic", root, workers=2)
    run("ade20k-panoptic", tmp_path / "other", workers=1)
    for name in ("ade20k_panoptic_train", "annotations_detectron2"):
        assert content_of(root / ADE / name) == content_of(tmp_path / "other" / ADE / name)
    name = "ade20k_panoptic_train.json"
    assert (root / ADE / name).read_bytes() == (tmp_path / "other" / ADE / name).read_bytes()


@pytest.mark.slow
def test_an_error_in_another_process_is_told_with_its_file(root):
    raw.make_ade20k(root)
    path = root / ADE / "annotations/training/ADE_train_00000002.png"
    Image.fromarray(np.full((raw.HEIGHT, raw.WIDTH), 200, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"00000002\.png has the value 200"):
        run("ade20k", root, workers=2)


def test_less_than_one_worker_is_an_error(root):
    raw.make_ade20k(root)
    with pytest.raises(ValueError, match="--workers must be 1 or more; got 0"):
        run("ade20k", root, workers=0)


def test_the_command_prepares_chosen_splits_and_passes_options_on(root, capsys):
    raw.make_coco_lvis(root)
    arguments = ["--root", str(root), "--workers", "1", "--splits", "val", "--essnet-compat"]
    assert main(["dataset", "prepare", "coco-lvis", *arguments]) == 0
    captured = capsys.readouterr()
    assert f"coco-lvis: val prepared in {root}" in captured.out
    assert "coco-lvis val: 100%" in captured.err
    assert len(DatasetCatalog.get("coco_lvis_sem_seg_val")) == 3
    record = json.loads((root / "coco_lvis/prepared_val.json").read_text())
    assert record["options"] == {"essnet_compat": True} and record["finished"]
    with pytest.raises(FileNotFoundError, match="coco_lvis/train.json does not exist"):
        DatasetCatalog.get("coco_lvis_sem_seg_train")


def test_a_file_as_new_as_its_source_is_fresh_and_an_empty_one_is_not(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        path.write_text("x")
        os.utime(path, (1000, 1000))
    made = []
    job = prepare.Job(target, (source,))
    prepare.make_files(made.append, [job], "files", 1)
    assert made == []
    target.write_text("")
    prepare.make_files(made.append, [job], "files", 1)
    assert made == [job]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ade20k-panoptic", "pascal-context"])
def test_two_commands_at_once_do_not_disturb_each_other(tmp_path, command):
    """Each is held up at every file, so that the other would find its temporary files."""
    make = {"ade20k-panoptic": raw.make_ade20k, "pascal-context": raw.make_pascal_context}[command]
    root, other = tmp_path / "one", tmp_path / "other"
    for place in (root, other):
        make(place)
    code = """
import os, sys, time
from pathlib import Path
from rankseg_d2.data.datasets import COMMANDS
replace = os.replace
def slow(*paths):
    time.sleep(0.05)
    replace(*paths)
os.replace = slow
print("ready", flush=True)
sys.stdin.readline()
COMMANDS[sys.argv[1]].prepare(Path(sys.argv[2]), sys.argv[3], 1)
"""
    splits = ("train", "val") if command == "pascal-context" else ("train", "train")
    both = [
        subprocess.Popen([sys.executable, "-c", code, command, str(root), split],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for split in splits
    ]  # fmt: skip
    for process in both:
        assert process.stdout.readline() == b"ready\n"
    for process in both:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    for split in dict.fromkeys(splits):
        run(command, other, splits=[split])
    files_of = [
        {name: x for name, x in content_of(place).items() if name.endswith((".png", ".json"))}
        for place in (root, other)
    ]
    for found in files_of:
        for name in [name for name in found if "prepared_" in name]:
            del found[name]  # has times
    assert files_of[0] == files_of[1]
    assert not [path for path in root.rglob(".*") if ".tmp" in path.name]


def test_a_prepared_data_set_is_loaded_without_the_times_of_all_its_sources(root, monkeypatch):
    raw.make_ade20k(root)
    folder = root / ADE / "annotations/training"
    source = next(folder.iterdir())
    for i in range(300):
        os.link(source, folder / f"ADE_train_{1000 + i:08d}.png")
    preparation = ade20k.semantic_preparation(root, "train")
    with preparation.making():
        run_of = root / ADE / "annotations_detectron2/training/a.png"
        run_of.parent.mkdir(parents=True)
        run_of.touch()
    times, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **kw: times.append(path) or stat(path, **kw))
    preparation.require()
    assert len([path for path in times if str(folder) in str(path)]) < 110
    monkeypatch.undo()
    for path in folder.iterdir():
        make_newer(path)
    with pytest.raises(RuntimeError, match="is older than its source"):
        preparation.require()


def test_names_in_a_json_do_not_lead_out_of_the_data_set(root, tmp_path):
    raw.make_coco(root)
    path = root / "coco/annotations/panoptic_val2017.json"
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "a.png").write_bytes(b"mine")
    (outside / f".{'a' * 16}.tmp.png").write_bytes(b"mine too")
    before, content = content_of(outside), json.loads(path.read_text())
    for name in (str(outside / "a.png"), f"../{'../' * 20}{outside}/a.png", "x/../../a.png"):
        content["annotations"][0]["file_name"] = name
        path.write_text(json.dumps(content))
        for use in (lambda: run("coco-panoptic", root, splits=["val"]),
                    lambda: DatasetCatalog.get("coco_2017_val_panoptic")):  # fmt: skip
            with pytest.raises(ValueError, match=r"panoptic_val2017\.json: the file_name of image "
                                                 r"\d+: the name .* leads out of the folder"):
                use()
    assert content_of(outside) == before
