"""Gradients are summed in one order: two trainings on a CPU with the same threads are equal."""

import pytest
import torch
from support import pixel_families, small

from rankseg_d2.modeling.attention import relative_bias
from rankseg_d2.modeling.backbone.swin import relative_position_index
from rankseg_d2.ranking import Ranking, restrict_embeddings

# PyTorch's CPU kernels of their backward passes add by atomics, in the order in which threads come.
UNORDERED = {"IndexBackward0", "TakeBackward0", "IndexPutBackward0", "PutBackward0"}
MASKS = {
    f"{kind}{video}{ranked}": keys | more | other
    for kind, keys in small.KINDS.items()
    for video, more in (("", {}), (" video", small.VIDEO))
    for ranked, other in (("", {}), (" RankSeg", small.RANKSEG))
}


def names_of_nodes(losses):
    """The operations that the backward pass of a training step runs."""
    waiting, seen = [loss.grad_fn for loss in losses.values()], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return {node.name() for node in seen}


@pytest.mark.parametrize("keys", MASKS.values(), ids=MASKS)
def test_mask_models_have_gradients_of_one_order(keys):
    model = small.make_model(keys).train()
    losses = model([small.make_sample(model, number) for number in range(2)])
    assert not names_of_nodes(losses) & UNORDERED


@pytest.mark.parametrize("keys", pixel_families.variants().values(), ids=pixel_families.variants())
def test_pixel_classifiers_have_gradients_of_one_order(keys):
    model = pixel_families.make_model(keys).train()
    losses = model([pixel_families.sample(number) for number in range(2)])
    assert not names_of_nodes(losses) & UNORDERED


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def chosen_embeddings(generator):
    """A class table, and its rows for 8 images of which each has 300 of 301 classes."""
    scores = torch.rand(8, 301, generator=generator)
    ranking = Ranking(scores, scores.argsort(dim=1)[:, :300])
    return torch.randn(301, 128, generator=generator), lambda x: restrict_embeddings(x, ranking)


def window_bias(generator):
    index = relative_position_index(12)
    return torch.randn(23**2, 48, generator=generator), lambda x: relative_bias(x, index)


@pytest.mark.parametrize("make", [chosen_embeddings, window_bias])
def test_rows_have_the_same_gradient_each_time(two_threads, make):
    generator = torch.Generator().manual_seed(0)
    table, rows_of = make(generator)
    table.requires_grad_()
    rows = rows_of(table)
    weights = torch.randn(rows.shape, generator=generator)
    first, *others = (
        torch.autograd.grad(rows, table, weights, retain_graph=True)[0] for _ in range(60)
    )
    assert all(map(first.equal, others))
    one = torch.eye(len(table), dtype=torch.float64)  # rows of the table as a matrix product
    matrix = rows_of(one).permute(1, 2, 0) if make is window_bias else rows_of(one)
    sides = weights.permute(1, 2, 0) if make is window_bias else weights
    expected = matrix.flatten(0, 1).T @ sides.flatten(0, 1).double()
    torch.testing.assert_close(first.double(), expected, rtol=1e-4, atol=1e-4)
