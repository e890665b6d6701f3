import pytest
import torch

from rankseg_d2.modeling.results.best import best_index


@pytest.mark.parametrize("count", [1, 2, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("by_pixel", [False, True])
def test_it_is_the_first_of_the_highest(count, dtype, by_pixel):
    generator = torch.Generator().manual_seed(count)
    maps = torch.randint(5, (count, 3, 7), generator=generator).to(dtype)  # with equal ones
    maps = maps.transpose(1, 2).requires_grad_()  # not contiguous
    if by_pixel:  # the values of a pixel are neighbours in memory
        maps = maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    before = maps.detach().clone()
    found = best_index(maps)
    assert found.dtype == torch.int64 and maps.equal(before)
    for y in range(7):
        for x in range(3):
            values = before[:, y, x].tolist()
            assert found[y, x] == values.index(max(values))


def test_low_and_infinite_values_can_win():
    maps = torch.tensor([[-torch.inf, -1e4], [-torch.inf, -2e4], [-100.0, torch.inf]])
    assert best_index(maps).tolist() == [2, 2]
