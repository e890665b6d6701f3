"""Averages over cells by products are those of PyTorch."""

import pytest
import torch
from torch.nn import functional as F

from rankseg_d2.modeling.pooling import average_by_products, average_cells


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (2, 9), (1, 1)])
@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_products_give_the_averages_of_cells(size, cells):
    x = torch.randn(2, 3, *size)
    wanted = F.adaptive_avg_pool2d(x, cells)
    torch.testing.assert_close(average_by_products(x, cells), wanted)
    assert torch.equal(average_cells(x, cells), wanted)


def test_a_graph_has_no_pooling():
    class Pool(torch.nn.Module):
        def forward(self, x):
            return average_cells(x, 2)

    sides = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.export.export(
        Pool(), (torch.randn(2, 3, 4, 6),), dynamic_shapes={"x": sides}, strict=False
    )
    assert "adaptive" not in str(program.graph)
    x = torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(program.module()(x), F.adaptive_avg_pool2d(x, 2))
