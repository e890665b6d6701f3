import pytest

from rankseg_d2.modeling.transformer_decoder.annealing import check_annealing, masked_share


@pytest.mark.parametrize(
    "iteration, share",
    [(0, 1), (10, 1), (11, 0.9**0.9), (15, 0.5**0.9), (20, 0), (99, 0), (None, 0)],
)
def test_the_share_falls_from_one_to_none(iteration, share):
    assert masked_share(10, 20, iteration) == pytest.approx(share)


def test_a_schedule_may_begin_at_once():
    assert [masked_share(0, 2, i) for i in range(3)] == pytest.approx([1, 0.5**0.9, 0])


@pytest.mark.parametrize(
    "starts, ends, sentence",
    [
        ([1, 2], [3, 4], r"must have 3 iterations each, .* or none; got \[1, 2\] and \[3, 4\]"),
        ([1, 2, 3], [], r"must have 3 iterations each"),
        ([], [1, 2, 3], r"must have 3 iterations each"),
        ([1, 2, 3], [3, 4], r"got \[1, 2, 3\] and \[3, 4\]"),
        ([1, 2, 3], [2, 2, 4], r"MASK_END must be later than .*MASK_START .* got 2 after 2"),
    ],
)  # fmt: skip
def test_a_schedule_that_fits_no_blocks_is_refused(starts, ends, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_annealing(starts, ends, 3)
