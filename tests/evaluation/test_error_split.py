"""The parts of an error equal what metrics say after the ground truth was put in by hand."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from support.evaluation_data import (
    CATEGORIES,
    CLASSES,
    CONTIGUOUS,
    IGNORE,
    panoptic_outputs,
    read_scene,
    registered,
    run_evaluator,
    to_labels,
)

from rankseg_d2.evaluation import PanopticEvaluator, SemanticEvaluator
from rankseg_d2.evaluation.error_split import (
    STEPS,
    PixelSplit,
    SegmentSplit,
    pixel_causes,
    write_split,
)

NAME = "test_error_split"
KEPT = [0, 1, 4, 6]  # grass and dog are in images, but not kept
NUMBER = {category["id"]: number for number, category in enumerate(CATEGORIES)}


@pytest.fixture
def data(tmp_path):
    yield from registered(NAME, tmp_path / "data")


def plain_causes(true, predicted, kept):
    """The cause of each pixel (H, W), region by region."""
    causes = np.full(true.shape, 3)
    for label in np.unique(predicted):
        regions, count = ndimage.label(predicted == label)
        for number in range(1, count + 1):
            region = (regions == number) & (true != IGNORE)
            counts = np.bincount(true[region], minlength=256)
            if not region.any() or (label < 256 and counts[label] == counts.max()):
                continue  # its name is right
            if label < CLASSES:
                causes[region & (true == counts.argmax())] = 2
    if kept is not None:
        causes[~np.isin(true, kept)] = 1
    causes[true == predicted] = 0
    causes[true == IGNORE] = 255
    return causes


@pytest.mark.parametrize("kept", [None, KEPT, [], range(CLASSES)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_each_pixel_has_the_cause_of_a_plain_loop(kept, seed):
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.repeat(rng.integers(0, CLASSES + 1, (7, 9)), 5, 0), 6, 1)
    true = np.where(np.roll(blocks, 2, 1) == CLASSES, IGNORE, np.roll(blocks, 2, 1))
    predicted = np.where(rng.random(blocks.shape) < 0.1, CLASSES, blocks)
    predicted[:9, :30] = rng.integers(0, CLASSES + 1)
    kept = None if kept is None else np.array(kept, int)
    found = pixel_causes(true, predicted, kept, CLASSES, IGNORE)
    assert found.lengths.sum() == true.size
    expected = plain_causes(true, predicted, kept)
    assert (np.repeat(found.cause, found.lengths).reshape(true.shape) == expected).all()


def test_a_region_with_a_wrong_name_is_told_from_a_wrong_boundary():
    true = np.zeros((6, 8), int)
    true[:, 4:] = 1
    renamed, shifted, missed = true.copy(), true.copy(), np.zeros_like(true)
    renamed[:, 4:] = 2
    shifted[:, 3] = 1

    def causes(predicted, kept=None):
        found = pixel_causes(true, predicted, kept, 3, IGNORE)
        return [int(found.lengths[found.cause == cause].sum()) for cause in (1, 2, 3)]

    assert causes(renamed) == [0, 24, 0]
    assert causes(shifted) == [0, 0, 6]
    assert causes(missed) == [0, 0, 24]  # of equal parts, its own name counts
    assert causes(renamed, np.array([0, 2])) == [24, 0, 0]
    assert causes(np.full_like(true, 3)) == [0, 0, 48]  # nothing is predicted


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_no_part_is_negative_and_all_add_up(seed, height, width, ranked):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 5, (height, width))
    true[rng.random(true.shape) < 0.1] = IGNORE
    predicted = np.where(rng.random(true.shape) < 0.5, rng.integers(0, 6, true.shape), true)
    predicted[predicted == IGNORE] = 0
    split = PixelSplit(5)
    kept = rng.permutation(5)[: rng.integers(0, 6)] if ranked else None
    split.add(pixel_causes(true, predicted, kept, 5, IGNORE))
    values = split.values()
    exists = np.isin(np.arange(5), true)
    assert (np.isnan(values) == ~exists).all()
    assert (np.diff(values[:, exists], axis=0) >= -1e-9).all()
    assert (values[3, exists] == 100).all()
    if kept is None:
        assert (values[1] == values[0])[exists].all()


def semantic_outputs(data, seed=1):
    """Label maps with noise, and a ranking that keeps KEPT."""
    rng, outputs = np.random.default_rng(seed), []
    for record in data:
        labels = to_labels(*read_scene(record)).astype(int)
        labels[labels == IGNORE] = 0
        wrong = np.roll(labels, 4, 1)
        wrong = np.where(np.kron(rng.random((30, 30)) < 0.3, np.ones((3, 3)))[
            : labels.shape[0], : labels.shape[1]] > 0, (wrong + 1) % CLASSES, wrong)  # fmt: skip
        outputs.append({"sem_seg_labels": torch.from_numpy(wrong), "ranking": ranking()})
    return outputs


def ranking():
    return {"classes": torch.tensor(KEPT), "scores": torch.zeros(CLASSES)}


def evaluated(kind, data, outputs, folder):
    task = "sem_seg" if kind is SemanticEvaluator else "panoptic_seg"
    results = run_evaluator(kind(NAME, str(folder)), data, outputs, 5)[task]
    table = json.loads((folder / f"{task}_errors.json").read_text())
    classes = json.loads((folder / f"{task}.json").read_text())["rows"]
    return results, table, classes


def test_miou_is_split_as_by_corrected_label_maps(data, tmp_path):
    outputs = semantic_outputs(data)
    results, table, _ = evaluated(SemanticEvaluator, data, outputs, tmp_path / "0")
    scores = [results["mIoU"]]
    for step in (1, 2):
        corrected = []
        for record, output in zip(data, outputs, strict=True):
            true = to_labels(*read_scene(record)).astype(int)
            predicted = output["sem_seg_labels"].numpy()
            causes = plain_causes(true, predicted, KEPT)
            right = np.where((causes >= 1) & (causes <= step), true, predicted)
            corrected.append({"sem_seg_labels": torch.from_numpy(right)})
        scores.append(
            evaluated(SemanticEvaluator, data, corrected, tmp_path / str(step))[0]["mIoU"]
        )
    expected = dict(zip(STEPS, np.diff([*scores, 100]), strict=True)) | {"mIoU": scores[0]}
    assert table["metrics"] == pytest.approx(expected, abs=1e-9)
    assert min(expected.values()) > 1  # so each part is tested
    assert sum(table["metrics"].values()) == pytest.approx(100)
    for row in table["rows"]:
        total = sum(value for name, value in row.items() if name in ("IoU", *STEPS) and value)
        assert row["IoU"] is None or total == pytest.approx(100)


def painted(record, output):
    """The segments with those of categories that are not kept painted over them."""
    ids, infos = read_scene(record)
    result, segments = output["panoptic_seg"][0].numpy().copy(), list(output["panoptic_seg"][1])
    for info in infos:
        category, mask = NUMBER[info["category_id"]], ids == info["id"]
        if category in KEPT or info["iscrowd"] or 2 * mask.sum() <= info["area"]:
            continue
        number = 5000 + len(segments)
        result[mask] = number
        is_thing = category in CONTIGUOUS.values()
        segments.append({"id": number, "category_id": category, "isthing": is_thing})
    segments = [one for one in segments if (result == one["id"]).any()]
    return {"panoptic_seg": (torch.from_numpy(result), segments)}


def renamed(record, output):
    """The segments with the category of the true segment that they match."""
    ids, infos = read_scene(record)
    result, segments = output["panoptic_seg"][0].numpy(), []
    for segment in output["panoptic_seg"][1]:
        mask, own = result == segment["id"], dict(segment)
        for info in infos:
            true = ids == info["id"]
            common = (mask & true).sum()
            union = mask.sum() + info["area"] - common - (mask & (ids == 0)).sum()
            if not info["iscrowd"] and common / union > 0.5:
                category = NUMBER[info["category_id"]]
                own |= {"category_id": category, "isthing": category in CONTIGUOUS.values()}
        segments.append(own)
    return {"panoptic_seg": (torch.from_numpy(result), segments)}


def test_pq_is_split_as_by_corrected_segments(data, tmp_path):
    outputs = [output | {"ranking": ranking()} for output in panoptic_outputs(data)]
    results, table, rows = evaluated(PanopticEvaluator, data, outputs, tmp_path / "0")
    values = [[row["PQ"] for row in rows]]
    for step, correct in enumerate((painted, renamed), 1):
        outputs = [correct(*pair) for pair in zip(data, outputs, strict=True)]
        rows = evaluated(PanopticEvaluator, data, outputs, tmp_path / str(step))[2]
        values.append([row["PQ"] for row in rows])
    exists = [value is not None for value in values[0]]
    means = [
        np.mean([100 if value is None else value for value, is_in in zip(row, exists, strict=True)
                 if is_in]) for row in values
    ]  # fmt: skip
    expected = dict(zip(STEPS, np.diff([*means, 100]), strict=True)) | {"PQ": results["PQ"]}
    assert table["metrics"] == pytest.approx(expected, abs=1e-9)
    assert min(expected.values()) > 1
    assert sum(table["metrics"].values()) == pytest.approx(100)


def test_without_a_ranking_nothing_is_lost_to_it(data, tmp_path):
    for kind, outputs in (
        (PanopticEvaluator, panoptic_outputs(data)),
        (
            SemanticEvaluator,
            [{"sem_seg_labels": o["sem_seg_labels"]} for o in semantic_outputs(data)],
        ),
    ):
        table = evaluated(kind, data, outputs, tmp_path)[1]
        assert table["metrics"]["ranking"] == 0
        assert sum(table["metrics"].values()) == pytest.approx(100)


def test_parts_of_two_processes_are_added():
    rng = np.random.default_rng(3)
    maps = [rng.integers(0, 4, (2, 9, 9)) for _ in range(6)]
    whole, halves = PixelSplit(4), [PixelSplit(4), PixelSplit(4)]
    for number, (true, predicted) in enumerate(maps):
        causes = pixel_causes(true, predicted, np.array([0, 1]), 4, IGNORE)
        whole.add(causes), halves[number % 2].add(causes)
    assert np.array_equal((halves[0] + halves[1]).values(), whole.values())


def test_an_evaluation_of_nothing_has_no_parts(tmp_path):
    for split in (PixelSplit(2), SegmentSplit(2)):
        write_split(str(tmp_path), "sem_seg", "mIoU", split.values(), ["a", "b"])
        table = json.loads((tmp_path / "sem_seg_errors.json").read_text())
        assert table["metrics"] == dict.fromkeys(("mIoU", *STEPS))
