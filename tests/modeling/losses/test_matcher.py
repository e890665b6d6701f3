
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.paths import GOLDEN as FILES

from rankseg_d2.modeling.losses import matcher as module
from rankseg_d2.modeling.losses.matcher import (
    HungarianMatcher,
    pairwise_dice,
    pairwise_sigmoid_ce,
    pairwise_sigmoid_focal,
)
from rankseg_d2.modeling.losses.points import grid_points

GOLDEN = {
    name: torch.from_numpy(array)
    for name, array in np.load(FILES / "set_loss_units.npz").items()
}
# The objects of the golden case: two images of 96 x 128, rectangles (y0, x0, y1, x1) that move by
# (3, 4) from one of 3 frames to the next.
LABELS = [[3, 0, 15, 3], [7, 8, 1]]
RECTANGLES = [
    [(3, 5, 50, 70), (40, 10, 90, 60), (0, 64, 96, 128), (60, 60, 80, 120)],
    [(10, 10, 40, 40), (30, 50, 90, 128), (0, 0, 96, 20)],
]
MATCHERS = {
    "image": HungarianMatcher(2.0, 5.0, 5.0, num_points=1024),
    "video": HungarianMatcher(2.0, 5.0, 5.0, num_points=1024),
    "v1": HungarianMatcher(1.0, 20.0, 1.0, num_points=None),
}


def golden_targets(frames):
    targets = []
    for labels, rectangles in zip(LABELS, RECTANGLES, strict=True):
        masks = torch.zeros(len(labels), frames, 96, 128, dtype=torch.bool)
        for n, (y0, x0, y1, x1) in enumerate(rectangles):
            for t in range(frames):
                masks[n, t, y0 + 3 * t : y1 + 3 * t, x0 + 4 * t : x1 + 4 * t] = True
        targets.append({"labels": torch.tensor(labels), "masks": masks})
    return targets


def golden_predictions(case):
    frames = 3 if case == "video" else 1
    masks = GOLDEN["matcher/pred_masks"][:, :, :frames]
    return GOLDEN["matcher/pred_logits"][None], [masks], golden_targets(frames)


@pytest.mark.parametrize("case", MATCHERS)
def test_golden_costs(case):
    costs = sum(MATCHERS[case].costs(*golden_predictions(case), points=grid_points(32)).values())
    for image, labels in enumerate(LABELS):
        expected = GOLDEN[f"matcher/{case}/{image}/cost"]
        ours = costs[0, image, :, : len(labels)]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", MATCHERS)
def test_golden_assignments(case):
    matches = MATCHERS[case](*golden_predictions(case), points=grid_points(32))
    for image in range(2):
        expected = GOLDEN[f"matcher/{case}/{image}/assign"]
        np.testing.assert_array_equal(np.stack(matches[0][image]), expected)


def test_golden_pairwise_losses():
    logits = GOLDEN["mask_loss/logits"]
    targets = GOLDEN["mask_loss/target_pairwise"].float()

    def close(ours, name):
        torch.testing.assert_close(ours, GOLDEN[f"mask_loss/{name}"], rtol=0, atol=2e-6)

    close(pairwise_sigmoid_ce(logits, targets), "batch_sigmoid_ce_loss")
    close(pairwise_dice(logits, targets), "batch_dice_loss")
    close(pairwise_sigmoid_focal(logits, targets), "v1_batch_sigmoid_focal_loss")


