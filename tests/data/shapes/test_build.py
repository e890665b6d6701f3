"""Building the data set: the same files every time, whole or not at all, by one process."""

import json
import multiprocessing
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rankseg_d2.data.drawn import split as build
from rankseg_d2.data.drawn.split import ensure_split
from rankseg_d2.data.shapes.build import Spec

SMALL = Spec(40, "train", 40)


def files_of(folder):
    """{relative path: bytes}."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "40" / "train"
    ensure_split(folder, SMALL, num_workers=1)
    return folder


def test_files_do_not_depend_on_the_number_of_processes(folder, tmp_path):
    ensure_split(tmp_path / "train", SMALL, num_workers=3)
    assert files_of(tmp_path / "train") == files_of(folder)
    assert len(files_of(folder)) == 3 * SMALL.num_images + 3


def test_a_larger_split_begins_with_the_smaller_one(folder, tmp_path):
    ensure_split(tmp_path / "train", replace(SMALL, num_images=45), num_workers=1)
    larger = files_of(tmp_path / "train")
    for name, content in files_of(folder).items():
        if not name.endswith(".json"):
            assert larger[name] == content


def test_splits_have_different_images(folder, tmp_path):
    ensure_split(tmp_path / "val", Spec(40, "val", 2), num_workers=1)
    val = files_of(tmp_path / "val")
    train = set(files_of(folder).values())
    assert not [name for name in val if name.startswith("images") and val[name] in train]


def test_a_split_that_is_there_is_not_built_again(folder, monkeypatch):
    monkeypatch.setattr(build, "_build", None)
    ensure_split(folder, SMALL)


def test_a_split_of_another_version_is_built_again(folder, tmp_path):
    place = tmp_path / "train"
    ensure_split(place, replace(SMALL, num_images=3), num_workers=1)
    spec = json.loads((place / "spec.json").read_text())
    (place / "spec.json").write_text(json.dumps(spec | {"version": 0}))
    (place / "images" / "stale.jpg").touch()
    ensure_split(place, replace(SMALL, num_images=3), num_workers=1)
    assert json.loads((place / "spec.json").read_text()) == asdict(replace(SMALL, num_images=3))
    assert not (place / "images" / "stale.jpg").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".train.lock", "train"]


def test_files_of_somebody_else_are_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.txt").write_text("mine")
    with pytest.raises(RuntimeError, match="holds other files.*DETECTRON2_DATASETS"):
        ensure_split(tmp_path / "train", SMALL)
    assert (tmp_path / "train" / "mine.txt").read_text() == "mine"


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match="DETECTRON2_DATASETS"):
        ensure_split(tmp_path / "file" / "40" / "train", SMALL)


def test_a_build_that_is_killed_leaves_nothing_that_looks_done(folder, tmp_path):
    place = tmp_path / "train"
    args = (place, replace(SMALL, num_images=4000), 2)
    process = multiprocessing.get_context("spawn").Process(target=ensure_split, args=args)
    process.start()
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob(".train.making.*/images/*"))) <= 40:
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not place.exists()
    ensure_split(place, SMALL, num_workers=1)  # does not wait for the dead process' lock
    assert files_of(place) == files_of(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".train.lock", "train"]


def build_and_count(place, builds):
    original = build._build

    def counted(*args):
        with builds.get_lock():
            builds.value += 1
        original(*args)

    build._build = counted
    ensure_split(place, SMALL, num_workers=1)


def test_of_two_processes_one_builds_and_the_other_waits(folder, tmp_path):
    context = multiprocessing.get_context("fork")
    builds = context.Value("i", 0)
    place = tmp_path / "train"
    processes = [context.Process(target=build_and_count, args=(place, builds)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert builds.value == 1
    assert files_of(place) == files_of(folder)
