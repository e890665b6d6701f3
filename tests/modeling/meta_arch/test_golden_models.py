"""The models compute what the public reference computes: every stage, result, loss and gradient.

Weights and inputs follow from rules (`golden.py`), so no weight file is needed. Dropout is off and
points are a fixed grid, as in the reference's run. All is in double precision: in single precision
the processor and the number of threads decide on which side of 0 a mask's pixel is that lies almost
there, the next layer's attention goes by that, and its masks are others.
"""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from support import golden
from torch import nn

from rankseg_d2.config import get_config
from rankseg_d2.modeling.losses.points import grid_points

pytestmark = pytest.mark.slow

CASES = json.loads((golden.DATA / "golden_models.json").read_text())
IMAGES = {"A": (210, 270), "B": (100, 141)}  # the size asked of the results
VIDEO_OUTPUT = (180, 230)
STD = 1e-3  # of the array's standard deviation: the largest error allowed

BOXES = {  # y0, x0, y1, x1 of the true objects, half open
    "A": [(10, 12, 70, 90), (40, 60, 140, 180), (90, 5, 149, 80), (0, 120, 50, 190)]
    + [(100, 100, 130, 150)],
    "B": [(5, 5, 60, 100), (50, 80, 128, 180), (70, 0, 120, 60)],
    "V": [(8, 10, 60, 70), (40, 50, 100, 130), (70, 5, 110, 60), (0, 90, 40, 130)],
    "W": [(5, 5, 50, 80), (55, 60, 108, 130), (60, 0, 100, 50)],
}
LABELS = {
    "A": [7, 23, 61, 140, 23],
    "B": [0, 23, 99],
    "V": [7, 23, 61, 110],
    "W": [0, 61, 99],
}


def make_model(case, tmp_path, **options):
    """The case's model with the weights of its names."""
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    keys = CASES[case]["config"] | {"MODEL.DEVICE": "cpu"} | options
    model = build_model(get_config(empty, [word for item in keys.items() for word in item]))
    golden.fill(model, "div")
    return model.double()


@pytest.fixture(scope="module", params=CASES)
def eval_case(request, tmp_path_factory):
    """(case, golden arrays, model, its samples, its clips, its outputs)."""
    case = request.param
    # The reference resizes masks before the semantic inference in its RankSeg models (and in the
    # Mask2Former of the same code), whatever the key says; here the key is obeyed.
    key = "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE"
    options = {} if case.startswith("maskformer_v1") else {key: True}
    model = make_model(case, tmp_path_factory.mktemp(case), **options).eval()
    samples = eval_samples(case)
    with torch.no_grad():
        clips = model.preprocess(samples)
        features = model.backbone(clips.tensor)
        pixels = model.sem_seg_head.pixel_decoder(features)
        outputs = model.sem_seg_head(features, clips.num_frames)
        if model.ranks:
            outputs = replace(outputs, scores=model.score(outputs))
        outputs = model.decide(outputs)
    stages = {f"feat/{name}": value for name, value in features.items()}
    stages["pixdec/mask_features"] = pixels.mask_features
    stages |= {f"pixdec/multi_scale/{i}": value for i, value in enumerate(pixels.scales)}
    arrays = golden.load(f"golden_{case}.npz")
    return case, arrays, model, samples, clips, outputs, stages


def eval_samples(case):
    pictures = golden.inputs()
    if "video" in case:
        height, width = VIDEO_OUTPUT
        return [{"image": list(pictures["video_V"]), "height": height, "width": width}]
    return [
        {"image": pictures[f"image_{name}"], "height": height, "width": width}
        for name, (height, width) in IMAGES.items()
    ]


def as_stored(case, masks):
    """The reference's images have no frame axis: (B, Q, 1, h, w) -> (B, Q, h, w)."""
    return masks if "video" in case else masks[:, :, 0]


def test_features_and_pixel_decoder(eval_case):
    _, arrays, _, _, _, _, stages = eval_case
    compared = [name for name in stages if name in arrays]
    assert len(compared) >= 5
    for name in compared:
        assert arrays[name].diff(stages[name])[1] < STD, name


def test_masks_of_every_layer(eval_case):
    case, arrays, _, _, _, outputs, _ = eval_case
    assert arrays["pred_masks"].diff(as_stored(case, outputs.masks[-1]))[1] < STD
    for i, masks in enumerate(outputs.masks[:-1]):
        assert arrays[f"aux/{i}/pred_masks"].diff(as_stored(case, masks))[1] < STD, i


def test_class_logits_of_every_layer_before_the_ranking(eval_case):
    _, arrays, model, _, _, outputs, _ = eval_case
    # A ranking of every category in id order leaves the columns where they are.
    class_embed = model.sem_seg_head.predictor.class_embed
    if class_embed.bias is None:
        queries = nn.functional.normalize(outputs.queries, dim=-1)
        logits = queries @ nn.functional.normalize(class_embed.weight, dim=-1).T
    else:
        logits = class_embed(outputs.queries)
    assert arrays["pred_logits"].diff(logits[-1])[1] < STD
    for i, layer in enumerate(logits[:-1]):
        assert arrays[f"aux/{i}/pred_logits"].diff(layer)[1] < STD, i


def test_ranking_and_rank_adaptive_logits(eval_case):
    _, arrays, model, _, _, outputs, _ = eval_case
    if "img_pred" not in arrays:
        assert not hasattr(model, "ml_head")
        return
    with torch.no_grad():
        scores = model.score(outputs)
        ranking = model.ranker.rank(scores)
        logits = model.classify(outputs.queries[-1], ranking)
    assert arrays["img_pred"].diff(scores)[1] < STD
    assert np.array_equal(ranking.index, arrays["img_pred_rank_order"].values)
    assert arrays["ml_norm/final_out"].diff(logits)[1] < STD


