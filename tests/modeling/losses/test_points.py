
import numpy as np
import pytest
import torch
from support.paths import GOLDEN as FILES

from rankseg_d2.modeling.losses.points import (
    choose_points,
    draw_pool,
    grid_points,
    pad_to_common_size,
    point_sample,
    sample_targets,
)

GOLDEN = np.load(FILES / "set_loss_units.npz")


def test_golden_samples():
    maps = torch.from_numpy(GOLDEN["point_sample/input"])
    points = torch.from_numpy(GOLDEN["point_sample/coords"])
    expected = torch.from_numpy(GOLDEN["point_sample/output"])
    for channel in range(maps.shape[1]):
        torch.testing.assert_close(
            point_sample(maps[:, channel], points), expected[:, channel], rtol=0, atol=1e-6
        )


def test_cell_centres_return_the_map_itself():
    maps = torch.randn(6, 5, 5)
    torch.testing.assert_close(point_sample(maps, grid_points(5)), maps.flatten(1))


def test_shared_points_equal_the_same_points_for_each_map():
    maps, points = torch.randn(3, 4, 6), torch.rand(7, 2)
    each = point_sample(maps, points.expand(3, -1, -1).clone())
    torch.testing.assert_close(point_sample(maps, points), each)


def test_points_half_a_cell_outside_fade_to_zero():
    ones = torch.ones(1, 4, 4)
    points = torch.tensor([[0.0, 0.5], [-0.125, 0.5], [0.5, 1.2], [0.0, 0.0]])
    assert point_sample(ones, points).flatten().tolist() == pytest.approx([0.5, 0, 0, 0.25])


def test_targets_of_different_sizes_are_padded_right_and_below():
    small, large = torch.ones(2, 1, 2, 4, dtype=torch.bool), torch.ones(1, 1, 4, 8).bool()
    padded = pad_to_common_size([small, large])
    assert [tuple(masks.shape) for masks in padded] == [(2, 1, 4, 8), (1, 1, 4, 8)]
    assert padded[0][0, 0].nonzero().amax(0).tolist() == [1, 3]
    values = sample_targets([small, large], torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.8]]))
    assert values[:, 0].tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]


def test_images_without_objects_have_no_target_values():
    values = sample_targets([torch.zeros(0, 2, 4, 4).bool()], torch.rand(5, 2))
    assert values.shape == (0, 2, 5)


def test_pool_holds_candidates_and_unseen_points():
    torch.manual_seed(0)
    pool = draw_pool(100, oversample_ratio=3.0, importance_ratio=0.75, device="cpu")
    assert pool.shape == (300 + 25, 2)
    assert pool.min() >= 0 and pool.max() <= 1
    assert draw_pool(100, 3.0, 0.0, "cpu").shape == (100, 2)
    assert draw_pool(100, 3.0, 1.0, "cpu").shape == (300, 2)


def test_each_map_gets_its_least_certain_candidates_and_all_unseen_points():
    torch.manual_seed(0)
    maps = torch.randn(3, 8, 8)
    pool = draw_pool(40, 3.0, 0.75, "cpu")
    index = choose_points(maps, pool, 40, 0.75)
    certainty = point_sample(maps, pool[:120]).abs()
    for own, chosen in zip(certainty, index, strict=True):
        assert sorted(chosen[:30].tolist()) == sorted(own.argsort()[:30].tolist())
        assert chosen[30:].tolist() == list(range(120, 130))


def test_points_gather_at_the_border_of_a_mask():
    ramp = torch.linspace(-8, 8, 64).expand(1, 64, 64)  # logit 0 at x = 0.5
    torch.manual_seed(0)
    pool = draw_pool(1000, 3.0, 0.75, "cpu")
    x = pool[choose_points(ramp, pool, 1000, 0.75)[0]][:, 0]
    # The 750 nearest of 3,000 lie within a quarter of the width (but for a few at the upper and
    # lower edges, where the logits fade to zero), the 250 others anywhere.
    assert ((x[:750] - 0.5).abs() < 0.14).float().mean() > 0.97
    assert (x[750:] - 0.5).abs().max() > 0.45


def test_no_importance_means_plain_random_points():
    pool = draw_pool(10, 3.0, 0.0, "cpu")
    index = choose_points(torch.randn(2, 4, 4), pool, 10, 0.0)
    assert index.tolist() == [list(range(10))] * 2
