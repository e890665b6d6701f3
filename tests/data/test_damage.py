"""Damaged json files and masks: each is one sentence with the file and the entry."""

import copy
import json
import math

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support.odd_images import make_pipe, odd_files

from rankseg_d2.cli import main
from rankseg_d2.data.formats import rle
from rankseg_d2.data.formats.coco_instances import load_instances, read_instances
from rankseg_d2.data.formats.coco_panoptic import read_segments
from rankseg_d2.data.formats.mask_checks import mask_faults
from rankseg_d2.data.formats.youtube_vis import load_video_instances
from rankseg_d2.evaluation import InstanceEvaluator, VideoInstanceEvaluator, check_evaluation

pytestmark = pytest.mark.usefixtures("clean_catalogs")

H, W = 24, 32
KNOWN = {"thing_dataset_id_to_contiguous_id": {1: 0, 2: 1}}
MASK = np.zeros((H, W), bool)
MASK[3:20, 5:30] = True
GOOD = rle.as_text(rle.encode(MASK))
POLYGON = [[2.0, 2.0, 20.0, 2.0, 20.0, 20.0]]
COUNTS = GOOD["counts"]
PLAIN = {"size": [H, W], "counts": [10, 20, H * W - 30]}

DAMAGED_MASKS = {
    "cut": GOOD | {"counts": COUNTS[:-1] + "P"},
    "short": GOOD | {"counts": COUNTS[:-2]},
    "long": GOOD | {"counts": COUNTS + "9"},
    "empty": GOOD | {"counts": ""},
    "garbage": GOOD | {"counts": "zzzzzzz"},
    "letters": GOOD | {"counts": "é" * 9},
    "number": GOOD | {"counts": 7},
    "no counts": {"size": [H, W]},
    "no size": {"counts": COUNTS},
    "other size": GOOD | {"size": [W, H]},
    "huge size": GOOD | {"size": [10**6, 10**6]},
    "text size": GOOD | {"size": "24x32"},
    "negative": PLAIN | {"counts": [10, -20, H * W + 10]},
    "short list": PLAIN | {"counts": [10, 20]},
    "list of texts": PLAIN | {"counts": ["10", "20"]},
    "fractions": PLAIN | {"counts": [10.5, H * W - 10.5]},
    "text": "mask",
    "count": 5,
    "flat": [1, 2, 3, 4, 5, 6],
    "points": [[[1, 2], [3, 4], [5, 6]]],
    "texts": [["1", "2", "3", "4", "5", "6"]],
    "nothings": [[None] * 6],
    "far": [[1e9, 0, 0, 1e9, -1e9, -1e9]],
    "rather far": [[3e7, 0, 0, 5, 9, 9]],
    "a little far": [[1000, 0, 0, 5, 9, 9]],
    "not a number": [[1, 2, 3, math.nan, 5, 6]],
    "infinite": [[1, 2, 3, math.inf, 5, 6]],
    "huge integer": [[10**400, 2.0, 3, 4, 5, 6]],
    "zigzag": [[0.0, 0.0, W, H] * 50_000],
}


@pytest.mark.parametrize("name", DAMAGED_MASKS)
def test_a_damaged_mask_is_found_among_others(name):
    shapes = [GOOD, POLYGON, DAMAGED_MASKS[name], PLAIN, POLYGON, GOOD]
    assert list(mask_faults(shapes, [(H, W)] * 6)) == [2]


def test_good_masks_are_good():
    whole = rle.encode(np.ones((H, W), bool))
    nothing = rle.encode(np.zeros((H, W), bool))
    outside = [[-3.5, -2, W + 9, 4, 5.0, H + 2]]
    arrays = [np.array(POLYGON[0])]
    shapes = [whole, nothing, GOOD, rle.encode(MASK), PLAIN, [], POLYGON, outside, arrays]
    assert mask_faults(shapes, [(H, W)] * len(shapes)) == {}
    assert mask_faults([], []) == {}