def test_pairwise_cross_entropy_is_exact_for_large_logits():
    logits = torch.tensor([[-90.0, -30, -1e-3, 0, 1e-3, 30, 90]], dtype=torch.float64)
    targets = torch.rand(3, 7, dtype=torch.float64)
    expected = [
        F.binary_cross_entropy_with_logits(logits[0], target).item() for target in targets
    ]
    assert pairwise_sigmoid_ce(logits, targets)[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert pairwise_sigmoid_ce(logits.float(), targets.float())[0].tolist() == pytest.approx(
        expected, rel=1e-6
    )


def random_batch(layers=3, queries=8, counts=(3, 0, 5), frames=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, len(counts), queries, 7, generator=random)
    masks = torch.randn(layers, len(counts), queries, frames, 6, 9, generator=random) * 3
    targets = [
        {
            "labels": torch.randint(6, (n,), generator=random),
            "masks": torch.rand(n, frames, 24, 36, generator=random) > 0.5,
        }
        for n in counts
    ]
    return logits, list(masks), targets


@pytest.mark.parametrize("num_points", [50, None])
def test_layers_and_images_together_equal_each_alone(num_points, monkeypatch):
    matcher = HungarianMatcher(2.0, 5.0, 5.0, num_points)
    logits, masks, targets = random_batch()
    points = torch.rand(50, 2)
    together = matcher(logits, masks, targets, points)
    monkeypatch.setattr(module, "CPU_CHUNK", 1)  # one image at a time
    for layer in range(3):
        for image in range(3):
            alone = matcher(
                logits[layer : layer + 1, image : image + 1],
                [masks[layer][image : image + 1]],
                targets[image : image + 1],
                points,
            )
            np.testing.assert_array_equal(np.stack(alone[0][0]), np.stack(together[layer][image]))
    assert [len(queries) for queries, _ in together[0]] == [3, 0, 5]
    by_chunks = matcher(logits, masks, targets, points)
    np.testing.assert_array_equal(by_chunks[2][2], together[2][2])


def test_perfect_predictions_find_their_objects():
    _, _, targets = random_batch(counts=(4,), queries=6)
    order = [5, 0, 3, 2]
    masks = torch.full((1, 6, 2, 24, 36), -10.0)
    logits = torch.zeros(1, 1, 6, 7)
    for n, query in enumerate(order):
        masks[0, query][targets[0]["masks"][n]] = 10.0
        logits[0, 0, query, targets[0]["labels"][n]] = 5
    queries, objects = HungarianMatcher(2.0, 5.0, 5.0, 200)(logits, [masks], targets)[0][0]
    assert dict(zip(objects.tolist(), queries.tolist(), strict=True)) == dict(enumerate(order))


def test_more_objects_than_queries_match_each_query_once():
    queries, objects = HungarianMatcher(1.0, 1.0, 1.0, 20)(*random_batch(1, 4, (9,)))[0][0]
    assert queries.tolist() == [0, 1, 2, 3]
    assert len(set(objects.tolist())) == 4


@pytest.mark.parametrize("num_points", [20, None])
def test_a_batch_without_any_object_matches_nothing(num_points):
    matches = HungarianMatcher(1.0, 1.0, 1.0, num_points)(*random_batch(2, 4, (0, 0)))
    assert [len(pairs[0]) for layer in matches for pairs in layer] == [0] * 4


def test_half_predictions_are_compared_in_float32():
    logits, masks, targets = random_batch()
    points = torch.rand(50, 2)
    masks = [layer.bfloat16() for layer in masks]
    matcher = HungarianMatcher(2.0, 5.0, 5.0, 50)
    with torch.autocast("cpu", torch.bfloat16):
        low = matcher.costs(logits.bfloat16(), masks, targets, points)
    full = matcher.costs(
        logits.bfloat16().float(), [layer.float() for layer in masks], targets, points
    )
    for name, costs in low.items():
        assert costs.dtype == torch.float32
        torch.testing.assert_close(costs, full[name])


@pytest.mark.parametrize(
    ("term", "layer", "losses"),
    [
        ("class", 2, "loss_ce are"),
        ("class", 1, "loss_ce_1 are"),
        ("mask", 2, "loss_mask and loss_dice are"),
        ("mask", 0, "loss_mask_0 and loss_dice_0 are"),
    ],
)
def test_costs_that_are_not_finite_name_the_image_and_the_losses(term, layer, losses):
    logits, masks, targets = random_batch()
    targets[2]["file_name"] = "street/42.jpg"
    spoilt = logits[layer] if term == "class" else masks[layer]
    spoilt[2, 4] = torch.nan
    message = rf"image 2 of the batch \(street/42\.jpg\): .* costs of {losses} not finite"
    with pytest.raises(RuntimeError, match=message):
        HungarianMatcher(2.0, 5.0, 5.0, 50)(logits, masks, targets)


def test_predictions_of_an_image_without_objects_may_be_not_finite():
    logits, masks, targets = random_batch()
    masks[0][1] = torch.nan
    assert len(HungarianMatcher(2.0, 5.0, 5.0, 50)(logits, masks, targets)) == 3
