"""Reading label images."""

import zlib

import numpy as np
import pytest
from PIL import Image

from rankseg_d2.data.formats.image_files import UnreadableError
from rankseg_d2.data.formats.label_images import (
    positions_of_ids,
    present_values,
    read_label_map,
    read_segment_ids,
)


def save(path, values):
    Image.fromarray(np.asarray(values)).save(path)
    return str(path)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_ids_beyond_255_are_read(tmp_path, ending):
    values = np.array([[0, 255, 256], [1283, 65535, 3]], np.uint16)
    path = save(tmp_path / f"labels.{ending}", values)
    metadata = {"stuff_classes": ["x"] * 1284, "ignore_label": 65535}
    np.testing.assert_array_equal(read_label_map(path, metadata), values)


def test_a_table_takes_raw_values_to_classes(tmp_path):
    path = save(tmp_path / "labels.png", np.array([[0, 1], [2, 3]], np.uint8))
    labels = read_label_map(path, {"label_table": np.array([255, 0, 700, 2])})
    np.testing.assert_array_equal(labels, [[255, 0], [700, 2]])
    with pytest.raises(ValueError, match=r"labels\.png has the value 3, .* 0 to 2 .*label_offset"):
        read_label_map(path, {"label_table": [255, 0, 1]})
    with pytest.raises(ValueError, match=r"labels\.png has the value 1, 2, .* 0, 3 to 4 "):
        read_label_map(path, {"label_table": [255, -1, -1, 0, 1]})


def test_values_outside_the_classes_are_named(tmp_path):
    path = save(tmp_path / "labels.png", np.array([[0, 7], [255, 9]], np.uint8))
    with pytest.raises(ValueError, match=r"labels\.png has the value 7, 9, .* 0 to 2, or 255"):
        read_label_map(path, {"stuff_classes": ["a", "b", "c"]})
    path = save(tmp_path / "labels.png", np.array([[1, 2], [3, 255]], np.uint8))
    with pytest.raises(ValueError, match=r"value 3, .* for this file, label_offset: 1 would fit"):
        read_label_map(path, {"stuff_classes": ["a", "b", "c"]})
    path = save(tmp_path / "labels.tif", np.array([[0, -1]], np.int32))
    with pytest.raises(ValueError, match=r"labels\.tif has the value -1"):
        read_label_map(path, {"stuff_classes": ["a", "b", "c"]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "3 channels, with 4 colours: .0, 1"),
        (np.zeros((2, 2), np.float32), "values of float32"),
    ],
)
def test_what_is_no_label_image_is_told(tmp_path, values, message):
    path = save(tmp_path / "labels.tif", values)
    with pytest.raises(ValueError, match=message):
        read_label_map(path, {})


@pytest.mark.parametrize("read", [lambda path: read_label_map(path, {}), read_segment_ids])
def test_damaged_files_are_named(tmp_path, read):
    whole = tmp_path / "whole.png"
    save(whole, np.random.RandomState(0).randint(0, 255, (50, 50, 3)).astype(np.uint8))
    for content in (b"", b"no image", whole.read_bytes()[:40]):
        path = tmp_path / "broken.png"
        path.write_bytes(content)
        with pytest.raises(UnreadableError, match=r"broken\.png cannot be read"):
            read(str(path))
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read(str(tmp_path / "none.png"))


def test_segment_ids_are_the_three_bytes_of_a_colour(tmp_path):
    path = save(tmp_path / "pan.png", np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8))
    ids = read_segment_ids(path)
    np.testing.assert_array_equal(ids, [[1 + 2 * 256 + 3 * 65536, 2**24 - 1]])
    with_alpha = np.array([[[1, 2, 3, 0], [255, 255, 255, 77]]], np.uint8)
    np.testing.assert_array_equal(read_segment_ids(save(tmp_path / "a.png", with_alpha)), ids)
    grey = save(tmp_path / "grey.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"grey\.png has 1 channels of uint8"):
        read_segment_ids(grey)


@pytest.mark.parametrize("wanted", [[], [7], [900000, 3, 0, 12], list(range(1, 400))])
def test_segments_are_numbered_by_their_place(wanted):
    generator = np.random.RandomState(0)
    ids = generator.choice([0, 3, 7, 12, 399, 900000], (20, 30)).astype(np.uint32).repeat(3, 1)
    numbers = positions_of_ids(ids, wanted)
    expected = np.zeros(ids.shape, int)
    for place, value in enumerate(wanted):
        expected[ids == value] = place + 1
    np.testing.assert_array_equal(numbers, expected)
    assert numbers.dtype == (np.uint16 if len(wanted) > 255 else np.uint8)


def test_present_values_are_those_of_unique():
    labels = np.random.RandomState(0).choice([4, 9, 255], (7, 5)).repeat(4, 1)
    for some in (labels, labels[:, ::-1], labels[:0], labels[:1, :1], labels == 4):
        np.testing.assert_array_equal(present_values(some), np.unique(some))


def test_a_panoptic_png_that_is_too_short_for_its_size_takes_no_memory(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (12_000).to_bytes(4, "big") * 2  # width and height
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match=r"a\.png.*too short for 12000 x 12000 pixels"):
        read_segment_ids(str(path))
    data[33:37] = b"\x7f\xff\xff\xff"  # the length of the next chunk
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match=r"a\.png.*damaged or too short"):
        read_segment_ids(str(path))
