"""The files of a result, read back by other readers than ours."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from support.predicting import ALL, NAMES, SIZE, make_predictor, pixels, ranking_predictor

from rankseg_d2.predict.cli import FILES
from rankseg_d2.predict.saving import ENDS, files_of

WANTED = dict.fromkeys(ENDS, True)


@pytest.fixture(scope="module")
def result():
    return replace(ranking_predictor(ALL)(pixels(1), explorable=True), name="set/a ü.jpg")


def test_the_command_offers_all_files():
    assert tuple(ENDS) == FILES


def test_all_files_lie_where_files_of_says(result, tmp_path):
    paths = result.save(tmp_path, **WANTED)
    assert paths == files_of(result.name, tmp_path, WANTED)
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "set").iterdir()}
    assert paths[0] == tmp_path / "set" / "a ü.png"
    some = result.save(tmp_path / "more")
    assert [path.name for path in some] == ["a ü.png", "a ü_overlay.jpg"]


def test_label_png_has_one_channel_of_class_numbers_or_own_ids(result, tmp_path):
    none = replace(result, semantic=np.where(result.semantic == 1, 7, result.semantic))
    path, _ = none.save(tmp_path)
    image = Image.open(path)
    assert image.mode == "L"
    np.testing.assert_array_equal(
        np.asarray(image), np.where(result.semantic == 1, 255, none.semantic)
    )
    path, _ = none.save(tmp_path / "own", own_ids=True)
    wanted = np.where(result.semantic == 1, 255, none.semantic.astype(int) + 10)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), wanted)
    assert (none.semantic == 7).any(), "the result itself stays"


def test_label_png_of_many_classes_has_16_bits(result, tmp_path):
    from rankseg_d2.predict.classes import Classes

    classes = Classes.of([{"name": str(i), "id": 2 * i} for i in range(300)])
    labels = np.tile(np.arange(0, 304, 8, dtype=np.uint16).clip(max=300), (2, 1))
    many = replace(result, semantic=labels, classes=classes, panoptic=None, instances=None,
                   image=np.zeros((*labels.shape, 3), np.uint8), categories=())  # fmt: skip
    path, _ = many.save(tmp_path)
    found = np.asarray(Image.open(path))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.where(labels == 300, 65535, labels))
    path, _ = many.save(tmp_path, own_ids=True, overwrite=True)
    found = np.asarray(Image.open(path))
    np.testing.assert_array_equal(found, np.where(labels == 300, 255, 2 * labels))


def test_panoptic_png_is_read_back_as_coco_has_it(result, tmp_path):
    result.save(tmp_path, label_png=False, overlay=False, panoptic_png=True)
    entry = json.loads((tmp_path / "set/a ü_panoptic.json").read_text())
    colors = np.asarray(Image.open(tmp_path / entry["file_name"]), np.int64)
    ids = colors @ [1, 256, 65536]
    np.testing.assert_array_equal(ids, result.panoptic.ids)
    assert entry["image_id"] == "set/a ü.jpg"
    assert {s["id"] for s in entry["segments_info"]} == set(np.unique(ids)) - {0}
    for segment, own in zip(entry["segments_info"], result.panoptic.segments, strict=True):
        assert segment["area"] == (ids == segment["id"]).sum() > 0
        assert segment["category_id"] == own["category_id"] + 10 and segment["iscrowd"] == 0


def test_ids_above_65535_use_all_three_channels(result, tmp_path):
    ids = np.where(np.arange(48) < 20, 70000, 65300)[None].repeat(32, 0).astype(np.int32)
    segments = tuple({"id": i, "category_id": 2, "isthing": True} for i in (70000, 65300))
    panoptic = replace(result.panoptic, ids=ids, segments=segments)
    replace(result, panoptic=panoptic).save(
        tmp_path, label_png=False, overlay=False, panoptic_png=True
    )
    colors = np.asarray(Image.open(tmp_path / "set/a ü_panoptic.png"), np.int64)
    np.testing.assert_array_equal(colors @ [1, 256, 65536], ids)


def test_coco_results_are_read_back_by_pycocotools(result, tmp_path):
    result.save(tmp_path, label_png=False, overlay=False, coco=True)
    entries = json.loads((tmp_path / "set/a ü_coco.json").read_text())
    assert len(entries) == len(result.instances) > 0
    rows = zip(entries, result.instances.masks, result.instances.categories, strict=True)
    for entry, mask, number in rows:
        assert set(entry) == {"image_id", "category_id", "segmentation", "score", "bbox"}
        np.testing.assert_array_equal(coco.decode(entry["segmentation"]).astype(bool), mask)
        assert entry["bbox"] == coco.toBbox(entry["segmentation"]).tolist()
        assert entry["category_id"] == number + 10


def test_categories_are_the_ranked_list(result, tmp_path):
    result.save(tmp_path, label_png=False, overlay=False, categories=True)
    rows = json.loads((tmp_path / "set/a ü_categories.json").read_text())
    assert [row["name"] for row in rows] == [one.name for one in result.categories]
    assert sum(row["kept"] for row in rows) == 4
    assert {row["name"] for row in rows if row["present"]} == set(result.names)
    assert all(row["category_id"] == 10 + NAMES.index(row["name"]) for row in rows)


def test_the_overlay_is_the_plot(result, tmp_path):
    _, path = result.save(tmp_path)
    found, wanted = np.asarray(Image.open(path), int), result.plot()
    assert found.shape == wanted.shape and np.abs(found - wanted).mean() < 6


def test_a_file_with_other_content_is_kept_unless_overwrite_is_set(result, tmp_path):
    paths = result.save(tmp_path)
    result.save(tmp_path)  # the same content
    other = replace(result, semantic=np.zeros(SIZE, np.uint8))
    before = [path.read_bytes() for path in paths]
    with pytest.raises(FileExistsError, match="ü.png exists with other content; give overwrite"):
        other.save(tmp_path, categories=True)
    assert [path.read_bytes() for path in paths] == before
    assert len(list((tmp_path / "set").iterdir())) == 2  # nothing of it was written
    other.save(tmp_path, overwrite=True)
    assert not np.asarray(Image.open(paths[0])).any()


def test_the_image_itself_is_never_overwritten(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    result = make_predictor()(tmp_path / "a.png")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="a.png is the image itself; save into another"):
            result.save(tmp_path, overwrite=overwrite)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels())


@pytest.mark.parametrize(
    "name, path",
    [
        ("a.jpg", "a.png"),
        ("a.b/c.d.jpg", "a.b/c.d.png"),
        ("dir.x/photo", "dir.x/photo.png"),
        ("/etc/passwd.png", "passwd.png"),
        ("../../up.png", "up.png"),
        ("0", "0.png"),
        ("", "result.png"),
    ],
)
def test_files_lie_below_the_folder_whatever_the_name(name, path, result, tmp_path):
    written, _ = replace(result, name=name).save(tmp_path)
    assert written == tmp_path / path and written.is_file()


def test_panoptic_png_without_segments_says_what_it_needs(result, tmp_path):
    with pytest.raises(ValueError, match="panoptic_png needs panoptic results: .*PANOPTIC_ON"):
        replace(result, panoptic=None).save(tmp_path, panoptic_png=True)
    assert not list(Path(tmp_path).iterdir())


def test_a_folder_that_cannot_be_written_is_named(result, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="out"):
        result.save(tmp_path / "out")