def test_results(eval_case):
    case, arrays, model, samples, clips, outputs, _ = eval_case
    full = replace(model.result_options, full_scores=True)
    with torch.no_grad():
        model.result_options, kept = full, model.result_options
        results = results_of(model, outputs, samples, clips)
        model.result_options = kept
    for i, result in enumerate(results):
        labels = result["sem_seg_labels"].numpy()
        if "video" in case:
            assert labels.shape == (3, *VIDEO_OUTPUT)
            assert result["sem_seg"].argmax(0).eq(result["sem_seg_labels"]).float().mean() > 0.999
            continue
        assert arrays[f"sem_seg/{i}"].diff(result["sem_seg"])[1] < STD
        assert (labels == arrays[f"sem_seg/{i}/argmax"].values).mean() > 0.9999


def test_batch_of_two_equals_two_batches_of_one(eval_case):
    case, _, model, _, _, _, _ = eval_case
    samples = samples_of_one_size(case)
    together = masks_and_results(model, samples)
    alone = [masks_and_results(model, [sample]) for sample in samples]
    alone = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert ((one - other) / other.std()).abs().max() < 1e-6


def results_of(model, outputs, samples, clips):
    return [model.result(outputs, i, x) for i, x in enumerate(clips.result_sizes(samples))]


def samples_of_one_size(case):
    pictures = golden.inputs()
    names = ["video_V", "video_W"] if "video" in case else ["image_A", "image_B"]
    height, width = (min(pictures[name].shape[axis] for name in names) for axis in (-2, -1))
    pictures = [pictures[name][..., :height, :width] for name in names]
    return [{"image": list(picture) if "video" in case else picture} for picture in pictures]


@torch.no_grad()
def masks_and_results(model, samples):
    clips = model.preprocess(samples)
    outputs = model.decide(model.run_network(clips))
    results = results_of(model, outputs, samples, clips)
    scores = [result.get("sem_seg", result.get("sem_seg_scores")) for result in results]
    return outputs.masks[-1], torch.stack(scores)


def train_batch(case):
    """The two samples with their true objects, and the names that say which they are."""
    pictures = golden.inputs()
    if "video" not in case:
        return [
            {"image": pictures[f"image_{name}"], "instances": true_objects(name, pictures)}
            for name in IMAGES
        ]
    batch = []
    for name in ("V", "W"):
        frames = list(pictures[f"video_{name}"])
        objects = [true_objects(name, pictures, frame) for frame in range(len(frames))]
        batch.append({"image": frames, "instances": objects})
    return batch


def true_objects(name, pictures, frame=0):
    """Rectangles, moved by (4, 6) per frame; object 2 of V is absent from frame 1."""
    picture = pictures.get(f"image_{name}", pictures.get(f"video_{name}"))
    height, width = picture.shape[-2:]
    masks = torch.zeros(len(BOXES[name]), height, width, dtype=torch.bool)
    ids = torch.arange(len(BOXES[name]))
    for i, (y0, x0, y1, x1) in enumerate(BOXES[name]):
        if (name, i, frame) == ("V", 2, 1):
            ids[i] = -1
            continue
        masks[i, y0 + 4 * frame : y1 + 4 * frame, x0 + 6 * frame : x1 + 6 * frame] = True
    return Instances(
        (height, width), gt_classes=torch.tensor(LABELS[name]), gt_masks=masks, gt_ids=ids
    )


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


@pytest.fixture(scope="module", params=[case for case in CASES if "losses" in CASES[case]])
def train_case(request, tmp_path_factory):
    """(case, golden arrays, model after backward, its losses, its matches by layer)."""
    case = request.param
    model = make_model(case, tmp_path_factory.mktemp(case)).train()
    model.criterion.empty_weight.fill_(1.0)
    model.criterion.empty_weight[-1] = 0.1
    without_dropout(model)
    if model.criterion.num_points is not None:
        model.criterion.forward = partial(model.criterion.forward, points=grid_points(32))
    matches, match = [], model.criterion.matcher.__call__

    def remember(*args, **kwargs):
        matches.extend(match(*args, **kwargs))
        return matches

    model.criterion.matcher = remember
    losses = model(train_batch(case))
    sum(losses.values()).backward()
    return case, golden.load(f"golden_losses_{case}.npz"), model, losses, matches


def test_losses(train_case):
    case, _, _, losses, _ = train_case
    expected = CASES[case]["losses"]
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-3), name


def test_matches(train_case):
    case, arrays, _, _, matches = train_case
    margins = [*CASES[case]["match_margin_aux"], CASES[case]["match_margin_last"]]
    last = len(margins) - 1
    for layer, (images, margin) in enumerate(zip(matches, margins, strict=True)):
        for i, (queries, objects) in enumerate(images):
            if margin[i] < 1e-3:
                continue
            if layer == last:
                expected = [arrays[f"match/last/{i}/{part}"].values for part in ("src", "tgt")]
            else:
                expected = arrays[f"match/aux{layer}/{i}"].values
            assert sorted(zip(queries, objects, strict=True)) == sorted(
                zip(*expected, strict=True)
            ), (layer, i)


def test_gradient_norms(train_case):
    _, arrays, model, _, _ = train_case
    norms = {
        name: parameter.grad.double().norm().item()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    names = [name.decode() for name in arrays["grad/names"].values]
    expected = dict(zip(names, arrays["grad/norms"].values, strict=True))
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        assert norm == pytest.approx(expected[name], rel=1e-2, abs=1e-3), name
