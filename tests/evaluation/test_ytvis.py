"""YouTube-VIS' AP against a slow computation on whole masks, written down from its rules."""

import json

import numpy as np
import pytest
import torch
from support.evaluation_data import register, unregister
from support.evaluation_videos import (
    CATEGORIES,
    CONTIGUOUS,
    SIZE,
    encode,
    instance_outputs,
    to_mask,
    video_samples,
    write_objects,
)

from rankseg_d2.data.formats.rle import areas
from rankseg_d2.evaluation import VideoInstanceEvaluator
from rankseg_d2.evaluation.video_overlap import track_overlaps

NAME = "test_ytvis"
THRESHOLDS = np.linspace(0.5, 0.95, 10)
SIZES = {"AP": (0, 1e10), "APs": (0, 128**2), "APm": (128**2, 256**2), "APl": (256**2, 1e10)}


@pytest.fixture
def data(tmp_path):
    content, metadata = write_objects(tmp_path)
    register(NAME, [], metadata)
    yield content, instance_outputs(content)
    unregister(NAME)


def evaluate(content, outputs, **options):
    evaluator = VideoInstanceEvaluator(NAME, **options)
    samples = video_samples(content)
    evaluator.process(samples[:5], outputs[:5])  # in batches
    evaluator.process(samples[5:], outputs[5:])
    return evaluator.evaluate()


def mean_area(areas):
    areas = [area for area in areas if area]
    return sum(areas) / len(areas) if areas else 0


def slow_metrics(content, outputs):
    """{metric: value} and {class: AP}, by loops over everything."""
    videos = list(zip(content["videos"], outputs, strict=True))
    classes = [slow_class(content, videos, category["id"]) for category in CATEGORIES]
    metrics = {key: 100 * np.nanmean([each[key] for each in classes]) for key in classes[0]}
    names = [f"AP-{category['name']}" for category in CATEGORIES]
    return metrics | {n: 100 * each["AP"] for n, each in zip(names, classes, strict=True)}


def slow_class(content, videos, category_id):
    cases = []
    for video, output in videos:
        own = output["pred_labels"] == CONTIGUOUS[category_id]
        order = sorted(np.flatnonzero(own), key=lambda i: -output["pred_scores"][i])
        detections = [
            (output["pred_scores"][i], np.stack([to_mask(m) for m in output["pred_masks"][i]]))
            for i in order
        ]
        objects = [
            (
                one["iscrowd"],
                mean_area(one["areas"]),
                np.stack(list(map(to_mask, one["segmentations"]))),
            )
            for one in content["annotations"]
            if (one["video_id"], one["category_id"]) == (video["id"], category_id)
        ]
        overlaps = [
            [(mask & true).sum() / max((mask | true).sum(), 1) for _, _, true in objects]
            for _, mask in detections
        ]
        cases.append((detections, objects, overlaps))
    result = {}
    for name, limits in SIZES.items():
        tables = [slow_curve(cases, limits, threshold, 100)[0] for threshold in THRESHOLDS]
        result[name] = np.mean(tables)
        if name == "AP":
            result |= {"AP50": np.mean(tables[0]), "AP75": np.mean(tables[5])}
    for most in (1, 10):
        recalls = [slow_curve(cases, SIZES["AP"], t, most)[1] for t in THRESHOLDS]
        result[f"AR{most}"] = np.mean(recalls)
    return result


def slow_curve(cases, limits, threshold, most):
    """Precision at 101 recalls, and the highest recall."""
    rows, total = [], 0
    for detections, objects, overlaps in cases:
        skip = [crowd or not limits[0] <= area <= limits[1] for crowd, area, _ in objects]
        total += skip.count(False)
        taken = set()
        for (score, mask), ious in list(zip(detections, overlaps, strict=True))[:most]:
            found = None
            for kind in (False, True):
                fits = [
                    i
                    for i, iou in enumerate(ious)
                    if iou >= threshold and skip[i] == kind and (i not in taken or objects[i][0])
                ]
                if fits and found is None:
                    found = max(fits, key=lambda i: (ious[i], i))
            if found is not None:
                taken.add(found)
                if not skip[found]:
                    rows.append((score, True))
            elif limits[0] <= mean_area(mask.sum((1, 2))) <= limits[1]:
                rows.append((score, False))
    if not total:
        return np.full(101, np.nan), np.nan
    rows = sorted(rows, key=lambda row: -row[0])
    right = np.cumsum([hit for _, hit in rows] or [0])
    precision = right / np.arange(1, len(right) + 1)
    recall = right / total
    curve = [precision[recall >= level].max(initial=0) for level in np.linspace(0, 1, 101)]
    return np.array(curve), recall[-1]


