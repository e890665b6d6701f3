import pytest
import torch
from support.sizes import Sizes
from torch import nn

from rankseg_d2.checkpoints import Rows, adapt
from rankseg_d2.ranking import GroupHead

ROWS = {"fc.W": Rows("classes", dim=1), "fc.b": Rows("classes", dim=1)}
ROWS |= {"fc.group": Rows("classes"), "group_emb": Rows("groups", dim=1)}


def make_head(categories, groups, **options):
    torch.manual_seed(0)
    return GroupHead(24, categories, 64, groups=groups, **options).eval()


@pytest.mark.parametrize(("categories", "groups"), [(7, 3), (12, 4), (5, 5), (9, 1)])
def test_a_category_is_scored_by_the_token_of_its_group(categories, groups):
    head, features = make_head(categories, groups), torch.randn(2, 9, 24)
    tokens = head.group_emb.expand(2, -1, -1)
    for layer in head.layers:
        tokens = layer(tokens, head.proj_dec(features))
    tokens = head.norm(tokens)
    sizes = torch.zeros(groups)
    expected = torch.empty(2, categories)
    for c in range(categories):
        group = c * groups // categories
        sizes[group] += 1
        expected[:, c] = tokens[:, group] @ head.fc.W[0, c] + head.fc.b[0, c]
    torch.testing.assert_close(head(features), expected, rtol=1e-5, atol=1e-5)
    assert sizes.max() == -(-categories // groups) and sizes.max() - sizes.min() <= 1


def test_without_a_number_there_are_100_groups_or_one_for_each_category():
    assert make_head(250, 0).group_emb.shape == (1, 100, 64)
    assert make_head(30, 0).group_emb.shape == (1, 30, 64)


def test_every_parameter_gets_a_gradient():
    head, features = make_head(7, 3), torch.randn(2, 9, 24, requires_grad=True)
    head(features).square().sum().backward()
    tensors = dict(head.named_parameters()) | {"features": features}
    assert [name for name, x in tensors.items() if x.grad is None or not x.grad.any()] == []
    assert head.no_weight_decay() == {"group_emb"} <= tensors.keys()


def test_a_checkpoint_for_other_classes_keeps_the_scores_of_those_with_the_same_name():
    names, own = list("abcdefghij"), ["new", *"jihca", "other"]
    old, head, features = make_head(10, 4), make_head(7, 4), torch.randn(2, 9, 24)
    nn.init.normal_(head.fc.W)
    found = adapt(old.state_dict(), head.state_dict(), names, own, ROWS)
    assert not found.refused
    head.load_state_dict(found.weights)
    before, after = old(features), head(features)
    for i, name in enumerate(own):
        if name in names:
            torch.testing.assert_close(after[:, i], before[:, names.index(name)])
    again = make_head(7, 4)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(features), after)


@pytest.mark.parametrize("groups", [2, 6])
def test_a_checkpoint_with_other_groups_can_be_loaded(groups):
    old, head = make_head(10, 4), make_head(10, groups)
    found = adapt(old.state_dict(), head.state_dict(), rows=ROWS)
    assert found.adapted["group_emb"] == f"{min(4, groups)} of {groups} groups (the file has 4)"
    head.load_state_dict(found.weights)
    features = torch.randn(2, 9, 24)
    scores = head(features)
    assert scores.shape == (2, 10) and scores.isfinite().all()
    assert torch.equal(head.fc.W, old.fc.W)


def test_no_tensor_has_channels_for_each_category_of_each_image():
    head, images = make_head(3000, 20), 4
    with torch.no_grad(), Sizes() as sizes:
        head(torch.randn(images, 9, 24))
    assert sizes.largest["float"] == 3000 * 64  # the weight


def test_the_head_can_be_planned_without_memory():
    with torch.device("meta"):
        head = GroupHead(24, 7, 64, groups=3)
    assert head.fc.W.is_meta and head.to_empty(device="cpu").fc.rows.shape == (3, 3)


def test_groups_beyond_the_categories_and_a_shared_embedding_are_refused():
    with pytest.raises(ValueError, match=r"groups must be in \[0, 7\], .* got 8"):
        make_head(7, 8)
    with pytest.raises(ValueError, match="group has a token for several categories"):
        make_head(7, 3, shared_dim=64)
