"""What a graph of torch.export has in place of the operation gives the reference's numbers."""

import pytest
import torch
from torch import nn

from rankseg_d2.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from rankseg_d2.ops.ms_deform_attn.exported import Exported
from rankseg_d2.ops.ms_deform_attn.reference import FusedInputs, Reference

SHAPES = ((3, 5), (6, 4))


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    value, points, offsets, logits = (
        torch.randn(size, generator=generator)
        for size in ((2, 39, 2, 4), (2, 7, 2, 2), (2, 7, 2, 2, 3, 2), (2, 7, 2, 2, 3))
    )
    return FusedInputs(value, SHAPES, points.sigmoid(), 2 * offsets, logits)  # some lie outside


def test_it_equals_the_reference(inputs):
    wanted = Reference().run(inputs)
    torch.testing.assert_close(Exported().run(inputs), wanted)
    torch.testing.assert_close(Exported().run(inputs.unfused()), wanted)


def test_a_graph_has_plain_operations_only(inputs):
    class Both(nn.Module):
        def forward(self, value, points, offsets, logits, locations, weights):
            fused = ms_deform_attn_fused(value, SHAPES, points, offsets, logits)
            return fused, ms_deform_attn(value, SHAPES, locations, weights)

    value, _, *more = inputs
    _, _, *unfused = inputs.unfused()
    tensors = (value, *more, *unfused)
    program = torch.export.export(Both(), tensors, strict=False)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if not name.startswith(("aten.", "<built-in"))]
    for found, wanted in zip(program.module()(*tensors), Both()(*tensors), strict=True):
        torch.testing.assert_close(found, wanted)
