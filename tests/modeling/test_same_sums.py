"""Gradients are summed in one order: two trainings on a CPU with the same threads are equal."""

import pytest
from support import pixel_families, small

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
