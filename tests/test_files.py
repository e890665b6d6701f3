"""Written files are complete or absent."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from rankseg_d2.files import (
    listed,
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
    (folder / ".17.tmp.a.png").touch()
    (folder / "a.png").touch()
    remove_leftovers([folder])
    assert os.listdir(folder) == ["a.png"]


def test_images_and_json_are_read_back_as_they_were(tmp_path):
    labels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    write_image(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), labels)
    write_json(tmp_path / "folder" / "a.json", {"a": [1, None]})
    assert json.loads((tmp_path / "folder" / "a.json").read_text()) == {"a": [1, None]}
