"""The sheet of a data set of videos: frames, ground truth, prediction, the ranking of the video."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco
from support.small import make_config

from rankseg_d2.data.datasets.shapes import register_shapes
from rankseg_d2.drawing import CELL, GAP, MISSED, RIGHT, WRONG
from rankseg_d2.drawing.painting import TINT
from rankseg_d2.drawing.text import line_height
from rankseg_d2.evaluation import build_evaluator, pictures, video_pictures
from rankseg_d2.evaluation.video_pictures import VideoPictureSheet, middles

CATEGORIES, HEAD = 20, line_height(13)
NAMES = {task: f"shapes{CATEGORIES}_video_{task}_val" for task in ("sem_seg", "instance")}


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    """The folder of four clips of shapes."""
    before, root = set(DatasetCatalog.list()), tmp_path_factory.mktemp("data")
    register_shapes(CATEGORIES, root=root, num_videos={"train": 1, "val": 4})
    yield root / "shapes" / str(CATEGORIES) / "video_val"
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def samples_of(name):
    """What the mapper gives: records without annotations."""
    records = DatasetCatalog.get(name)
    return [{key: x for key, x in one.items() if key != "annotations"} for one in records]


def classes_of(root, path, name=NAMES["sem_seg"]):
    """The classes of a frame's label image, 255 for none, by the metadata's table."""
    label = path.replace("origin", "mask").replace(".jpg", ".png")
    return np.asarray(MetadataCatalog.get(name).label_table)[np.asarray(Image.open(label))]


def perfect_labels(root, sample):
    """Output of a model that is right; pixels without a label get class 0."""
    maps = [classes_of(root, path) for path in sample["file_names"]]
    return {"sem_seg_frames": [np.where(one == 255, 0, one).astype(np.uint8) for one in maps]}


def perfect_tracks(root, sample):
    """Output of a model that is right, from the json, with an unlikely track over all pixels."""
    content = json.loads((root / "instances.json").read_text())
    own = [one for one in content["annotations"] if one["video_id"] == sample["video_id"]]
    size = sample["height"], sample["width"]
    masks = [
        [None if one is None else compressed(one, size) for one in track["segmentations"]]
        for track in own
    ]
    full = coco.encode(np.asfortranarray(np.ones(size, np.uint8)))
    ids = MetadataCatalog.get(NAMES["instance"]).thing_dataset_id_to_contiguous_id
    return {
        "image_size": size,
        "pred_scores": torch.tensor([0.9] * len(own) + [0.3]),
        "pred_labels": torch.tensor([ids[track["category_id"]] for track in own] + [1]),
        "pred_masks": [*masks, [full] * sample["length"]],
    }


def compressed(shape, size):
    if isinstance(shape, list):
        return coco.merge(coco.frPyObjects(shape, *size))
    return coco.frPyObjects(shape, *size) if isinstance(shape["counts"], list) else shape


def sheet_of(name, count, folder, outputs):
    """The picture of a sheet that gets all videos."""
    sheet = VideoPictureSheet(name, str(folder), count)
    for sample, output in zip(samples_of(name), outputs, strict=True):
        sheet.process([sample], [output])
    assert sheet.evaluate() is None and sheet.works
    return np.asarray(Image.open(folder / "sheet.png"))


def cell(picture, row, column):
    top, left = HEAD + row * (CELL[0] + GAP), column * (CELL[1] + GAP)
    return picture[top : top + CELL[0], left : left + CELL[1]]


def shown(panel, shape):
    """The pixels of a picture (H, W) that fills a cell of the same shape of sides."""
    y, x = ((np.arange(n) + 0.5) * side / n for n, side in zip(shape, CELL, strict=True))
    return panel[y.astype(int)[:, None], x.astype(int)]


def over(colors, frame):
    """Colours over a frame."""
    return TINT * colors + (1 - TINT) * frame


def test_rows_are_frames_spread_over_the_first_videos(root, tmp_path):
    samples = samples_of(NAMES["sem_seg"])
    outputs = [perfect_labels(root, sample) for sample in samples]
    picture = sheet_of(NAMES["sem_seg"], 5, tmp_path, outputs)
    assert picture.shape == (HEAD + 5 * (CELL[0] + GAP), 4 * (CELL[1] + GAP), 3)
    colors = np.array(MetadataCatalog.get(NAMES["sem_seg"]).stuff_colors)
    for row in range(5):
        sample, length = samples[row // 2], samples[row // 2]["length"]
        number = (length // 4, 3 * length // 4)[row % 2]
        frame = np.asarray(Image.open(sample["file_names"][number]).convert("RGB"))
        labels = classes_of(root, sample["file_names"][number])
        known = labels != 255
        wanted = over(colors[np.where(known, labels, 0)], frame)
        assert (shown(cell(picture, row, 0), labels.shape) == frame).mean() > 0.95
        ground_truth, predicted = (shown(cell(picture, row, i), labels.shape) for i in (1, 2))
        assert (abs(ground_truth - wanted) <= 1).all(-1)[known].mean() > 0.95
        assert (predicted == ground_truth)[known].all()


def test_objects_are_those_of_each_frame(root, tmp_path):
    samples = samples_of(NAMES["instance"])
    outputs = [perfect_tracks(root, sample) for sample in samples]
    picture = sheet_of(NAMES["instance"], 8, tmp_path, outputs)
    colors = np.array(MetadataCatalog.get(NAMES["instance"]).thing_colors)
    found = 0
    for row in range(8):
        output, length = outputs[row // 2], samples[row // 2]["length"]
        number = (length // 4, 3 * length // 4)[row % 2]
        for label, track in zip(output["pred_labels"][:-1], output["pred_masks"][:-1], strict=True):
            if track[number] is None:
                continue
            mask = coco.decode(track[number]).astype(bool)
            frame = np.asarray(Image.open(samples[row // 2]["file_names"][number]).convert("RGB"))
            for column in (1, 2):
                pixels = shown(cell(picture, row, column), mask.shape)
                is_color = (abs(pixels - over(colors[label], frame)) <= 1).all(-1)
                found += is_color.any()
                assert not (is_color & ~mask).any() or same_class_twice(output, label)
    assert found > 8
    white = (cell(picture, 0, 2) == 255).all(-1)
    assert 0 < white.mean() < 0.5  # the outlines of tracks; the unlikely one is left out


def same_class_twice(output, label):
    return (output["pred_labels"] == label).sum() > 1


def test_the_ranking_is_compared_with_all_frames_of_the_video(root, tmp_path, monkeypatch):
    sample = samples_of(NAMES["sem_seg"])[0]
    output = perfect_labels(root, sample)
    frames = [set(np.unique(classes_of(root, path)).tolist()) for path in sample["file_names"]]
    present = set().union(*frames) - {255}
    absent = sorted(set(range(CATEGORIES)) - present)
    scores = torch.full((CATEGORIES,), -3.0)
    kept = [*sorted(present)[1:], absent[0]]
    scores[kept] = 3.0
    output["ranking"] = {"scores": scores, "classes": torch.tensor(kept)}
    lines = []
    keep = VideoPictureSheet.row
    monkeypatch.setattr(
        VideoPictureSheet, "row", lambda self, *args: lines.append(args[-1]) or keep(self, *args)
    )
    sheet = VideoPictureSheet(NAMES["sem_seg"], str(tmp_path), 2)
    sheet.process([sample], [output])
    names, length = sheet.names, sample["length"]
    for (title, best, *rest), number in zip(lines, (length // 4, 3 * length // 4), strict=True):
        assert title.name == f"video {sample['video_id']}, frame {number + 1} of {length}"
        assert best.name == f"the best of {len(kept)} ranked"
        colors = {line.name.removeprefix("missed: "): line.name_color() for line in rest}
        assert colors[names[sorted(present)[0]]] == MISSED
        assert [colors[name] for name in map(names.__getitem__, kept) if name in colors] == [
            RIGHT if number in present else WRONG for number in kept if names[number] in colors
        ]


def test_only_the_frames_shown_are_read(root, tmp_path, monkeypatch):
    """Of videos without a ranking, so that the sheet costs little of long ones."""
    read = []
    for module, name in ((pictures, "read_rgb"), (pictures, "tinted")):
        keep = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, keep=keep, name=name: read.append(name) or keep(*args)
        )
    samples = samples_of(NAMES["sem_seg"])
    outputs = [perfect_labels(root, sample) for sample in samples]
    sheet_of(NAMES["sem_seg"], 3, tmp_path, outputs)
    assert read.count("read_rgb") == 4 and read.count("tinted") == 8


def test_whole_clips_of_a_model_without_windows(root, tmp_path):
    """Label maps and masks as tensors give the same picture."""
    labels = [perfect_labels(root, sample) for sample in samples_of(NAMES["sem_seg"])]
    whole = [{"sem_seg_labels": torch.from_numpy(np.stack(x["sem_seg_frames"]))} for x in labels]
    first, second = (
        sheet_of(NAMES["sem_seg"], 4, tmp_path / str(i), outputs)
        for i, outputs in enumerate((labels, whole))
    )
    np.testing.assert_array_equal(first, second)
    tracks = [perfect_tracks(root, sample) for sample in samples_of(NAMES["instance"])]
    dense = []
    for output in tracks:
        size = output["image_size"]
        masks = [
            np.stack([np.zeros(size, np.uint8) if x is None else coco.decode(x) for x in track])
            for track in output["pred_masks"]
        ]
        dense.append(output | {"pred_masks": torch.from_numpy(np.stack(masks).astype(bool))})
    first, second = (
        sheet_of(NAMES["instance"], 4, tmp_path / f"objects{i}", outputs)
        for i, outputs in enumerate((tracks, dense))
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 31])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_frames_are_spread_evenly(length, count):
    found = middles(length, count)
    assert len(found) == min(length, count) and found == sorted(set(found))
    assert set(found) <= set(range(length))
    assert abs(found[0] - (length - 1 - found[-1])) <= 1


@pytest.mark.parametrize("name, key", [("sem_seg", "SEMANTIC_ON"), ("instance", "INSTANCE_ON")])
def test_the_key_adds_a_sheet_for_what_the_model_predicts(root, name, key, tmp_path):
    on = {"SEMANTIC_ON": False, "INSTANCE_ON": False} | {key: True}
    on = {f"MODEL.MASK_FORMER.TEST.{one}": value for one, value in on.items()}
    for count in (0, 3):
        evaluators = build_evaluator(
            make_config(on | {"TEST.PICTURES": count}), NAMES[name], str(tmp_path)
        )
        kinds = [type(one) for one in evaluators._evaluators]
        assert (video_pictures.VideoPictureSheet in kinds) is (count > 0)


def test_an_error_is_a_warning(root, tmp_path, caplog):
    sheet = VideoPictureSheet(NAMES["sem_seg"], str(tmp_path), 2)
    sheet.process(samples_of(NAMES["sem_seg"])[:1], [{"nothing": 0}])
    assert sheet.evaluate() is None and not (tmp_path / "sheet.png").exists()
    assert "sheet.png cannot be made: ValueError" in caplog.text
