import math

import numpy as np
import pytest
import torch
from support.paths import GOLDEN as FILES

from rankseg_d2.position_encoding import (
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
