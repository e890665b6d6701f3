"""VSPW's measures against plain computations, and the PNG files for its server."""

import numpy as np
import pytest
import torch
from support.evaluation_data import register, unregister
from support.evaluation_videos import CLASSES, IGNORE, label_outputs, read, write_label_maps
from support.small import RANKSEG, make_config

from rankseg_d2.evaluation import (
    VideoInstanceEvaluator,
    VideoMultiLabelEvaluator,
    VideoSemanticEvaluator,
    build_evaluator,
)
from rankseg_d2.evaluation.video_consistency import Consistency
from rankseg_d2.evaluation.video_pictures import VideoPictureSheet

NAME = "test_vspw"


@pytest.fixture
def data(tmp_path):
    records, metadata = write_label_maps(tmp_path / "labels")
    register(NAME, records, metadata)
    yield records, label_outputs(records)
    unregister(NAME)


def evaluate(records, outputs, **options):
    evaluator = VideoSemanticEvaluator(NAME, **options)
    evaluator.process(records[:2], outputs[:2])
    evaluator.process(records[2:], outputs[2:])
    return evaluator.evaluate()


def clips(frames, length, last):
    """All runs of `length` frames; the public script leaves out the last one of a video."""
    return [frames[i : i + length] for i in range(len(frames) - length + last)]


def constant(maps):
    return np.all([one == maps[0] for one in maps], 0)


def slow_consistency(truths, predictions, length):
    """VC as the public script has it, and as the paper has it, by whole clips."""
    script, paper = [], []
    for true, predicted in zip(truths, predictions, strict=True):
        pairs = list(zip(true, predicted, strict=True))
        for clip in clips(pairs, length, last=0):
            raw, labels = map(list, zip(*clip, strict=True))
            steady = constant(raw)
            if steady.any():
                script.append((constant(labels) & steady).sum() / steady.sum())
        for clip in clips(pairs, length, last=1):
            raw, labels = map(list, zip(*clip, strict=True))
            classes = np.where((np.array(raw) >= 1) & (np.array(raw) <= 4), np.array(raw) - 1.0, -1)
            steady = constant(classes) & (classes[0] >= 0)
            if steady.any():
                right = np.all(classes == np.array(labels), 0)
                paper.append((right & steady).sum() / steady.sum())
    return {"": 100 * np.mean(script), "_corrected": 100 * np.mean(paper)}


@pytest.mark.parametrize("length", [8, 16])
def test_consistency_is_that_of_whole_clips(data, length):
    records, outputs = data
    results = evaluate(records, outputs)["sem_seg"]
    truths = [list(map(read, record["sem_seg_file_names"])) for record in records]
    predictions = [output["sem_seg_frames"] for output in outputs]
    for name, value in slow_consistency(truths, predictions, length).items():
        assert results[f"VC{length}{name}"] == pytest.approx(value, abs=1e-9)
        assert 10 < value < 90


def test_intersection_over_union_is_that_of_all_frames(data):
    records, outputs = data
    results = evaluate(records, outputs)["sem_seg"]
    labels = np.concatenate([read(p).ravel() for r in records for p in r["sem_seg_file_names"]])
    predicted = np.concatenate([f.ravel() for output in outputs for f in output["sem_seg_frames"]])
    labels, predicted = (x[(labels > 0) & (labels < 255)] for x in (labels - 1.0, predicted))
    iou, share = [], []
    for i in range(3):  # there is no unicorn
        iou.append(
            ((labels == i) & (predicted == i)).sum() / ((labels == i) | (predicted == i)).sum()
        )
        share.append((labels == i).mean())
    assert results["mIoU"] == pytest.approx(100 * np.mean(iou))
    assert results["fwIoU"] == pytest.approx(100 * np.dot(iou, share))
    assert np.isnan(results["IoU-unicorn"])


def test_label_maps_of_a_clip_are_taken_too(data):
    records, outputs = data
    tensors = [
        {"sem_seg_labels": torch.from_numpy(np.stack(output["sem_seg_frames"])).long()}
        for output in outputs
    ]
    expected = pytest.approx(evaluate(records, outputs)["sem_seg"], nan_ok=True)
    assert evaluate(records, tensors)["sem_seg"] == expected


def test_the_ground_truth_is_100_and_constant_errors_are_constant_only():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 4, (5, 7)).repeat(3, 1)] * 12
    right, wrong = Consistency((8,), IGNORE), Consistency((8,), IGNORE)
    for one in frames:
        right.add(one + 1, one, one)
        wrong.add(one + 1, one, (one + 1) % 4)
    assert right.totals() == {"VC8": (4.0, 4), "VC8_corrected": (5.0, 5)}
    assert wrong.totals() == {"VC8": (4.0, 4), "VC8_corrected": (0.0, 5)}


def test_clips_without_a_constant_pixel_are_left_out():
    consistency = Consistency((2,), IGNORE)
    for frame in range(4):  # the values always change, also between ignored ones
        values = np.full((3, 3), [0, 255, 0, 1][frame], np.uint8)
        classes = np.full((3, 3), [IGNORE, IGNORE, IGNORE, 0][frame], np.uint8)
        consistency.add(values, classes, np.zeros((3, 3), np.uint8))
    assert consistency.totals() == {"VC2": (0.0, 0), "VC2_corrected": (0.0, 0)}


def test_constant_ignored_pixels_count_as_in_the_script_only():
    consistency = Consistency((2,), IGNORE)
    for _ in range(3):
        ignored = np.full((3, 3), IGNORE, np.uint8)
        consistency.add(ignored, ignored, np.zeros((3, 3), np.uint8))
    assert consistency.totals() == {"VC2": (1.0, 1), "VC2_corrected": (0.0, 0)}


