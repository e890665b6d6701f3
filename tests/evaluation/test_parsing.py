"""AP^p, PCP and AP^r, against their definitions written pixel by pixel, without any shortcut."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from support.raw_datasets import write_image

from rankseg_d2.data.formats.person_labels import PersonLabels
from rankseg_d2.evaluation import ParsingEvaluator
from rankseg_d2.evaluation.part_overlap import average_precision
from rankseg_d2.files import read_json

NAME, PARTS, SIZE = "parsing_images", 5, (14, 18)
THRESHOLDS = [i / 10 for i in range(1, 10)]


@pytest.fixture
def register(tmp_path):
    """Registers images with these part maps (G, H, W); gives their records."""

    def register(images):
        records = []
        for number, maps in enumerate(images):
            paths = [str(tmp_path / f"{number}_{i}.png") for i in range(len(maps))]
            for path, one in zip(paths, maps, strict=True):
                write_image(path, one)
            labels = PersonLabels(tuple(paths), PARTS)
            records.append({"file_name": f"{number}.jpg", "person_labels": labels})
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).set(part_classes=["head", "left arm", "right arm", "leg"])
        return records

    yield register
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME, None)


def drawn_person(rng):
    one = np.zeros(SIZE, np.uint8)
    y, x = rng.integers(0, 8), rng.integers(0, 12)
    one[y : y + 6, x : x + 6] = rng.integers(1, PARTS, (3, 3)).repeat(2, 0).repeat(2, 1)
    return one


def disturbed(rng, one):
    """The person, moved a little, with a few other parts."""
    moved = np.roll(one, rng.integers(-1, 2, 2), (0, 1))
    wrong = (rng.random(SIZE) < 0.2) & (moved > 0)
    return np.where(wrong, rng.integers(0, PARTS, SIZE), moved).astype(np.uint8)


def drawn(seed, images=5):
    """Ground truth and predictions (maps, scores, scores of parts) of some images."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for number in range(images):
        truth = [drawn_person(rng) for _ in range(number % 4)]  # the first one has none
        found = [disturbed(rng, one) for one in truth for _ in range(rng.integers(0, 3))]
        found.append(drawn_person(rng))
        truths.append(np.array(truth, np.uint8).reshape(-1, *SIZE))
        scores = rng.random(len(found)), rng.random((len(found), PARTS))
        predictions.append((np.array(found), *scores))
    return truths, predictions


def evaluate(records, predictions, folder=None, with_part_scores=True, save=False):
    evaluator = ParsingEvaluator(NAME, folder, save)
    evaluator.check_ground_truth()
    evaluator.reset()
    for record, (maps, scores, part_scores) in zip(records, predictions, strict=True):
        persons = Instances(SIZE, scores=torch.tensor(scores), pred_parts=torch.from_numpy(maps))
        if with_part_scores:
            persons.part_scores = torch.tensor(part_scores)
        evaluator.process([record], [{"instances": persons}])
    return evaluator.evaluate()["parsing"]


# The definitions


def area_under_curve(right, num_true):
    """Of predictions that are right or not, best first: at each recall, the best precision left."""
    right = np.asarray(right, float)
    recall, precision = right.cumsum() / num_true, right.cumsum() / np.arange(1, len(right) + 1)
    area, before = 0.0, 0.0
    for i in range(len(right)):
        area += (recall[i] - before) * max(precision[i:])
        before = recall[i]
    return area


def iou(one, other):
    union = (one | other).sum()
    return (one & other).sum() / union if union else None


