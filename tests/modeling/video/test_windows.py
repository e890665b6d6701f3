"""How videos are cut into windows."""

import math
import threading
from itertools import pairwise

import pytest
import torch
from support.small import MASK2FORMER, VIDEO, make_model, picture
from support.videos import Lazy

from rankseg_d2.modeling.video.windows import VideoWindows, plan, read, shared_frames


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 13, 40])
@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (5, 0), (5, 1), (5, 2), (5, 4), (12, 5)])
def test_every_frame_belongs_to_the_window_that_sees_it_farthest_from_its_border(
    num_frames, size, overlap
):
    windows = plan(num_frames, size, overlap)
    owners = [number for number, (_, own) in enumerate(windows) for _ in range(own.start, own.stop)]
    assert len(owners) == num_frames and set(owners) == set(range(len(windows)))
    assert all(seen.stop - seen.start == min(size, num_frames) for seen, _ in windows)
    for a, b in pairwise(windows):
        assert a.seen.stop - b.seen.start >= overlap
    last = len(windows) - 1

    def margin(frame, number):
        seen = windows[number].seen
        before = math.inf if number == 0 else frame - seen.start
        after = math.inf if number == last else seen.stop - 1 - frame
        return min(before, after) if seen.start <= frame < seen.stop else -1

    for frame, owner in enumerate(owners):
        neighbours = [n for n in (owner - 1, owner, owner + 1) if 0 <= n <= last]
        assert margin(frame, owner) == max(margin(frame, n) for n in neighbours)


def test_as_many_threads_as_workers_read_frames_at_once():
    barrier = threading.Barrier(3, timeout=60)

    class Frames(list):
        def __getitem__(self, index):
            barrier.wait()
            return super().__getitem__(index)

    assert list(read(Frames("abcdef"), plan(6, 3, 0), 3)) == [["a", "b", "c"], ["d", "e", "f"]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_of_reading_reach_the_caller(num_workers):
    class Frames(list):
        def __getitem__(self, index):
            if index == 4:
                raise OSError("frame 4 is broken")
            return super().__getitem__(index)

    windows = read(Frames("abcdef"), plan(6, 3, 0), num_workers)
    assert next(windows) == ["a", "b", "c"]
    with pytest.raises(OSError, match="frame 4 is broken"):
        next(windows)


def test_shared_frames_are_the_same_for_both_windows():
    windows = plan(14, 6, 2)
    frames = [list(range(seen.start, seen.stop)) for seen, _ in windows]
    for number, (a, b) in enumerate(pairwise(frames)):
        after = a[shared_frames(windows, number)[1]]
        assert after == b[shared_frames(windows, number + 1)[0]] == sorted({*a} & {*b})
    assert frames[0][shared_frames(windows, 0)[0]] == []
    assert frames[-1][shared_frames(windows, len(windows) - 1)[1]] == []


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_windows_are_read_with_every_frame_once(num_workers):
    frames = Lazy(range(13), size=(2, 2))
    windows = plan(13, 5, 2)
    stops = [*(seen.stop for seen, _ in windows), 13]
    windows_read = read(frames, windows, num_workers)
    for i, ((seen, _), found) in enumerate(zip(windows, windows_read, strict=True)):
        expected = [picture(number, (2, 2)) for number in range(13)[seen]]
        torch.testing.assert_close(found, expected)
        most = stops[i + 1] if num_workers else seen.stop  # at most one window ahead
        assert seen.stop <= len(frames.reads) <= most
    assert set(frames.reads.values()) == {1}


# Bad input


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"WINDOW": -1}, ValueError, r"TEST\.VIDEO\.WINDOW is a number of frames, .* but is -1"),
        (
            {"WINDOW": 5, "OVERLAP": 5},
            ValueError,
            r"TEST\.VIDEO\.OVERLAP must be .* less than TEST\.VIDEO\.WINDOW, 5, but is 5",
        ),
        ({"WINDOW": 5, "OVERLAP": -1}, ValueError, r"OVERLAP must be at least 0 .* but is -1"),
        (
            {"WINDOW": 5, "RANKING": "twopass"},
            KeyError,
            r"TEST\.VIDEO\.RANKING: 'twopass' is not known; the nearest names are two_pass",
        ),
        (
            {"WINDOW": 5, "LINK_THRESHOLD": 1.5},
            ValueError,
            r"TEST\.VIDEO\.LINK_THRESHOLD must be between 0 and 1, but is 1\.5",
        ),
        (
            {"WINDOW": 5, "LINK_PATIENCE": -1},
            ValueError,
            r"TEST\.VIDEO\.LINK_PATIENCE is a number of windows, at least 0, but is -1",
        ),
    ],
)
def test_keys_that_make_no_windows_are_refused(keys, error, message):
    with pytest.raises(error, match=message):
        make_model(MASK2FORMER, VIDEO, {f"TEST.VIDEO.{key}": value for key, value in keys.items()})


@pytest.mark.parametrize("semantic", [False, True])
def test_windows_make_no_panoptic_results(semantic):
    keys = {
        "TEST.VIDEO.WINDOW": 5,
        "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": semantic,
        "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": semantic,
    }
    with pytest.raises(ValueError, match=r"PANOPTIC_ON False and SEMANTIC_ON or INSTANCE_ON True"):
        make_model(MASK2FORMER, VIDEO, keys)


def test_keys_reach_the_model():
    keys = {"WINDOW": 6, "OVERLAP": 2, "RANKING": "two_pass", "LINK_THRESHOLD": 0.3}
    keys = {f"TEST.VIDEO.{key}": value for key, value in keys.items()}
    model = make_model(MASK2FORMER, VIDEO, keys, {"DATALOADER.NUM_WORKERS": 2})
    assert model.windows == VideoWindows(6, 2, "two_pass", 0.3, 3, num_workers=2)
    assert make_model(MASK2FORMER, VIDEO).windows is None