def test_tables_are_written(data, tmp_path):
    records, outputs = data
    evaluate(records, outputs, output_folder=str(tmp_path))
    rows = (tmp_path / "video_consistency.csv").read_text().splitlines()
    assert rows[0] == "video,frames,VC8,VC8_corrected,VC16,VC16_corrected"
    assert len(rows) == len(records) + 1 and rows[-1] == "video_6,1,,,,"
    assert (tmp_path / "sem_seg.csv").exists()
    assert not list(tmp_path.glob("sem_seg_predictions*"))


def test_predictions_are_saved_as_the_server_wants_them(data, tmp_path):
    records, outputs = data
    evaluate(records, outputs, output_folder=str(tmp_path), save_predictions=True)
    files = sorted(tmp_path.glob("sem_seg_predictions/*/*.png"))
    assert len(files) == sum(record["length"] for record in records)
    for record, output in zip(records, outputs, strict=True):
        for frame, labels in enumerate(output["sem_seg_frames"]):
            name = f"{record['video_id']}/{frame + 5:08d}.png"
            assert (read(tmp_path / "sem_seg_predictions" / name) == labels).all()


def test_without_labels_there_are_only_predictions(data, tmp_path):
    records, outputs = data
    for record in records:
        del record["sem_seg_file_names"]
    assert evaluate(records, outputs, output_folder=str(tmp_path / "out")) == {}
    assert len(list((tmp_path / "out").rglob("*.png"))) == sum(
        record["length"] for record in records
    )


def test_ranking_is_that_of_the_video(data):
    records, _ = data
    evaluator = VideoMultiLabelEvaluator(NAME)
    for record in records:
        present = evaluator.present_categories({"video_id": record["video_id"]})
        values = np.unique([read(path) for path in record["sem_seg_file_names"]])
        assert present.nonzero().flatten().tolist() == [v - 1 for v in values if 1 <= v <= 4]
    ranking = {"scores": torch.tensor([3.0, 2.0, 1.0, 0.0]), "classes": torch.tensor([0, 1, 2])}
    evaluator.process(records, [{"ranking": ranking}] * len(records))
    results = evaluator.evaluate()["multilabel"]
    assert results["recall@k"] == 100 and results["k"] == 3


def test_ranking_of_instances_takes_the_objects_of_all_frames():
    frames = [[{"category_id": 2}], [], [{"category_id": 0}, {"category_id": 2}]]
    register(NAME, [{"video_id": 5, "annotations": frames}], {"stuff_classes": CLASSES})
    try:
        evaluator = VideoMultiLabelEvaluator(NAME)
        assert evaluator.present_categories({"video_id": 5}).tolist() == [True, False, True, False]
    finally:
        unregister(NAME)


def test_every_video_must_be_predicted_once(data):
    records, outputs = data
    evaluator = VideoSemanticEvaluator(NAME)
    evaluator.process(records[1:], outputs[1:])
    with pytest.raises(ValueError, match="videos .* video 'video_0' has 0 predictions"):
        evaluator.evaluate()


def test_wrong_predictions_are_named(data):
    records, outputs = data
    evaluator = VideoSemanticEvaluator(NAME)
    frames = outputs[0]["sem_seg_frames"]
    with pytest.raises(
        ValueError, match="'video_0' has 19 frames, but the video has 20, from .*jpg on"
    ):
        evaluator.process(records[:1], [{"sem_seg_frames": frames[1:]}])
    with pytest.raises(ValueError, match="5.png has 32 x 24 pixels, but .* 'video_0' has 24 x 32"):
        evaluator.process(records[:1], [{"sem_seg_frames": [frame.T for frame in frames]}])
    with pytest.raises(ValueError, match="5.png has labels from 9 to 9, .* 0 to 3, and 4 for none"):
        evaluator.process(records[:1], [{"sem_seg_frames": [np.full_like(frames[0], 9)] * 20}])
    with pytest.raises(ValueError, match="no sem_seg_frames or sem_seg_labels, only x"):
        evaluator.process(records[:1], [{"x": 0}])
    with pytest.raises(ValueError, match="video 'other' is not in the ground truth"):
        sample = {"video_id": "other", "file_names": records[0]["file_names"]}
        evaluator.process([sample], outputs[:1])


@pytest.mark.parametrize("evaluator_type", ["vspw_sem_seg", "vss", "ytvis"])
@pytest.mark.parametrize("has_truth", [True, False])
def test_config_and_data_set_choose(evaluator_type, has_truth):
    key = "annotations" if evaluator_type == "ytvis" else "sem_seg_file_names"
    record = {"video_id": 1} | ({key: [[{}]]} if has_truth else {})
    metadata = {"stuff_classes": CLASSES, "thing_classes": CLASSES[:3]}
    register(NAME, [record], metadata | {"evaluator_type": evaluator_type})
    test = {"SEMANTIC_ON": key != "annotations", "INSTANCE_ON": key == "annotations"}
    options = {f"MODEL.MASK_FORMER.TEST.{name}": on for name, on in test.items()}
    options |= RANKSEG | {"TEST.SAVE_PREDICTIONS": True, "TEST.PICTURES": 2}
    try:
        evaluators = build_evaluator(make_config(options), NAME, "folder")._evaluators
    finally:
        unregister(NAME)
    kind = VideoInstanceEvaluator if evaluator_type == "ytvis" else VideoSemanticEvaluator
    wanted = [kind, VideoMultiLabelEvaluator, VideoPictureSheet] if has_truth else [kind]
    assert [type(one) for one in evaluators] == wanted
    assert evaluators[0].output_folder == "folder"
    assert not has_truth or len(evaluators[1].names) == (3 if evaluator_type == "ytvis" else 4)