def coco(folder, change=lambda content: None):
    """A json with three images and five annotations, changed; as written by json.dumps."""
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in (1, 2, 3)
        ],
        "annotations": [
            {
                "id": 10 + i,
                "image_id": 1 + i % 3,
                "category_id": 1 + i % 2,
                "iscrowd": 0,
                "area": 100,
                "bbox": [2, 2, 18, 18],
                "segmentation": copy.deepcopy([GOOD, POLYGON][i % 2]),
            }
            for i in range(5)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    change(content)
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    (folder / "images").mkdir(exist_ok=True)
    for i in (1, 2, 3):
        Image.fromarray(np.full((H, W, 3), i, np.uint8)).save(folder / f"images/{i}.png")
    return path


def register_coco(folder, path):
    DatasetCatalog.register("odd", lambda: load_instances(path, folder / "images", KNOWN))
    MetadataCatalog.get("odd").set(
        json_file=str(path), thing_classes=["a", "b"], evaluator_type="coco", **KNOWN
    )


@pytest.mark.parametrize("name", DAMAGED_MASKS)
def test_a_damaged_mask_of_a_coco_json_is_named_everywhere(tmp_path, name, capsys):
    def change(content):
        content["annotations"][3]["segmentation"] = DAMAGED_MASKS[name]

    path = coco(tmp_path, change)
    register_coco(tmp_path, path)
    text = r"instances\.json: the mask of annotation 13 of image 1 "
    for use in (lambda: DatasetCatalog.get("odd"),
                lambda: check_evaluation(InstanceEvaluator("odd"))):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            use()
    assert main(["dataset", "check", "odd", "--workers", "1"]) == 1
    assert "the mask of annotation 13" in capsys.readouterr().err


ENTRIES = {
    "two images of one id": (lambda x: x["images"][1].update(id=1), "2 images have the same id, 1"),
    "outside": (lambda x: x["images"][1].update(file_name="../2.png"), "leads out of the folder"),
    "absolute": (lambda x: x["images"][1].update(file_name="/2.png"), "leads out of the folder"),
    "no name": (lambda x: x["images"][1].pop("file_name"), "None is not the name of a file"),
    "height": (lambda x: x["images"][1].update(height="24"), "image 2 has the height '24'"),
    "width": (lambda x: x["images"][1].update(width=0), "image 2 has the width 0"),
    "no width": (lambda x: x["images"][1].pop("width"), r"images\[1\] has no width"),
    "id": (lambda x: x["images"][1].update(id=[1]), r"has the id \[1\]"),
    "mixed ids": (lambda x: x["images"][1].update(id="x"), "a number in some of the images"),
    "crowd": (lambda x: x["annotations"][1].update(iscrowd=None), "11 .*has the iscrowd None"),
    "crowd text": (lambda x: x["annotations"][1].update(iscrowd="no"), "the iscrowd 'no'"),
    "area": (lambda x: x["annotations"][1].update(area="1"), "annotation 11 .*has the area '1'"),
    "box": (lambda x: x["annotations"][1].update(bbox=[1, 2]), r"11 .*has the bbox \[1, 2\]"),
    "category": (lambda x: x["annotations"][1].update(category_id=[]), r"the category_id \[\]"),
    "entry": (lambda x: x["annotations"].append(5), r"annotations\[5\] is a int"),
    "images": (lambda x: x.update(images={}), "has no list 'images'"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_wrong_entry_of_a_coco_json_is_named(tmp_path, name):
    change, text = ENTRIES[name]
    path = coco(tmp_path, change)
    with pytest.raises(ValueError, match=rf"instances\.json.*{text}"):
        load_instances(path, tmp_path / "images", KNOWN)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"instances\.json has no list"):
        load_instances(path, tmp_path / "images", KNOWN)


def test_a_json_with_a_byte_order_mark_is_read(tmp_path):
    path = coco(tmp_path)
    expected = load_instances(path, tmp_path / "images", KNOWN)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_instances(path, tmp_path / "images", KNOWN) == expected
    from rankseg_d2._detectron2.data.datasets import load_coco_json

    assert len(load_coco_json(str(path), "images")) == 3


def test_records_are_detectron2s(tmp_path):
    from detectron2.data.datasets import load_coco_json

    path = coco(tmp_path, lambda x: x["annotations"][2].update(segmentation=[[1, 2, 3, 4]]))
    ours = load_instances(path, tmp_path / "images", {
        "thing_dataset_id_to_contiguous_id": {1: 1, 2: 2}})  # fmt: skip
    assert ours == load_coco_json(str(path), str(tmp_path / "images"))


def test_polygons_of_two_corners_are_left_out_of_training_and_refused_in_evaluations(tmp_path):
    path = coco(tmp_path, lambda x: x["annotations"][3].update(segmentation=[[1, 2, 3, 4]]))
    assert sum(len(r["annotations"]) for r in load_instances(path, tmp_path, KNOWN)) == 4
    with pytest.raises(ValueError, match="annotation 13 .*a polygon of 4 numbers"):
        read_instances(path, is_exact=True)


# YouTube-VIS


def videos(folder, change=lambda content: None):
    content = {
        "videos": [
            {"id": 7, "height": H, "width": W, "length": 2, "file_names": ["v/0.png", "v/1.png"]}
        ],
        "annotations": [
            {
                "id": 5,
                "video_id": 7,
                "category_id": 1,
                "iscrowd": 0,
                "segmentations": [copy.deepcopy(GOOD), None],
                "bboxes": [[1, 2, 3, 4], None],
                "areas": [100, None],
            }
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    change(content)
    path = folder / "videos.json"
    path.write_text(json.dumps(content))
    return path


VIDEOS = {
    "length": (lambda x: x["videos"][0].update(length=3), "2 file_names, but a length of 3"),
    "outside": (lambda x: x["videos"][0].update(file_names=["../a", "b"]), "leads out of the"),
    "areas": (lambda x: x["annotations"][0].update(areas=["1", None]), "frame 0 has the area '1'"),
    "one area": (lambda x: x["annotations"][0].update(areas=[1]), "has 1 areas, but its video"),
    "area": (lambda x: x["annotations"][0].update(areas=7), "has no list of areas"),
    "crowd": (lambda x: x["annotations"][0].update(iscrowd=None), "has the iscrowd None"),
    "boxes": (lambda x: x["annotations"][0].update(bboxes=["a", None]), "has the bbox 'a'"),
    "of no video": (lambda x: x["annotations"][0].update(video_id=[1]), r"the video_id \[1\]"),
    "masks": (lambda x: x["annotations"][0].update(segmentations="ab"), "no list of segmentations"),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_wrong_entry_of_a_video_json_is_named(tmp_path, name):
    change, text = VIDEOS[name]
    path = videos(tmp_path, change)
    with pytest.raises(ValueError, match=rf"videos\.json.*{text}"):
        load_video_instances(path, tmp_path, KNOWN)


@pytest.mark.parametrize("name", [*DAMAGED_MASKS, "corners"])
def test_a_damaged_mask_of_a_video_is_named_before_the_training(tmp_path, name):
    shape = DAMAGED_MASKS.get(name, [[1, 2, 3, 4]])
    path = videos(tmp_path, lambda x: x["annotations"][0]["segmentations"].__setitem__(0, shape))
    MetadataCatalog.get("odd").set(json_file=str(path), thing_classes=["a", "b"], **KNOWN)
    text = r"videos\.json: the mask of the object 5 of the video 7 in frame 0 "
    with pytest.raises(ValueError, match=text):
        check_evaluation(VideoInstanceEvaluator("odd"))
    if name != "corners":
        with pytest.raises(ValueError, match=text):
            load_video_instances(path, tmp_path, KNOWN)


def test_a_video_may_have_no_length(tmp_path):
    path = videos(tmp_path, lambda x: x["videos"][0].pop("length"))
    MetadataCatalog.get("odd").set(json_file=str(path), thing_classes=["a", "b"], **KNOWN)
    evaluator = VideoInstanceEvaluator("odd")
    check_evaluation(evaluator)
    assert evaluator.ground_truth.videos[7].length == 2


# Panoptic


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x.update(file_name="/a.png"), "image 1: the name '/a.png' leads out"),
        (lambda x: x.update(file_name=3), "3 is not the name of a file"),
        (lambda x: x.update(image_id=2), "2 annotations have the same image_id, 2"),
        (lambda x: x["segments_info"][0].update(id=0), "has the segment id 0"),
        (lambda x: x["segments_info"][0].update(id=2**24), "has the segment id 16777216"),
        (lambda x: x["segments_info"].append({"id": 9, "category_id": 1}), "2 segments of image 1"),
        (lambda x: x["segments_info"].append({"id": 8}), "has no category_id"),
        (lambda x: x.update(segments_info=None), "has no list 'segments_info'"),
        (lambda x: x["segments_info"][0].update(iscrowd="x"), "segment 9 has the iscrowd 'x'"),
    ],
)
def test_a_wrong_entry_of_a_panoptic_json_is_named(tmp_path, change, text):
    segments = [{"id": 9, "category_id": 1}]
    notes = [
        {"image_id": i, "file_name": f"{i}.png", "segments_info": copy.deepcopy(segments)}
        for i in (1, 2)
    ]
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"annotations": notes}))
    assert len(read_segments(path, tmp_path)["annotations"]) == 2
    change(notes[0])
    path.write_text(json.dumps({"annotations": notes}))
    with pytest.raises(ValueError, match=rf"panoptic\.json: .*{text}|panoptic\.json.*{text}"):
        read_segments(path, tmp_path)


# `dataset check` with odd images


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*odd_files(np.zeros((H, W, 3), np.uint8)), "pipe", "folder"])
def test_check_lists_odd_images_and_goes_on(tmp_path, name, capsys):
    path = coco(tmp_path)
    odd = tmp_path / "images/2.png"
    odd.unlink()
    if name == "pipe":
        make_pipe(odd)
    elif name == "folder":
        odd.mkdir()
    else:
        odd.write_bytes(odd_files(np.zeros((H, W, 3), np.uint8))[name])
    register_coco(tmp_path, path)
    assert main(["dataset", "check", "odd", "--workers", "1"]) == 1
    captured = capsys.readouterr()
    assert "unreadable image: 1" in captured.out and "images/2.png" in captured.out
    assert "Traceback" not in captured.err + captured.out