def test_metrics_are_those_of_the_rules(data):
    results = evaluate(*data)["segm"]
    expected = slow_metrics(*data)
    assert results.keys() == expected.keys()
    assert results == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 5 < results["AP"] < 95 and len({results[name] for name in SIZES}) == 4
    assert np.isnan(results["AP-yeti"])


def keep_visible(content, path):
    """Without the objects that are in no frame, which nobody finds and no record has."""
    content["annotations"] = [one for one in content["annotations"] if any(one["segmentations"])]
    path.write_text(json.dumps(content))


def test_perfect_prediction_is_100(data, tmp_path):
    content, _ = data
    keep_visible(content, tmp_path / "videos.json")
    outputs = []
    for video in content["videos"]:
        own = [one for one in content["annotations"] if one["video_id"] == video["id"]]
        outputs.append(
            {
                "pred_scores": torch.ones(len(own)),
                "pred_labels": torch.tensor([CONTIGUOUS[one["category_id"]] for one in own]).long(),
                "pred_masks": [
                    [encode(to_mask(rle)) for rle in one["segmentations"]] for one in own
                ],
            }
        )
    results = evaluate(content, outputs)["segm"]
    assert {results[name] for name in ("AP", "AP50", "APs", "APm", "APl", "AR10")} == {100.0}


def test_dense_masks_and_text_codes_are_taken_too(data):
    content, outputs = data
    dense, texts = [], []
    for video, output in zip(content["videos"], outputs, strict=True):
        tracks = output["pred_masks"]
        masks = np.zeros((len(tracks), video["length"], *SIZE), bool)
        for i, track in enumerate(tracks):
            masks[i] = [to_mask(rle) for rle in track]
        dense.append(output | {"pred_masks": torch.from_numpy(masks)})
        as_text = [
            [rle and rle | {"counts": rle["counts"].decode()} for rle in track] for track in tracks
        ]
        texts.append(output | {"pred_masks": as_text})
    expected = pytest.approx(evaluate(content, outputs)["segm"], nan_ok=True)
    assert evaluate(content, dense)["segm"] == expected
    assert evaluate(content, texts)["segm"] == expected


def test_records_are_a_truth_like_the_json(data, tmp_path):
    content, outputs = data
    for one in content["annotations"]:  # records do not know areas
        del one["areas"]
    keep_visible(content, tmp_path / "videos.json")
    expected = evaluate(content, outputs)["segm"]
    records = []
    for video in content["videos"]:
        own = [one for one in content["annotations"] if one["video_id"] == video["id"]]
        frames = [
            [
                {"id": one["id"], "category_id": CONTIGUOUS[one["category_id"]]}
                | {"iscrowd": one["iscrowd"], "segmentation": one["segmentations"][frame]}
                for one in own
                if one["segmentations"][frame]
            ]
            for frame in range(video["length"])
        ]
        records.append({"video_id": video["id"], "annotations": frames} | video)
    unregister(NAME)
    names = [category["name"] for category in CATEGORIES]
    register(NAME, records, {"thing_classes": names})
    assert evaluate(content, outputs)["segm"] == pytest.approx(expected, nan_ok=True)