def person_metrics(truths, predictions, threshold):
    """AP^p and PCP at a threshold."""
    rows = [(score, image, one) for image, (maps, scores, _) in enumerate(predictions)
            for score, one in zip(scores, maps, strict=True)]  # fmt: skip
    right, shares, found = [], [], set()
    for _, image, one in sorted(rows, key=lambda row: -row[0]):
        best, which = 0.0, None
        for number, truth in enumerate(truths[image]):
            ious = [iou(one == part, truth == part) for part in range(PARTS)]
            mean = np.mean([value for value in ious if value is not None])
            if mean > best:
                best, which = mean, number
        is_right = best > threshold and (image, which) not in found
        right.append(is_right)
        if is_right:
            found.add((image, which))
            truth = truths[image][which]
            parts = [part for part in range(1, PARTS) if (truth == part).any()]
            good = [part for part in parts if iou(one == part, truth == part) > threshold]
            shares.append(len(good) / len(parts))
    num_true = sum(map(len, truths))
    return area_under_curve(right, num_true), sum(shares) / num_true


def region_ap(truths, predictions, part, threshold, once):
    """AP^r of a part at a threshold; `once`: a ground truth is found by one region only."""
    rows, num_true = [], 0
    for image, (maps, scores, part_scores) in enumerate(predictions):
        free = np.ones(SIZE, bool)
        num_true += sum((truth == part).any() for truth in truths[image])
        for person in np.argsort(-scores):
            region = (maps[person] == part) & free
            free &= maps[person] == 0
            if region.any():
                rows.append((part_scores[person, part], image, region))
    right, found = [], set()
    for _, image, region in sorted(rows, key=lambda row: -row[0]):
        best, which = 0.0, None
        for number, truth in enumerate(truths[image]):
            if (truth == part).any() and iou(region, truth == part) > best:
                best, which = iou(region, truth == part), number
        right.append(best > threshold and not (once and (image, which) in found))
        if right[-1]:
            found.add((image, which))
    return area_under_curve(right, num_true) if num_true else None


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_the_definitions(register, seed):
    truths, predictions = drawn(seed)
    found = evaluate(register(truths), predictions)
    persons = np.array([person_metrics(truths, predictions, t) for t in THRESHOLDS]) * 100
    expected = {"APp": persons[:, 0].mean(), "APp50": persons[4, 0], "PCP50": persons[4, 1]}
    for ending, once in (("", False), ("_corrected", True)):
        regions = 100 * np.array([
            [region_ap(truths, predictions, part, t, once) for t in THRESHOLDS]
            for part in range(1, PARTS)
        ])  # fmt: skip
        expected |= {f"APr{ending}": regions.mean(), f"APr50{ending}": regions[:, 4].mean()}
        if not once:
            expected |= {"APr-head": regions[0].mean(), "APr-leg": regions[3].mean()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["APr"] >= found["APr_corrected"]
    assert 0 < found["APp"] < 100 and 0 <= found["PCP50"] < 100


def test_the_ground_truth_itself_is_perfect(register):
    truths, _ = drawn(1)
    truths = [maps[:1] for maps in truths]  # persons that do not overlap
    perfect = [(maps, np.ones(len(maps)), np.ones((len(maps), PARTS))) for maps in truths]
    found = evaluate(register(truths), perfect)
    assert set(found.values()) == {100.0}


def test_the_order_of_the_images_and_of_their_persons_changes_nothing(register):
    truths, predictions = drawn(2)
    records = register(truths)
    expected = evaluate(records, predictions)
    turned = [tuple(part[::-1].copy() for part in one) for one in predictions]
    assert evaluate(records[::-1], turned[::-1]) == pytest.approx(expected)


def test_a_second_prediction_of_a_person_is_wrong(register):
    truth = drawn_person(np.random.default_rng(0))
    records = register([truth[None]])
    twice = np.stack([truth, truth]), np.array([0.9, 0.8]), np.ones((2, PARTS))
    found = evaluate(records, [twice])
    assert found["APp50"] == 100  # as its score is lower
    first = drawn_person(np.random.default_rng(5))
    worse = np.stack([first, truth]), np.array([0.9, 0.8]), np.ones((2, PARTS))
    assert evaluate(records, [worse])["APp50"] == 50


def test_without_scores_of_parts_those_of_persons_count(register):
    truths, predictions = drawn(3)
    records = register(truths)
    same = [(maps, scores, scores[:, None].repeat(PARTS, 1)) for maps, scores, _ in predictions]
    assert evaluate(records, predictions, with_part_scores=False) == evaluate(records, same)


def test_nothing_predicted_is_zero_and_no_ground_truth_is_not_a_number(register):
    truths, _ = drawn(1)
    records = register(truths)
    nothing = np.zeros((0, *SIZE), np.uint8), np.zeros(0), np.zeros((0, PARTS))
    found = evaluate(records, [nothing] * len(records))
    assert (found["APp"], found["PCP50"], found["APr50"]) == (0, 0, 0)
    empty = evaluate(records[:1], [nothing])  # an image without persons
    assert np.isnan([empty["APp"], empty["PCP50"], empty["APr"], empty["APr-leg"]]).all()


def test_tables_and_predictions_are_written(register, tmp_path):
    truths, predictions = drawn(0)
    records, folder = register(truths), tmp_path / "out"
    found = evaluate(records, predictions, str(folder), save=True)
    table = read_json(folder / "parsing.json")
    assert table["metrics"]["APp"] == found["APp"]
    assert [row["class"] for row in table["rows"]] == MetadataCatalog.get(NAME).part_classes
    regions = sum(len(np.unique(one[one > 0])) for maps, _, _ in predictions for one in maps)
    assert len(read_json(folder / "parsing_predictions.json")) == regions


def test_wrong_predictions_and_metadata_are_named(register, tmp_path):
    truths, predictions = drawn(1)
    records = register(truths)
    evaluator = ParsingEvaluator(NAME)
    with pytest.raises(ValueError, match="no instances, only sem_seg. Set .*PARSING_ON True"):
        evaluator.process(records[:1], [{"sem_seg": 0}])
    with pytest.raises(ValueError, match="have no pred_parts"):
        evaluator.process(records[:1], [{"instances": Instances(SIZE, scores=torch.ones(1))}])
    maps, scores, part_scores = predictions[1]
    wrong = Instances(SIZE, scores=torch.ones(1), pred_parts=torch.full((1, *SIZE), 5))
    with pytest.raises(ValueError, match=r"go from 5 to 5, but .* has 0 \(background\) to 4"):
        evaluator.process(records[1:2], [{"instances": wrong}])
    small = Instances((2, 2), scores=torch.ones(1), pred_parts=torch.zeros(1, 2, 2, dtype=int))
    with pytest.raises(ValueError, match="has 18 x 14 pixels, but the prediction for 1.jpg"):
        evaluator.process(records[1:2], [{"instances": small}])
    with pytest.raises(ValueError, match="was predicted 2 times"):
        evaluate([records[1]] * 2, [predictions[1]] * 2)
    with pytest.raises(ValueError, match="the model has predicted no image"):
        evaluate([], [])
    (tmp_path / "1_0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 label files .*1_0\.png"):
        evaluator.check_ground_truth()
    del MetadataCatalog.get(NAME).part_classes
    with pytest.raises(ValueError, match="has no part_classes"):
        ParsingEvaluator(NAME)


def test_the_size_is_checked_in_images_without_persons_too(register):
    records = register([np.zeros((1, 4, 5), np.uint8)])
    small = Instances((9, 9), scores=torch.ones(1), pred_parts=torch.zeros(1, 9, 9, dtype=int))
    with pytest.raises(ValueError, match="has 5 x 4 pixels, but the prediction for 0.jpg has 9 x"):
        ParsingEvaluator(NAME).process(records, [{"instances": small}])


def test_average_precision_of_a_known_curve():
    hits = np.array([[True], [False], [True], [False]])
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, hits, 2) == pytest.approx([(1 + 2 / 3) / 2])
    assert average_precision(scores[::-1].copy(), hits, 4) == pytest.approx([2 / 4 * 2 / 4])
