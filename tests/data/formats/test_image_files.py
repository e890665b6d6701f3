"""Odd image files: each is one error that names the file."""

import pickle

import numpy as np
import pytest
from PIL import Image
from support.odd_images import SIZE, jpeg, make_pipe, odd_files, png_of_size

from rankseg_d2.data.formats.image_files import UnreadableError, image_size, read_rgb
from rankseg_d2.data.formats.label_images import read_segment_ids, read_values

LABELS = np.random.RandomState(0).randint(0, 9, SIZE).astype(np.uint8)
COLORS = np.random.RandomState(0).randint(0, 255, (*SIZE, 3)).astype(np.uint8)
READERS = {read_rgb: COLORS, read_values: LABELS, read_segment_ids: COLORS}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", odd_files(COLORS))
def test_an_odd_file_is_an_error_with_its_name(tmp_path, read, name):
    path = tmp_path / "odd.png"
    path.write_bytes(odd_files(READERS[read])[name])
    with pytest.raises(UnreadableError, match=r"odd\.png cannot be read: .+ again, or remove it"):
        read(str(path))


@pytest.mark.parametrize("read", [read_rgb, read_values])
def test_a_file_that_is_no_image_is_named_in_plain_words(tmp_path, read):
    (tmp_path / "odd.png").write_bytes(b"no image" * 10)
    with pytest.raises(UnreadableError) as error:
        read(str(tmp_path / "odd.png"))
    assert "cannot be read: it is damaged, or not an image of a known format. " in str(error.value)
    assert "object at" not in str(error.value) and "<" not in str(error.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [*READERS, lambda path: image_size(path, "frame")])
def test_a_pipe_a_folder_and_a_forbidden_file_are_errors(tmp_path, read):
    path = make_pipe(tmp_path / "pipe.png")
    with pytest.raises(UnreadableError, match=r"pipe\.png .*is a pipe or a device"):
        read(path)
    with pytest.raises(UnreadableError, match="is a folder"):
        read(str(tmp_path))


@pytest.mark.parametrize("name", ["text bomb", "bomb", "empty"])
def test_the_size_of_an_odd_file_is_an_error_too(tmp_path, name):
    path = tmp_path / "odd.png"
    path.write_bytes(odd_files(COLORS)[name])
    with pytest.raises(UnreadableError, match=r"the frame .*odd\.png cannot be read"):
        image_size(str(path), "frame")


def test_a_large_panoptic_image_takes_no_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "pan.png"
    path.write_bytes(png_of_size(30_000, 30_000, 0))
    tracemalloc.start()
    with pytest.raises(UnreadableError, match="exceeds limit"):
        read_segment_ids(str(path))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("read", [read_values, read_segment_ids])
def test_labels_in_a_format_that_changes_values_are_refused(tmp_path, read, format):
    path = tmp_path / "labels.png"
    Image.fromarray(READERS[read]).save(path, format)
    with pytest.raises(UnreadableError, match=rf"labels\.png is compressed as {format}"):
        read(str(path))


def test_labels_in_a_tiff_with_jpeg_are_refused(tmp_path):
    path = tmp_path / "labels.tif"
    Image.fromarray(LABELS).save(path, "TIFF", compression="jpeg")
    with pytest.raises(UnreadableError, match=r"labels\.tif is compressed as TIFF"):
        read_values(str(path))
    Image.fromarray(LABELS).save(path, "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(read_values(str(path)), LABELS)


@pytest.mark.parametrize("ending", ["jpg", "png", "JPEG"])
@pytest.mark.parametrize("type_", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_than_8_bits_is_refused_under_any_name(tmp_path, ending, type_):
    path = tmp_path / f"deep.{ending}"
    format = "PNG" if type_ == np.uint16 else "TIFF"
    Image.fromarray(np.full(SIZE, 300, type_)).save(path, format)
    with pytest.raises(UnreadableError, match="has more than 8 bits per pixel"):
        read_rgb(str(path))
    with pytest.raises(UnreadableError, match="has more than 8 bits per pixel"):
        image_size(str(path), "image", decode=True)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1, 1), (7, 9)])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_thin_images_have_a_size(tmp_path, size, ending):
    path = str(tmp_path / f"thin.{ending}")
    Image.fromarray(np.zeros(size, np.uint8)).save(path)
    assert image_size(path, "image", decode=True) == size
    assert read_rgb(path).shape == (*size, 3)


def test_an_image_is_turned_by_its_exif_block_and_a_broken_one_does_not_matter(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / "turned.jpg")
    Image.fromarray(COLORS).save(path, exif=exif)
    height, width = SIZE
    assert image_size(path, "image") == (width, height)
    assert read_rgb(path).shape == (width, height, 3)
    Image.fromarray(COLORS).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff")
    assert image_size(path, "image") == SIZE and read_rgb(path).shape == (*SIZE, 3)


def test_a_jpeg_named_png_is_a_good_image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(jpeg(COLORS))
    assert read_rgb(str(path)).shape == (*SIZE, 3)


def test_the_embedded_reader_does_not_blame_the_format_for_an_odd_file(tmp_path):
    from rankseg_d2._detectron2.data.detection_utils import read_image

    path = tmp_path / "odd.png"
    for name in ("text bomb", "damaged"):
        path.write_bytes(odd_files(COLORS)[name])
        with pytest.raises((OSError, ValueError)) as error:
            read_image(str(path), "RGB")
        assert "INPUT.FORMAT" not in str(error.value)
    path.write_bytes(jpeg(COLORS))
    with pytest.raises(ValueError):
        read_image(str(path), "XYZ")


def test_an_error_survives_the_way_from_a_worker(tmp_path):
    with pytest.raises(UnreadableError) as error:
        read_rgb(make_pipe(tmp_path / "pipe.png"))
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
