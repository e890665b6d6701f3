"""What a user can give: paths, folders, patterns, arrays, tensors, PIL images, lists."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.predicting import pixels

from rankseg_d2.predict.pixels import pixels_of
from rankseg_d2.predict.sources import open_source

TURNED = 0x0112  # EXIF orientation


def save(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels() if array is None else array).save(path)


def names(source):
    return [item.name for item in open_source(source).items]


def read(source):
    (item,) = open_source(source).items
    return item.read()


def test_a_folder_gives_its_images_in_natural_order_with_those_of_its_folders(tmp_path):
    for name in ("b10.png", "b9.png", "a/x ü.JPG", "a/.hidden.png", ".git/x.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert names(tmp_path) == names(f"{tmp_path}/") == ["a/x ü.JPG", "b9.png", "b10.png"]
    source = open_source(tmp_path)
    assert not source.is_one and not source.is_list
    assert [item.path for item in source.items] == [str(tmp_path / n) for n in names(tmp_path)]


def test_a_pattern_gives_names_below_the_folder_that_the_files_share(tmp_path, monkeypatch):
    for name in ("set/1/a.png", "set/2/a.png", "set/2/b.jpg", "top.png"):
        save(tmp_path / name)
    assert names(f"{tmp_path}/set/*/*.png") == ["1/a.png", "2/a.png"]
    assert names(f"{tmp_path}/set/2/*") == ["a.png", "b.jpg"]
    monkeypatch.chdir(tmp_path)
    assert names("**/*.png") == ["set/1/a.png", "set/2/a.png", "top.png"]
    assert names("*.png") == ["top.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    save(tmp_path / "a[1].png")
    assert open_source(tmp_path / "a[1].png").is_one
    save(tmp_path / "x*" / "b.png")
    assert names(tmp_path / "x*") == ["b.png"]


def test_files_of_a_list_have_names_that_differ(tmp_path, monkeypatch):
    for name in ("a/x.png", "b/x.png"):
        save(tmp_path / name)
    files = [tmp_path / "a/x.png", str(tmp_path / "b/x.png")]
    assert names(files) == ["a/x.png", "b/x.png"] and open_source(files).is_list
    assert names(files[:1]) == ["x.png"]
    monkeypatch.chdir(tmp_path / "a")
    assert names(["x.png", "../b/x.png", pixels()]) == ["a/x.png", "b/x.png", "2"]
    assert names(iter(["x.png", "../b/x.png"])) == ["x.png", "x.png"]


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "a.png")
    assert names("~/a.png") == ["a.png"]
    np.testing.assert_array_equal(read(["~/a.png"]), pixels())


def test_files_are_read_as_training_reads_them(tmp_path):
    image = pixels()
    grey = image[..., 0]
    save(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(read(tmp_path / "grey.png"), np.stack([grey] * 3, -1))

    alpha = np.dstack([image, np.arange(image[..., 0].size).reshape(grey.shape) % 255])
    save(tmp_path / "alpha.png", alpha.astype(np.uint8))
    np.testing.assert_array_equal(read(tmp_path / "alpha.png"), image)

    exif = Image.Exif()
    exif[TURNED] = 6
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "turned.png"), np.rot90(image, -1))

    save(tmp_path / "deep.png", grey.astype(np.uint16) * 200)
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits per pixel"):
        read(tmp_path / "deep.png")


def test_pil_images_are_read_as_their_files_are(tmp_path):
    image = pixels()
    exif = Image.Exif()
    exif[TURNED] = 6
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", exif=exif)
    turned = Image.open(file)
    np.testing.assert_array_equal(pixels_of(turned), np.rot90(image, -1))
    assert turned.size == image.shape[1::-1]  # the user's stays as it is
    palette = Image.fromarray(image).quantize(16)
    np.testing.assert_array_equal(pixels_of(palette), np.asarray(palette.convert("RGB")))
    deep = Image.fromarray(image[..., 0].astype(np.uint16) * 200)
    with pytest.raises(ValueError, match="more than 8 bits per pixel"):
        pixels_of(deep)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: np.dstack([x, x[..., 0]]),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.float32) + 0.3,
        lambda x: torch.from_numpy(x).permute(2, 0, 1),
        lambda x: torch.from_numpy(x).permute(2, 0, 1).bfloat16().requires_grad_(),
        lambda x: x[::-1][::-1],
        Image.fromarray,
    ],
)
def test_arrays_tensors_and_pil_images_give_the_same_pixels(change):
    image = pixels() // 2  # up to 127, which bfloat16 holds exactly
    found = pixels_of(change(image))
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x[..., None], torch.from_numpy])
def test_one_channel_becomes_three(change):
    grey = pixels()[..., 1].copy()
    np.testing.assert_array_equal(pixels_of(change(grey)), np.stack([grey] * 3, -1))


@pytest.mark.parametrize(
    "value, message",
    [
        (pixels() / 255, "from 0 to 1; multiply it by 255"),
        (pixels().astype(np.int32) - 1000, "values from 0 to 255, not from -"),
        (pixels().astype(np.uint16) * 257, "values from 0 to 255, not from"),
        (np.full((4, 4), np.nan), "values from 0 to 255, not from nan"),
        (np.zeros((4, 4), bool), "numbers from 0 to 255, not bool"),
        (np.zeros((4, 4), complex), "numbers from 0 to 255, not complex128"),
        (np.zeros((3, 4, 5)), r"an array \(height, width, 3\) .*, not \(3, 4, 5\)"),
        (np.zeros((0, 4, 3)), "an array"),
    ],
)
def test_pixels_that_are_none(value, message):
    with pytest.raises(ValueError, match=message):
        pixels_of(value)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no images: no file in it ends in \.bmp"):
        open_source(tmp_path)
    (tmp_path / "a.MP4").touch()
    with pytest.raises(FileNotFoundError, match=r"has no images: .*; give the path of one of its"):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file matches .*\*\.png"):
        open_source(tmp_path / "*.png")
    with pytest.raises(FileNotFoundError, match="no.png does not exist; give an image, a folder"):
        open_source(tmp_path / "no.png")
    for value in (3, None, torch.zeros(2, 3, 4, 5), [3], np.zeros((2, 2, 2, 3))):
        with pytest.raises(TypeError, match="give a path, a pattern, a folder"):
            open_source(value)
    with pytest.raises(FileNotFoundError, match="the image .*no.png does not exist"):
        read([Path("no.png")])
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="is a pipe or a device"):
        read(tmp_path / "pipe.png")
