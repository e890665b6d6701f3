import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rankseg_d2.ranking.heads import ClassBlock
from rankseg_d2.transformer_block import Block, feed_forward


def tokens(count, seed=0):
    return torch.randn(2, count, 8, generator=torch.Generator().manual_seed(seed))


def test_class_tokens_are_those_of_the_block_over_both():
    torch.manual_seed(0)
    block, features, classes = ClassBlock(8, 2).eval(), tokens(6), tokens(3, 1)
    both = block(torch.cat([features, classes], dim=1))
    assert block.tokens(classes, features).allclose(both[:, 6:], atol=1e-6)
    shared = block.tokens(classes[:1], features)
    alone = block(torch.cat([features, classes[:1].expand(2, -1, -1)], dim=1))
    assert shared.allclose(alone[:, 6:], atol=1e-6)


def test_no_token_reads_an_invalid_one():
    torch.manual_seed(0)
    block, x = Block(8, 2).eval(), tokens(5)
    valid = torch.tensor([[True, True, True, False, True], [True, False, True, True, True]])
    changed = x.masked_fill(~valid[..., None], 100.0)
    assert block(x, valid)[valid].equal(block(changed, valid)[valid])
    assert block(x, torch.ones_like(valid)).allclose(block(x), atol=1e-6)
    without = block(x[:1, [0, 1, 2, 4]])
    assert block(x[:1], valid[:1])[:, [0, 1, 2, 4]].allclose(without, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1500), (1, 3, 40, 50), (1024,), (0,)])
def test_tokens_in_parts_give_what_all_give_at_once(shape):
    torch.manual_seed(0)
    first, second, dropout = nn.Linear(8, 16), nn.Linear(16, 8), nn.Dropout(0.5).eval()
    x = torch.randn(*shape, 8)
    expected = feed_forward(x, first, F.relu, dropout, second)  # with a gradient: at once
    assert expected.requires_grad
    with torch.no_grad():
        assert feed_forward(x, first, F.relu, dropout, second).allclose(expected, atol=1e-6)


def test_heads_must_share_the_channels():
    with pytest.raises(ValueError, match="3 heads of attention cannot share 8 channels"):
        Block(8, 3)
