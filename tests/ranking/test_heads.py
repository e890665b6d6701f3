import hashlib

import numpy as np
import pytest
import torch
from support.paths import GOLDEN as DATA
from torch import nn

from rankseg_d2.checkpoints import Rows, adapt
from rankseg_d2.ranking import (
    HEADS,
    LOW_LOGIT,
    EncoderHead,
    RankNorm,
    cosine_logits,
    rank,
    rank_from_labels,
    restrict,
    spread,
)
from rankseg_d2.ranking.heads import ConvPoolingHead

ALONE = [name for name in HEADS if name != "block"]  # a part of Segmenter's decoder
WITH_TOKENS = [name for name in ALONE if name not in ("conv_pooling", "group")]


def weight_by_name(name, shape, variant="spec"):
    """The golden data's rule: every weight follows from its name and shape."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % 2**63
    r = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) >= 2:
        return r / (r.numel() / shape[0]) ** 0.5
    if name.endswith("weight"):
        return (4 if variant == "div" and name == "ml_norm.weight" else 1) * (1 + 0.1 * r)
    return 0.1 * r


def fill(module, prefix, variant="spec"):
    state = module.state_dict()
    filled = {k: weight_by_name(prefix + k, v.shape, variant) for k, v in state.items()}
    module.load_state_dict(filled)
    return module.eval()


def checkpoint_shapes(C, D, own_tokens):
    """Names and shapes of ml_head.* in the public checkpoints (C 40, 124 or 150)."""
    shapes = {
        "block.attn.qkv.weight": (3 * D, D),
        "block.attn.qkv.bias": (3 * D,),
        "block.attn.proj.weight": (D, D),
        "block.attn.proj.bias": (D,),
        "block.mlp.fc1.weight": (4 * D, D),
        "block.mlp.fc1.bias": (4 * D,),
        "block.mlp.fc2.weight": (D, 4 * D),
        "block.mlp.fc2.bias": (D,),
        "fc.W": (1, C, D),
        "fc.b": (1, C),
        "proj_dec.weight": (D, 256),
        "proj_dec.bias": (D,),
    }
    for norm in ("block.norm1", "block.norm2", "norm"):
        shapes |= {f"{norm}.weight": (D,), f"{norm}.bias": (D,)}
    return shapes | ({"cls_emb": (1, C, D)} if own_tokens else {})


@pytest.mark.parametrize(
    ("C", "D", "shared_dim"), [(150, 512, None), (124, 512, None), (40, 512, None), (150, 256, 256)]
)
def test_encoder_head_has_the_names_and_shapes_of_public_checkpoints(C, D, shared_dim):
    head = EncoderHead(256, C, D, shared_dim=shared_dim)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == checkpoint_shapes(C, D, shared_dim is None)


@pytest.mark.parametrize("case", ["rankseg_swinb_like_sem", "video_rankseg_r50_vspw"])
def test_encoder_head_follows_golden_scores(case):
    # The file holds the mean query, which differs from the queries by 1 to 2 % of their deviation.
    # A wrong LayerNorm eps, activation or number of heads is off by ten times that.
    golden = np.load(DATA / "ranking_heads.npz")
    features, expected = (torch.from_numpy(golden[f"{case}/{k}"]) for k in ("features", "scores"))
    head = fill(EncoderHead(256, expected.shape[1]), "ml_head.")
    with torch.no_grad():
        scores = head(features.expand(-1, 100, -1))
    assert (scores - expected).abs().max() < 0.04 * expected.std()


def test_encoder_head_equals_torchs_encoder_layer_over_features_and_tokens():
    head = EncoderHead(24, 7, 128).eval()
    block = nn.TransformerEncoderLayer(128, 2, 512, 0.1, "gelu", batch_first=True, norm_first=True)
    ours = head.block.state_dict()
    theirs = {
        "self_attn.in_proj_weight": ours["attn.qkv.weight"],
        "self_attn.in_proj_bias": ours["attn.qkv.bias"],
        "self_attn.out_proj.weight": ours["attn.proj.weight"],
        "self_attn.out_proj.bias": ours["attn.proj.bias"],
        "linear1.weight": ours["mlp.fc1.weight"],
        "linear1.bias": ours["mlp.fc1.bias"],
        "linear2.weight": ours["mlp.fc2.weight"],
        "linear2.bias": ours["mlp.fc2.bias"],
    }
    block.load_state_dict(theirs | {k: v for k, v in ours.items() if k.startswith("norm")})
    features = torch.randn(3, 10, 24)
    tokens = torch.cat([head.proj_dec(features), head.cls_emb.expand(3, -1, -1)], dim=1)
    tokens = head.norm(block.eval()(tokens)[:, 10:])
    expected = torch.einsum("bcd,cd->bc", tokens, head.fc.W[0]) + head.fc.b
    torch.testing.assert_close(head(features), expected, rtol=1e-5, atol=1e-5)


def test_initialisation_follows_the_paper():
    torch.manual_seed(0)
    head = EncoderHead(256, 150)
    assert head.cls_emb.std().item() == pytest.approx(0.02, rel=0.02)
    for parameter in (head.fc.W, head.fc.b):
        assert parameter.abs().max() <= 512**-0.5
    assert head.fc.W.std().item() == pytest.approx((3 * 512) ** -0.5, rel=0.02)


@pytest.mark.parametrize("name", WITH_TOKENS)
@pytest.mark.parametrize("shared_dim", [None, 64, 48])
def test_every_parameter_and_the_shared_embedding_get_a_gradient(name, shared_dim):
    head = HEADS[name](24, 7, 64, shared_dim=shared_dim)
    embedding = None if shared_dim is None else torch.randn(7, shared_dim, requires_grad=True)
    features = torch.randn(2, 9, 24, requires_grad=True)
    scores = head(features, embedding)
    assert scores.shape == (2, 7)
    scores.square().sum().backward()
    inputs = {"features": features} | ({} if embedding is None else {"embedding": embedding})
    for label, tensor in [*head.named_parameters(), *inputs.items()]:
        assert tensor.grad is not None, label
        assert tensor.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", ALONE)
def test_batches_of_any_size_give_the_same_scores(name):
    head = HEADS[name](24, 7, 64).eval()
    features = torch.randn(3, 9, 24)
    one_by_one = torch.cat([head(image[None]) for image in features])
    torch.testing.assert_close(head(features), one_by_one, rtol=1e-5, atol=1e-5)
    assert head(features[:0]).shape == (0, 7)
    assert not torch.allclose(one_by_one[0], one_by_one[1], atol=1e-3)


@pytest.mark.parametrize("name", ALONE)
def test_scores_of_one_category_or_one_feature_are_finite(name):
    assert HEADS[name](24, 1, 64).eval()(torch.randn(2, 1, 24)).isfinite().all()


@pytest.mark.parametrize("name", ALONE)
def test_heads_are_traced_in_one_graph(name):
    def step(features, logits, queries, embeddings):
        ranking = rank(head(features), 4, threshold=0.0)
        logits = norm(restrict(logits, ranking), ranking)
        return logits, cosine_logits(queries, embeddings)

    head, norm = HEADS[name](24, 7, 64).eval(), RankNorm(4)
    inputs = [torch.randn(2, 9, n) for n in (24, 8, 5)]
    with torch.no_grad():
        explained = torch._dynamo.explain(step)(*inputs, torch.randn(7, 5))
    assert explained.graph_break_count == 0, explained.break_reasons


@pytest.mark.parametrize("name", ALONE)
def test_scores_are_float32_inside_autocast(name):
    head = HEADS[name](24, 7, 64).eval()
    features = torch.randn(2, 9, 24)
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(features)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, head(features), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_dropout_acts_in_training_only(name):
    head = HEADS[name](24, 7, 64, dropout=0.5)
    features = torch.randn(2, 9, 24)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_weight_decay_is_lifted_from_class_tokens(name):
    own, shared = HEADS[name](24, 7, 64), HEADS[name](24, 7, 64, shared_dim=48)
    assert own.no_weight_decay() == {"cls_emb"} <= dict(own.named_parameters()).keys()
    assert shared.no_weight_decay() == set()


def test_the_head_without_tokens_shares_none():
    with pytest.raises(ValueError, match="conv_pooling has no class tokens"):
        ConvPoolingHead(24, 7, 64, shared_dim=64)
    head = ConvPoolingHead(24, 7, 64)
    head(torch.randn(2, 9, 24)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    assert head.no_weight_decay() == set()


def test_query2label_reads_a_square_map():
    with pytest.raises(ValueError, match="got 10 cells; set MODEL.RANKSEG.POOL"):
        HEADS["query2label"](24, 7, 64)(torch.randn(2, 10, 24))


@pytest.mark.parametrize(("dim", "near"), [(200, 192), (0, 64), (-64, 64)])
def test_hidden_dim_that_heads_do_not_divide_is_refused(dim, near):
    message = rf"hidden_dim must be a multiple .* such as {near}; got {dim}\."
    with pytest.raises(ValueError, match=message):
        EncoderHead(24, 7, dim)


@pytest.mark.parametrize("shape", [None, (8, 48), (7, 64)])
def test_wrong_shared_embedding_is_refused(shape):
    head = EncoderHead(24, 7, 64, shared_dim=48)
    with pytest.raises(ValueError, match=r"shared embedding needs .* \(7, 48\)"):
        head(torch.randn(2, 9, 24), None if shape is None else torch.zeros(shape))


def test_shared_embedding_for_a_head_with_own_tokens_is_refused():
    with pytest.raises(ValueError, match="Build it with shared_dim"):
        EncoderHead(24, 7, 64)(torch.randn(2, 9, 24), torch.zeros(7, 64))


@pytest.mark.parametrize("case", ["rankseg_swinb_like_sem", "video_rankseg_r50_vspw"])
def test_rank_norm_and_the_logits_by_category_equal_golden(golden, case):
    scores = golden[f"{case}/scores"]
    ranking = rank(scores, scores.shape[1])
    norm = fill(RankNorm(ranking.K), "ml_norm.", "div")
    with torch.no_grad():
        by_rank = norm(restrict(golden[f"{case}/logits"], ranking))
    by_category = spread(by_rank[..., :-1].transpose(1, 2), ranking).transpose(1, 2)
    by_category = torch.cat([by_category, by_rank[..., -1:]], dim=-1)
    for logits, name in ((by_rank, "ml_norm/final_out"), (by_category, "final_logits")):
        at = tuple(golden[f"{case}/{name}/at"].long())
        expected = golden[f"{case}/{name}/value"]
        assert (logits[at] - expected).abs().max() < 1e-4 * expected.std()


def random_norm(k):
    norm = RankNorm(k)
    nn.init.normal_(norm.weight, 1)
    nn.init.normal_(norm.bias)
    return norm


def test_rank_norm_of_valid_ranks_only_equals_layer_norm():
    norm, logits = random_norm(4), torch.randn(3, 5, 12)
    ranking = rank(torch.randn(3, 11), 4, threshold=-torch.inf)
    assert ranking.valid.all()
    logits = restrict(logits, ranking)
    torch.testing.assert_close(norm(logits, ranking), norm(logits), rtol=1e-5, atol=1e-5)


def test_unbiased_rank_norm_divides_by_the_number_of_valid_ranks_less_one():
    norm = RankNorm(4, no_object=False, unbiased=True)
    nn.init.normal_(norm.weight, 1)
    nn.init.normal_(norm.bias)
    present = torch.zeros(3, 9, dtype=torch.bool)
    present[0, [2, 5, 6]] = present[1, 4] = True  # and nothing in the last image
    ranking, logits = rank_from_labels(present, 4), torch.randn(3, 6, 4)
    normed = norm(logits, ranking)
    kept = logits[0, :, :3]
    expected = (kept - kept.mean(-1, keepdim=True)) / (kept.var(-1, keepdim=True) + 1e-5).sqrt()
    expected = expected * norm.weight[:3] + norm.bias[:3]
    torch.testing.assert_close(normed[0, :, :3], expected)
    assert (normed[0, :, 3:] == LOW_LOGIT).all() and (normed[2] == LOW_LOGIT).all()
    torch.testing.assert_close(normed[1, :, 0], norm.bias[0].expand(6))


@pytest.mark.parametrize("no_object", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.0])
def test_rank_norm_of_fewer_ranks_equals_one_that_loads_its_first_rows(no_object, threshold):
    norm, few = RankNorm(5, no_object), RankNorm(3, no_object)
    nn.init.normal_(norm.weight, 1)
    nn.init.normal_(norm.bias)
    rows = {name: Rows("ranks", closed=no_object) for name in ("weight", "bias")}
    few.load_state_dict(adapt(norm.state_dict(), few.state_dict(), rows=rows).weights)
    ranking = rank(torch.randn(2, 9), 3, threshold)
    logits = torch.randn(2, 7, 3 + no_object)
    assert torch.equal(norm(logits, ranking), few(logits, ranking))
    with pytest.raises(ValueError, match="κ 6 is above 5, the κ that the rank-adaptive"):
        norm(torch.randn(2, 7, 6 + no_object))


def test_rank_norm_leaves_invalid_ranks_out():
    norm, logits = random_norm(4), torch.randn(2, 3, 5, 12)
    present = torch.zeros(3, 11, dtype=torch.bool)
    present[0, [3, 7]] = present[1, 5] = True  # and nothing in the last image
    ranking = rank_from_labels(present, 4)
    normed = norm(restrict(logits, ranking), ranking)
    for b in range(3):
        n = int(present[b].sum())
        kept = [*present[b].nonzero().flatten().tolist(), 11]
        kept = logits[:, b][..., kept]
        kept = nn.functional.layer_norm(kept, (n + 1,))
        columns = [*range(n), 4]
        expected = kept * norm.weight[columns] + norm.bias[columns]
        torch.testing.assert_close(normed[:, b][..., columns], expected, rtol=1e-5, atol=1e-5)
        assert (normed[:, b][..., n:4] == LOW_LOGIT).all()


def test_rank_norm_gives_finite_gradients_without_any_valid_place():
    logits = torch.randn(1, 5, 12, requires_grad=True)
    norm, ranking = random_norm(4), rank_from_labels(torch.zeros(1, 11), 4)
    norm(restrict(logits, ranking), ranking).softmax(-1).log_softmax(-1).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dynamic", [False, True])
def test_rank_norm_is_float32_inside_autocast(dynamic):
    ranking = rank(torch.randn(2, 11), 4, threshold=0.0 if dynamic else None)
    logits = torch.randn(2, 5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        normed = random_norm(4)(restrict(logits.bfloat16(), ranking), ranking)
    assert normed.dtype == torch.float32


def test_cosine_logits_equal_cosine_similarity():
    queries, embeddings = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    expected = nn.functional.cosine_similarity(queries[:, :, None], embeddings[:, None], dim=-1)
    torch.testing.assert_close(cosine_logits(queries, embeddings), expected)
    shared = cosine_logits(queries, embeddings[0])
    torch.testing.assert_close(shared[0], expected[0])
    assert shared.shape == (2, 5, 4)


def test_zero_rows_give_zero_cosine_and_tame_gradients():
    queries, embeddings = torch.randn(2, 5, 8), torch.randn(4, 8)
    queries[0, 1], embeddings[2] = 0, 0
    queries.requires_grad_()
    embeddings.requires_grad_()
    logits = cosine_logits(queries, embeddings)
    assert (logits[0, 1] == 0).all()
    assert (logits[:, :, 2] == 0).all()
    logits.sum().backward()
    for tensor in (queries, embeddings):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() < 100
    assert (embeddings.grad[2] != 0).any()  # a fresh zero row can learn


def test_cosine_gradients_equal_finite_differences():
    queries = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    embeddings = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cosine_logits, (queries, embeddings))


def test_cosine_is_float32_inside_autocast():
    queries, embeddings = torch.randn(2, 5, 8).bfloat16(), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = cosine_logits(queries, embeddings)
    torch.testing.assert_close(logits, cosine_logits(queries.float(), embeddings))
    assert logits.dtype == torch.float32
