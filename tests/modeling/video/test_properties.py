"""What holds for the windows of any video or image, drawn by hypothesis."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_d2.modeling.clips import window_slices
from rankseg_d2.modeling.video.windows import plan, read, shared_frames

properties = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def plans(draw):
    frames, size = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    return frames, size, draw(st.integers(0, size - 1))


@properties
@given(plans())
def test_each_frame_is_one_windows_own_and_seen_by_it(drawn):
    frames, size, overlap = drawn
    windows = plan(frames, size, overlap)
    own = [frame for window in windows for frame in range(window.own.start, window.own.stop)]
    assert own == list(range(frames))
    for window in windows:
        assert window.seen.start <= window.own.start < window.own.stop <= window.seen.stop
        assert window.seen.stop - window.seen.start == min(size, frames)
    for a, b in pairwise(windows):
        assert a.seen.start < b.seen.start and a.seen.stop - b.seen.start >= overlap
        assert a.seen.stop < b.seen.stop


@properties
@given(plans())
def test_windows_agree_on_the_frames_that_they_share(drawn):
    windows = plan(*drawn)
    for number, (a, b) in enumerate(pairwise(windows)):
        seen = [range(window.seen.start, window.seen.stop) for window in (a, b)]
        tail = seen[0][shared_frames(windows, number)[1]]
        head = seen[1][shared_frames(windows, number + 1)[0]]
        assert list(tail) == list(head) == sorted(set(seen[0]) & set(seen[1]))


@properties
@given(plans(), st.integers(0, 2))
def test_each_frame_is_read_once_and_in_order(drawn, workers):
    class Frames(list):
        reads = []

        def __getitem__(self, index):
            Frames.reads.append(index)
            return super().__getitem__(index)

    Frames.reads = []
    frames, windows = Frames(range(drawn[0])), plan(*drawn)
    for window, found in zip(windows, read(frames, windows, workers), strict=True):
        assert found == list(range(window.seen.start, window.seen.stop))
    assert sorted(Frames.reads) == list(range(drawn[0]))


@properties
@given(st.integers(1, 300), st.integers(1, 120), st.data())
def test_sliding_windows_cover_a_side_without_gaps(length, size, data):
    stride = data.draw(st.integers(1, size))
    windows = window_slices(length, size, stride)
    assert windows[0].start == 0 and windows[-1].stop == length
    assert {window.stop - window.start for window in windows} == {min(size, length)}
    for a, b in pairwise(windows):
        assert 0 < b.start - a.start <= stride and b.start <= a.stop
