"""Written files are complete or absent."""

import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from rankseg_d2.files import (
    inside,
    listed,
    locked,
    read_json,
    remove_leftovers,
    replacing,
    replacing_durably,
    write_bytes,
    write_image,
    write_json,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.pth"
    with replacing_durably(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.pth"]
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_temporary_path_has_the_suffix_and_is_not_listed(tmp_path):
    with replacing(tmp_path / "a.npz") as temporary:
        np.savez(temporary, x=1)
        assert temporary.suffix == ".npz" and list(listed(tmp_path, "*.npz")) == []
    assert list(listed(tmp_path, "*.npz")) == [str(tmp_path / "a.npz")]


@pytest.mark.parametrize("replace", [replacing, replacing_durably])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, replace):
    path = tmp_path / "a.pth"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk"), replace(path) as half:
        half.write_bytes(b"half") if replace is replacing else half.write(b"half")
        raise RuntimeError("disk full")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.pth"]


def test_a_name_without_a_folder_is_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes("a.txt", b"a")
    with replacing_durably("b.txt") as file:
        file.write(b"b")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    folder = tmp_path / "new"
    remove_leftovers([folder])
    with pytest.raises(KeyboardInterrupt), replacing(folder / "a.png") as temporary:
        (folder / "copy").write_bytes(temporary.read_bytes())
        raise KeyboardInterrupt
    (folder / "copy").rename(temporary)  # as a kill leaves it
    kept = ["a.png", ".hidden.tmp.png", ".17.tmp.a.png"]
    for name in kept:
        (folder / name).touch()
    remove_leftovers([folder])
    assert sorted(os.listdir(folder)) == sorted(kept)


def test_images_and_json_are_read_back_as_they_were(tmp_path):
    labels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    write_image(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)
    write_json(tmp_path / "folder" / "a.json", {"a": [1, None]})
    assert json.loads((tmp_path / "folder" / "a.json").read_text()) == {"a": [1, None]}


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "a/..", r"a\..\..\b", ".."])
def test_names_that_lead_out_of_a_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"x\.json: the name .* leads out of the folder") as error:
        inside(tmp_path, name, "x.json")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", [None, 5, "", ".", "a\0b", ["a"]])
def test_names_that_are_none_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"x\.json: .* is not the name of a file"):
        inside(tmp_path, name, "x.json")


def test_a_name_that_is_too_long_is_refused_and_cut_in_the_error(tmp_path):
    with pytest.raises(ValueError, match="is too long") as error:
        inside(tmp_path, "a" * 5000, "x.json")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["a.jpg", "a/b.c/d.png", "..a", "a..b", "é.png", "a b", "a:b"])
def test_names_inside_a_folder_are_joined(tmp_path, name):
    assert inside(tmp_path, name, "x.json") == tmp_path / name


def test_temporary_files_differ_and_are_made_anew(tmp_path, monkeypatch):
    path, victim = tmp_path / "a.txt", tmp_path / "victim"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
    victim.write_text("old")
    monkeypatch.setattr("secrets.token_hex", lambda size: "ab" * size)
    (tmp_path / f".{'ab' * 8}.tmp.txt").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(path) as temporary:
        temporary.write_text("new")
    assert victim.read_text() == "old"


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing/a\.txt"), replacing(
        tmp_path / "missing" / "a.txt"
    ):
        pass


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[" * 3000, "brackets within brackets"),
        (b"\xff\xfe{", "is not valid json"),
        (b"[1, ", "is not valid json"),
        (b"9" * 5000, "is not valid json"),
    ],
)
def test_a_bad_json_is_a_sentence_with_its_file(tmp_path, content, text):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json .*{text}|a\.json {text}"):
        read_json(path)


def test_a_json_may_have_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.timeout(20)
def test_a_pipe_or_a_folder_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    for path, what in ((tmp_path / "a.json", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"is {what}"):
            read_json(path)


def test_a_lock_is_held_by_one_at_a_time(tmp_path, caplog):
    lock, entered = tmp_path / "new" / "x.lock", threading.Event()

    def work():
        with locked(lock, "tests locks"):
            entered.set()

    with locked(lock, "tests locks"):
        other = threading.Thread(target=work)
        other.start()
        assert not entered.wait(0.3)
    other.join(10)
    assert entered.is_set() and "waiting for another process that tests locks" in caplog.text
