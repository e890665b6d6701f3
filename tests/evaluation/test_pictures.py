"""The picture sheet shows image, ground truth, prediction and ranking, and changes no result."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

from rankseg_d2.config import add_rankseg_config
from rankseg_d2.drawing import CELL, GAP, MISSED, RIGHT, WRONG
from rankseg_d2.drawing.painting import TINT
from rankseg_d2.drawing.text import line_height
from rankseg_d2.evaluation import build_evaluator
from rankseg_d2.evaluation.pictures import PictureSheet, category_lines

LINE_HEIGHT = line_height(13)  # of the titles
NAMES, COLORS = ["sky", "road", "tree"], [(10, 20, 30), (40, 50, 60), (70, 80, 90)]
LABELS = np.array([[0] * 4, [0] * 4, [1] * 4, [1, 1, 255, 255]], np.uint8)


@pytest.fixture
def sample(tmp_path):
    """A registered data set of one image, 4 x 4, of one colour."""
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "a.png")
    Image.fromarray(LABELS).save(tmp_path / "labels.png")
    record = {"file_name": str(tmp_path / "a.png"), "image_id": 1}
    record["sem_seg_file_name"] = str(tmp_path / "labels.png")
    DatasetCatalog.register("pictured", lambda: [record])
    MetadataCatalog.get("pictured").set(
        stuff_classes=NAMES, stuff_colors=COLORS, ignore_label=255, evaluator_type="sem_seg"
    )
    yield record
    DatasetCatalog.remove("pictured")
    MetadataCatalog.remove("pictured")


def prediction():
    labels = torch.tensor([[0] * 4] * 3 + [[2] * 4])
    ranking = {"scores": torch.tensor([3.0, -1.0, 0.0]), "classes": torch.tensor([0, 2])}
    return {"sem_seg_labels": labels, "ranking": ranking}


def sheet_of(folder):
    return np.asarray(Image.open(folder / "sheet.png"))


def middle(sheet, column, row, rows=4):
    """The colour in the middle of a pixel of a panel's 4 x 4 picture."""
    side = CELL[0]  # the picture is square, the cell wider
    x = column * (CELL[1] + GAP) + (CELL[1] - side) // 2
    return tuple(sheet[LINE_HEIGHT + (2 * row + 1) * side // (2 * rows), x + side // 8])


def over(color, image=(200, 100, 50)):
    """The colour of a class over the image."""
    return tuple(round(TINT * a + (1 - TINT) * b) for a, b in zip(color, image, strict=True))


def test_the_sheet_shows_image_ground_truth_and_prediction(sample, tmp_path):
    sheet = PictureSheet("pictured", str(tmp_path / "out"), 2)
    sheet.process([sample], [prediction()])
    assert sheet.evaluate() is None
    picture = sheet_of(tmp_path / "out")
    assert picture.shape == (LINE_HEIGHT + CELL[0] + GAP, 4 * (CELL[1] + GAP), 3)
    assert middle(picture, 0, 0) == (200, 100, 50)
    sky, road, tree = map(over, COLORS)
    assert [middle(picture, 1, row) for row in range(4)] == [sky] * 2 + [road] * 2
    assert [middle(picture, 2, row) for row in range(4)] == [sky] * 3 + [tree]
    text = picture[:, 3 * (CELL[1] + GAP) :].reshape(-1, 3).astype(int)  # its edges are soft
    for color in (RIGHT, WRONG, MISSED):
        assert abs(text - color).max(1).min() < 40


def test_segments_and_the_semantic_map_stand_beside_each_other(sample, tmp_path):
    sheet = PictureSheet("pictured", str(tmp_path), 1)
    segments = [{"id": 7, "category_id": 1}]
    ids = torch.tensor([[7] * 4] * 2 + [[0] * 4] * 2)
    sheet.process([sample], [prediction() | {"panoptic_seg": (ids, segments)}])
    sheet.evaluate()
    picture = sheet_of(tmp_path)
    assert picture.shape[1] == 5 * (CELL[1] + GAP)
    sky, road, tree = map(over, COLORS)
    assert [middle(picture, 2, row) for row in range(2)] == [road] * 2
    assert middle(picture, 2, 2) == (255, 255, 255)  # the edge of the segment
    assert middle(picture, 2, 3) not in (sky, road, tree)  # no segment: hatched
    assert [middle(picture, 3, row) for row in range(4)] == [sky] * 3 + [tree]


def test_only_the_first_images_are_shown(sample, tmp_path):
    sheet = PictureSheet("pictured", str(tmp_path), 2)
    for _ in range(5):
        sheet.process([sample], [prediction()])
    sheet.evaluate()
    assert len(sheet_of(tmp_path)) == LINE_HEIGHT + 2 * (CELL[0] + GAP)


MISSED_ROAD = ("missed: road", None, MISSED)


def texts(lines):
    """Name, score and colour of the name, of all lines but the title."""
    return [(x.name, x.score and round(x.score, 2), x.name_color()) for x in lines[1:]]


def test_lines_say_what_is_present_absent_and_missed():
    labels = prediction()["sem_seg_labels"].numpy()
    lines = category_lines(prediction(), LABELS, labels, NAMES, COLORS)
    assert texts(lines) == [("sky", 0.95, RIGHT), ("tree", 0.5, WRONG), MISSED_ROAD]
    assert [line.color for line in lines] == [None, COLORS[0], COLORS[2], COLORS[1]]


def test_without_a_ranking_the_lines_go_by_area():
    labels = prediction()["sem_seg_labels"]
    lines = category_lines({"sem_seg_labels": labels}, LABELS, labels.numpy(), NAMES, COLORS)
    assert texts(lines) == [("sky", 0.75, RIGHT), ("tree", 0.25, WRONG), MISSED_ROAD]


def test_the_key_adds_a_sheet_and_leaves_the_results_alone(sample, tmp_path):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    results = []
    for count in (0, 1):
        cfg.TEST.PICTURES = count
        evaluator = build_evaluator(cfg, "pictured", str(tmp_path / str(count)))
        evaluator.reset()
        evaluator.process([sample], [prediction()])
        results.append(evaluator.evaluate())
    assert results[0]["sem_seg"]["mIoU"] == results[1]["sem_seg"]["mIoU"]
    assert results[0].keys() == results[1].keys()
    assert (tmp_path / "1" / "sheet.png").is_file()
    assert not (tmp_path / "0" / "sheet.png").exists()


def test_a_data_set_of_things_alone_shows_annotations_and_instances(sample, tmp_path):
    squares = [[0, 0, 4, 0, 4, 4, 0, 4]], [[0, 0, 4, 0, 4, 2, 0, 2]]  # of all, of the upper half
    annotations = [
        {"category_id": category, "segmentation": square, "iscrowd": 0}
        for category, square in zip([1, 2], squares, strict=True)
    ]
    DatasetCatalog.register("things", lambda: [sample | {"annotations": annotations[:count]}])
    MetadataCatalog.get("things").set(
        thing_classes=NAMES, thing_colors=COLORS, evaluator_type="coco"
    )
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 2:], masks[1], masks[2] = True, True, True
    instances = Instances(
        (4, 4), pred_masks=masks, scores=torch.tensor([0.9, 0.6, 0.1]),
        pred_classes=torch.tensor([2, 0, 1]),
    )  # fmt: skip
    try:
        sky, road, tree = map(over, COLORS)
        for count, expected in ((2, [tree] * 2 + [road] * 2), (0, [])):
            sheet = PictureSheet("things", str(tmp_path / str(count)), 1)
            found = {key: value for key, value in sample.items() if key != "sem_seg_file_name"}
            sheet.process([found | {"height": 4, "width": 4}], [{"instances": instances}])
            sheet.evaluate()
            picture = sheet_of(tmp_path / str(count))
            found = [middle(picture, 1, row) for row in range(4)]
            assert found == expected or (count == 0 and not {sky, road, tree} & set(found))
            seen = [middle(picture, 2, row) for row in range(4)]  # row 2 is the things' edge
            assert seen == [sky] * 2 + [(255, 255, 255), tree]
    finally:
        DatasetCatalog.remove("things")
        MetadataCatalog.remove("things")
