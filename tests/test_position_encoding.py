import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import brentq
from support.paths import GOLDEN as FILES

from rankseg_d2.position_encoding import (
    resize_offsets,
    sine_encoding_2d,
    sine_encoding_3d,
    sine_position,
)

GOLDEN = np.load(FILES / "set_loss_units.npz")


def close(ours, name):
    torch.testing.assert_close(ours, torch.from_numpy(GOLDEN[name]), rtol=0, atol=2e-6)


def test_golden_plane():
    close(sine_encoding_2d((7, 9), 128), "pos2d/norm_128_7x9")
    close(sine_encoding_2d((5, 4), 16, normalize=False), "pos2d/unnorm_16_5x4")


def test_golden_plane_with_padding():
    padding = torch.zeros(1, 7, 9, dtype=torch.bool)
    padding[:, 6:] = padding[:, :, 7:] = True
    close(sine_encoding_2d((7, 9), 16, padding=padding), "pos2d/norm_16_7x9_masked")


def test_golden_plane_and_time():
    close(sine_encoding_3d((3, 5, 6), 128), "pos3d/norm_128_t3_5x6")
    close(sine_encoding_3d((1, 2, 3), 16), "pos3d/norm_16_t1_2x3")


def test_one_cell_by_hand():
    """Row 2 of 4, wave pair 1 of 8 features: angle = 2/4 * 2 pi / 10000^(2/8)."""
    angle = math.pi / 10000**0.25
    encoding = sine_encoding_2d((4, 1), 8)[0, :, 1, 0]
    assert encoding[2].item() == pytest.approx(math.sin(angle), abs=1e-5)
    assert encoding[3].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_frame_alone_is_an_image_and_frames_differ_by_time_only():
    image = sine_encoding_2d((4, 5), 16)[0]  # (32, 4, 5)
    torch.testing.assert_close(sine_position((1, 4, 5), 32)[0], image.permute(1, 2, 0))
    clip = sine_position((3, 4, 5), 32)  # (3, 4, 5, 32)
    time = clip - image.permute(1, 2, 0)
    torch.testing.assert_close(time, time[:, :1, :1].expand_as(time))
    assert (time[0] - time[1]).abs().max() > 0.1


def spline_resized(table, grid):
    """The same by FITPACK's bicubic spline, with places from a root of the geometric sum."""
    side = math.isqrt(len(table))
    places, at = [], []
    for new in (2 * length - 1 for length in grid):
        count, last = side // 2, new // 2

        def beyond(q, count=count, last=last):
            return sum(q**i for i in range(count)) - last

        ratio = brentq(beyond, 1.01, 50) if beyond(1.01) < 0 else 1.01
        steps = np.cumsum([ratio**i for i in range(count)])
        places.append([*-steps[::-1], 0, *steps])
        at.append(np.arange(-last, last + 1))
    columns = [
        RectBivariateSpline(*places, column.reshape(side, side))(*at).ravel()
        for column in table.numpy().T
    ]
    return torch.from_numpy(np.stack(columns, axis=1))


@pytest.mark.parametrize(
    ("old", "new"), [(14, (40, 40)), (14, (32, 32)), (4, (8, 12)), (14, (14, 30)), (20, (7, 9))]
)
def test_offsets_are_resized_by_a_cubic_spline_over_a_geometric_progression(old, new):
    torch.manual_seed(0)
    table = torch.randn((2 * old - 1) ** 2 + 3, 4, dtype=torch.float64)
    found = resize_offsets(table, new, others=3)
    assert found.shape == ((2 * new[0] - 1) * (2 * new[1] - 1) + 3, 4)
    assert found[-3:].equal(table[-3:])
    torch.testing.assert_close(found[:-3], spline_resized(table[:-3], new), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("old", "new"), [(1, (3, 4)), (2, (1, 5)), (2, (1, 1)), (5, (1, 2))])
def test_offsets_of_the_smallest_grids_are_resized(old, new):
    table = torch.full(((2 * old - 1) ** 2, 3), 2.5)
    found = resize_offsets(table, new)
    assert found.shape == ((2 * new[0] - 1) * (2 * new[1] - 1), 3)
    torch.testing.assert_close(found, torch.full_like(found, 2.5))


@pytest.mark.parametrize("count", [7, 4, 15])
def test_offsets_of_no_square_grid_are_an_error(count):
    with pytest.raises(ValueError, match=f"its {count} offsets are not those of a square grid"):
        resize_offsets(torch.zeros(count, 2), (3, 3))