def test_result_file_is_what_the_server_wants(data, tmp_path):
    content, outputs = data
    results = evaluate(content, outputs, output_folder=str(tmp_path), save_predictions=True)
    rows = json.loads((tmp_path / "results.json").read_text())
    flat = [
        (video["id"], label, score, track)
        for video, output in zip(content["videos"], outputs, strict=True)
        for label, score, track in zip(
            output["pred_labels"], output["pred_scores"], output["pred_masks"], strict=True
        )
    ]
    assert len(rows) == len(flat)
    for row, (video_id, label, score, track) in zip(rows, flat, strict=True):
        assert row["video_id"] == video_id and row["score"] == pytest.approx(score)
        assert row["category_id"] == CATEGORIES[label]["id"]
        for saved, rle in zip(row["segmentations"], track, strict=True):
            assert (saved is None) == (rle is None)
            assert rle is None or saved["counts"] == rle["counts"].decode()
            assert rle is None or saved["size"] == list(SIZE)
    table = json.loads((tmp_path / "segm.json").read_text())
    assert [row["id"] for row in table["rows"]] == [3, 7, 8]
    assert table["rows"][0]["AP"] == pytest.approx(results["segm"]["AP-cat"])


def test_without_labels_there_is_only_the_result_file(data, tmp_path):
    content, outputs = data
    (tmp_path / "videos.json").write_text(json.dumps(content | {"annotations": None}))
    assert evaluate(content, outputs, output_folder=str(tmp_path / "out")) == {}
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(rows) == sum(len(output["pred_scores"]) for output in outputs)


def test_no_detection_is_0(data):
    content, outputs = data
    empty = {"pred_scores": [], "pred_labels": [], "pred_masks": []}
    results = evaluate(content, [empty] * len(outputs))["segm"]
    assert results["AP"] == results["AR10"] == 0


def test_overlaps_of_unwanted_pairs_are_not_computed():
    mask = np.zeros(SIZE, bool)
    mask[:10, :20] = True
    track, wider = [encode(mask), None], [encode(np.roll(mask, 5, 1)), encode(mask)]
    overlaps = track_overlaps([track, wider], [wider], np.array([[True], [False]]), 2)
    assert overlaps.first.tolist() == [[200, 0], [200, 200]]
    assert overlaps.common.tolist() == [[150], [0]]
    assert overlaps.iou()[0, 0] == 150 / 450


def test_areas_of_many_masks():
    mask = np.zeros(SIZE, bool)
    mask[3:5, :7] = True
    assert areas([encode(mask)] * 600).tolist() == [14] * 600
    assert areas([]).tolist() == []


def test_every_video_must_be_predicted_once(data):
    content, outputs = data
    evaluator = VideoInstanceEvaluator(NAME)
    samples = video_samples(content)
    evaluator.process(samples[1:], outputs[1:])
    with pytest.raises(ValueError, match="1 of the 12 videos .* video 10 has 0 predictions"):
        evaluator.evaluate()
    evaluator.process(samples[:2], outputs[:2])
    with pytest.raises(ValueError, match="1 of the 12 videos .* video 11 has 2 predictions"):
        evaluator.evaluate()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video_id": 99}, "video 99 is not in the ground truth .* videos are 10, 11, 12, …"),
        ({"pred_labels": [3]}, "video 10 .* has the category 3, but the data set has 3, 0 to 2"),
        ({"pred_masks": [[None] * 9]}, "video 10 .* has 9 frames, but the ground truth has 5"),
        (
            {"pred_masks": [[encode(np.ones((2, 3), bool))] * 5]},
            r"video 10 .* height and width \(2, 3\), but the ground truth says \(300, 400\)",
        ),
    ],
)
def test_wrong_predictions_are_named(data, change, message):
    sample = {"video_id": 10} | {key: change[key] for key in ("video_id",) if key in change}
    output = {"pred_scores": [0.5], "pred_labels": [0], "pred_masks": [[None] * 5]} | change
    with pytest.raises(ValueError, match=message):
        VideoInstanceEvaluator(NAME).process([sample], [output])


def test_an_output_without_instances_is_an_error(data):
    with pytest.raises(
        ValueError, match="no pred_masks, only sem_seg. .*INSTANCE_ON"
    ):
        VideoInstanceEvaluator(NAME).process([{"video_id": 10}], [{"sem_seg": 0}])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video_id": 1}, "annotations of the video_id 1, which is none of its videos"),
        ({"segmentations": [None]}, "the object 1 of the video .* has 1 segmentations, but its"),
    ],
)
def test_a_damaged_json_is_named(data, tmp_path, change, message):
    content, outputs = data
    content["annotations"][0] |= change
    (tmp_path / "videos.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"videos.json.*{message}"):
        evaluate(content, outputs)
