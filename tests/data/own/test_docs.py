"""docs/own_data.md: every block of code runs as printed, and its files are those of the example."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import own_formats
from support.own_data import write_image, write_json, write_label
from support.paths import ROOT
from support.raw_videos import tracks

from rankseg_d2.cli import main

TEXT = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


# name of a file -> its content, as the first line of each block of yaml says
FILES = dict(re.match(r"# (.*?)\n(.*)", block, re.DOTALL).groups() for block in blocks("yaml"))


MANY = [f"{i:02d}" for i in range(40)]  # so that a part of 0.2 is not empty


def fruit(folder):
    own_formats.values(folder, {0: 0, 1: 255, 2: 255}, MANY)
    (folder / "labels").rename(folder / "masks")


def suits(folder):
    own_formats.rgb(folder, MANY)
    (folder / "labels").rename(folder / "masks")


def leaves(folder):
    shapes = [("old leaf", "circle", [[9, 9], [9, 12]]), ("vein", "line", [[0, 0], [9, 9]]),
              ("stem", "polygon", own_formats.corners(own_formats.STEM))]  # fmt: skip
    own_formats.labelme(folder, shapes)


def fields(folder):
    own_formats.values(folder / "train", {0: 0, 1: 1, 2: 2})
    own_formats.images(folder / "new", ["a"])


def dashcam(folder):
    for video in ("a", "b"):
        for frame in ("0001", "0002"):
            write_image(folder / "frames" / video / f"{frame}.jpg", own_formats.SIZE)
            write_label(folder / "labels" / video / f"{frame}.png", own_formats.class_map())
    (folder / "train.txt").write_text("a\n")
    (folder / "val.txt").write_text("b\n")


def ovis(folder):
    height, width = own_formats.SIZE
    video = {"id": 1, "file_names": ["a/1.jpg", "a/2.jpg"], "length": 2, "height": height,
             "width": width}  # fmt: skip
    masks = np.zeros((2, height, width), bool)
    masks[:, 2:9, 3:8] = True
    notes = [{"id": 1, "video_id": 1, "category_id": 1} | tracks(masks, "rle")]
    content = {"videos": [video], "annotations": notes, "categories": [{"id": 1, "name": "fish"}]}
    for split, name in (("train", "train"), ("valid", "val")):
        for file in video["file_names"]:
            write_image(folder / split / file, own_formats.SIZE)
        write_json(folder / f"annotations_{'valid' if name == 'val' else name}.json", content)


# The data of the yaml files that the example does not write
MAKERS = {
    "fruit": fruit, "suits": suits, "plants": own_formats.coco, "leaves": leaves,
    "berries": own_formats.yolo, "fields": fields, "dashcam": dashcam, "ovis": ovis,
}  # fmt: skip


def make(folder, name):
    """The data of the page's file <name>/<name>.yaml, and the file."""
    MAKERS[name](folder / name)
    (folder / name / "my.yaml").unlink(missing_ok=True)
    (folder / name / f"{name}.yaml").write_text(FILES[f"{name}/{name}.yaml"])
    return folder / name / f"{name}.yaml"


def test_every_yaml_of_the_page_is_of_the_example_or_has_data_here():
    of_example = {f"{name}/{file}.yaml" for name in ("street", "cars", "scenes")
                  for file in (name, "train")}
    assert FILES.keys() == of_example | {f"{name}/{name}.yaml" for name in MAKERS}


@pytest.mark.usefixtures("clean_catalogs")
@pytest.mark.parametrize("name", MAKERS)
def test_a_yaml_of_the_page_describes_its_data(tmp_path, name, capsys):
    path = make(tmp_path, name)
    status = main(["dataset", "check", str(path), "--workers", "1"])
    assert (status, capsys.readouterr().out.splitlines()[-1]) == (0, "nothing is wrong")


def make_my_folder():
    """Images and labels in my_folder, without a yaml; images in new_photos."""
    runpy.run_path(str(ROOT / "examples/own_data.py"))["main"]("my_folder")
    Path("new_photos").mkdir()
    for path in sorted(Path("my_folder").rglob("*.*")):
        if path.suffix == ".yaml" or int(path.stem) >= 32:
            path.unlink()
        elif path.stem == "0000" and path.parent.name == "images":
            path.rename(Path("new_photos", path.name))
            Path("my_folder/labels/0000.png").unlink()


def run(words, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_line(line, folder, capsys):
    """What a command writes; scripts are those of this checkout, and a training is short."""
    program, *words = line.partition("#")[0].split()
    short = ["SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2"]
    if program == "rankseg-d2" and words[0] in ("train", "eval"):
        return run(["-m", "rankseg_d2.cli", *words, *short], folder)
    if program == "rankseg-d2":
        status = main(words)
        written = capsys.readouterr()
        assert status == 0, written.err
        return written.out
    assert program == "python", line
    if words[0] == "examples/own_data.py":
        runpy.run_path(str(ROOT / words[0]))["main"](*words[1:])
        return ""
    return run([str(ROOT / words[0]), *words[1:], *short], folder)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_catalogs")
@pytest.mark.parametrize(
    ("first", "name", "result"),
    [
        ("rankseg-d2 dataset init my_folder ", None, ""),
        ("python examples/own_data.py photos ", None, "mIoU"),
        ("python examples/own_data.py street ", "street", "mIoU"),
        ("python examples/own_data.py cars", "cars", "instances, segm"),
        ("python examples/own_data.py scenes", "scenes", "panoptic segmentation"),
        ("rankseg-d2 dataset convert", None, "nothing is wrong"),
    ],
)
def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capsys, first, name, result):
    monkeypatch.chdir(tmp_path)
    (commands,) = (block for block in blocks("bash") if block.startswith(first))
    if first.startswith("rankseg-d2 dataset convert"):
        make(tmp_path, "plants")
    if first.startswith("rankseg-d2 dataset init"):
        make_my_folder()
    written = [run_line(line, tmp_path, capsys) for line in commands.splitlines()]
    assert "nothing is wrong\n" in written[1]
    assert result in written[-1]
    if "photos.yaml" in commands:
        said = written[2].splitlines()
        start = said.index(next(line for line in said if line.startswith("photos: semantic, ")))
        assert said[start] in TEXT
        assert [line for line in said if line.startswith(("  κ", "  queries")) and line in TEXT]
    if "--out found" in commands:
        assert len(list(Path("found").iterdir())) == 2 * len(list(Path("new_photos").iterdir()))
    for file in ("train", name) if name else ():
        assert (tmp_path / name / f"{file}.yaml").read_text() == FILES[f"{name}/{file}.yaml"]


def test_all_commands_of_the_page_are_run_here():
    assert len(blocks("bash")) == 6


@pytest.mark.slow
def test_the_python_of_the_page_runs(tmp_path):
    run([str(ROOT / "examples/own_data.py"), "street"], tmp_path)
    use = (
        "assert len(records) == 75 and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 6\n"
        "from rankseg_d2.cli import main\n"
        "assert main(['dataset', 'check', 'my_street']) == 0\n"
        "from rankseg_d2.data.mappers import build_mapper\n"
        "sample = build_mapper(cfg, is_train=True)(DatasetCatalog.get('my_street')[0])\n"
        "assert set(sample['sem_seg'].unique().tolist()) <= {0, 1, 2, 3, 4, 5, 255}\n"
    )
    run(["-c", "\n".join([*blocks("python"), use])], tmp_path)
