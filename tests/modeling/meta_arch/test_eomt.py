"""EoMT: masked attention, its schedule, losses, and rankings with and without a head."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from support import eomt, small

from rankseg_d2 import get_config
from rankseg_d2.modeling.transformer_decoder.encoder_only import readable

MASKS = {
    "MODEL.RANKSEG.FLAG": True,
    "MODEL.RANKSEG.SCORES": "masks",
    "MODEL.RANKSEG.NORM": False,
    "MODEL.RANKSEG.TOPK": small.CLASSES,
}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def images(height=64, width=64, count=2):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def by_hand(block, x, is_read):
    """A block of the ViT on one image's tokens (L, D), of which i reads those of is_read[i]."""
    attention, heads = block.attn, block.attn.heads
    normed = block.norm1(x)
    queries, keys, values = attention.qkv(normed).chunk(3, dim=-1)
    width = x.shape[1] // heads
    mixed = torch.zeros_like(x)
    for token in range(len(x)):
        read = is_read[token]
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = (keys[read, part] @ queries[token, part] / width**0.5).softmax(0)
            mixed[token, part] = weights @ values[read, part]
    x = x + block.ls1.gamma * attention.proj(mixed)
    return x + block.ls2.gamma * block.mlp(block.norm2(x))


@torch.no_grad()
def test_each_query_reads_only_the_patches_within_its_mask():
    model, frames = eomt.make(eomt.ANNEALED), images(64, 48, 1)
    vit, head = model.train().backbone, model.sem_seg_head
    head.predictor.anneal(0)
    outputs = model.network(frames)

    x, size = vit.embed(frames)
    for block in vit.blocks[:2]:
        x = block(x)
    x = torch.cat([head.predictor.query_feat.weight, x[0]])
    assert size == (4, 3) and len(x) == eomt.QUERIES + eomt.PREFIX + 12
    first = eomt.QUERIES + eomt.PREFIX
    for number, block in enumerate(vit.blocks[2:]):
        masks = outputs.masks[number][0]  # (Q, 1, 16, 12)
        inside = shrunk(masks).flatten(1) > 0
        assert 0 < inside.float().mean() < 1
        is_read = torch.ones(len(x), len(x), dtype=torch.bool)
        for query in range(eomt.QUERIES):
            is_read[query, first:] = inside[query]
        x = by_hand(block, x, is_read)
        close(outputs.layers[number][0], x[: eomt.QUERIES])
    close(outputs.queries[-1, 0], vit.norm(x)[: eomt.QUERIES])


def shrunk(masks):
    """(Q, 1, 4h, 4w) -> (Q, h, w): at the centre of a patch, the mean of the four middle values."""
    cells = masks[:, 0].unflatten(2, (-1, 4)).unflatten(1, (-1, 4))  # (Q, h, 4, w, 4)
    return cells[:, :, 1:3, :, 1:3].mean((2, 4))


def test_a_share_of_the_queries_is_masked_and_a_query_without_a_mask_reads_what_is_no_patch():
    masks = torch.full((50, 40, 1, 8, 8), -1.0)
    valid = readable(masks, (2, 2), 40 + 5 + 4, torch.tensor(0.25))
    assert valid[:, :, :45].all() and valid[:, 40:].all()
    patches = valid[:, :40, 45:]
    assert patches.all(-1).equal(patches.any(-1))
    assert 0.2 < 1 - patches.float().mean() < 0.3
    assert readable(masks, (2, 2), 49, torch.tensor(0.0)).all()
    assert not readable(masks, (2, 2), 49, torch.tensor(1.0))[:, :40, 45:].any()


@pytest.mark.parametrize(
    "iteration, is_masked",
    [(0, (True, True, True)), (20, (False, True, True)), (49, (False, False, True)),
     (50, (False, False, False)), (None, (False, False, False))],
)  # fmt: skip
def test_the_masks_follow_the_trainers_iteration(iteration, is_masked):
    model = eomt.make(eomt.ANNEALED)
    if iteration is None:
        small.train(model, [small.image_sample()])
    else:
        with EventStorage(iteration):
            small.train(model, [small.image_sample()])
    assert model.sem_seg_head.predictor.is_masked == is_masked


@torch.no_grad()
def test_masks_change_the_training_and_never_the_inference():
    plain, annealed = eomt.make(), eomt.make(eomt.ANNEALED)
    annealed.sem_seg_head.predictor.anneal(0)
    free, masked = (model.train().network(images()).masks for model in (plain, annealed))
    assert len(free) == len(masked) == eomt.BLOCKS + 1
    assert [a.equal(b) for a, b in zip(free, masked, strict=True)] == [True, False, False, False]
    free, masked = (model.eval().network(images()).masks for model in (plain, annealed))
    assert len(free) == len(masked) == 1 and free[0].equal(masked[0])


@pytest.mark.parametrize("options", [{}, small.RANKSEG], ids=["plain", "rankseg"])
def test_each_parameter_learns_from_images_with_and_without_objects(options):
    model = eomt.make(options, eomt.ANNEALED)
    samples = [small.image_sample(), small.image_sample(1, (), (50, 70))]
    with EventStorage(25):
        losses = small.train(model, samples)
    ends = ("", "_0", "_1", "_2")
    names = {f"loss_{kind}{end}" for kind in ("ce", "mask", "dice") for end in ends}
    assert losses.keys() - {"loss_ml"} == names and ("loss_ml" in losses) is bool(options)
    assert all(loss.isfinite() for loss in losses.values())
    assert small.without_gradient(model) == []


def test_a_batch_without_objects_is_trained():
    assert all(x.isfinite() for x in small.train(eomt.make(), [small.image_sample(0, ())]).values())


def test_images_of_a_batch_do_not_know_of_each_other():
    model = eomt.make()
    samples = [small.image_sample(number, size=(50, 70)) for number in range(3)]
    together = small.evaluate(model, samples)
    for sample, result in zip(samples, together, strict=True):
        (alone,) = small.evaluate(model, [sample])
        torch.testing.assert_close(result["sem_seg"], alone["sem_seg"], rtol=1e-4, atol=1e-5)
        assert result["sem_seg"].shape == (small.CLASSES, 50, 70)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for use in (False, True):
        model = eomt.make(eomt.ANNEALED, {"MODEL.VIT.USE_CHECKPOINT": use})
        with EventStorage(25):
            small.train(model, [small.image_sample()])
        gradients.append(model.backbone.blocks[0].attn.qkv.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_compiled_it_gives_the_same():
    model, sample = eomt.make(), small.image_sample()
    expected = small.evaluate(model, [sample])[0]["sem_seg"]
    model.compile(fullgraph=True, backend="aot_eager")
    found = small.evaluate(model, [sample])[0]["sem_seg"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_training_is_compiled_again_only_when_a_block_ceases_to_be_masked():
    model = eomt.make(eomt.ANNEALED)
    graphs = []
    model.compile(fullgraph=True, backend=lambda graph, _: graphs.append(1) or graph.forward)
    for iteration in (11, 12, 51, 52):
        with EventStorage(iteration):
            model.train()([small.image_sample()])
    assert len(graphs) == 2


# Rankings


def test_a_checkpoint_without_a_ranking_gets_one_and_keeps_its_results():
    plain, ranked = eomt.make(), eomt.make(MASKS)
    assert plain.state_dict().keys() == ranked.state_dict().keys()
    samples = [small.image_sample(number) for number in range(2)]
    for one, other in zip(*(small.evaluate(m, samples) for m in (plain, ranked)), strict=True):
        order = other["sem_seg_classes"]
        torch.testing.assert_close(one["sem_seg"][order], other["sem_seg_scores"])
        scores = other["ranking"]["scores"]
        assert scores[order].diff().le(0).all()


def test_fewer_categories_are_those_that_some_query_is_most_sure_of():
    model = eomt.make(MASKS | {"MODEL.RANKSEG.TOPK": 3})
    (result,) = small.evaluate(model, [small.image_sample()])
    plain, clips = eomt.make(), model.preprocess([small.image_sample()])
    probabilities = small.outputs_of(plain.eval(), clips.tensor).logits[-1, 0].softmax(-1)
    expected = probabilities[:, :-1].amax(0).topk(3).indices
    assert result["ranking"]["classes"].tolist() == expected.tolist()


def test_the_multi_label_head_reads_the_queries_after_a_block():
    model = eomt.make(small.RANKSEG, {"MODEL.RANKSEG.LAYER": 2}).eval()
    outputs = small.outputs_of(model, images())
    assert model.rank_features(outputs) is outputs.layers[1]
    with pytest.raises(ValueError, match=r"MODEL.RANKSEG.LAYER must be in \[1, 3\]"):
        eomt.make(small.RANKSEG, {"MODEL.RANKSEG.LAYER": 4})


# Configs


@pytest.mark.parametrize(
    "keys, sentence",
    [
        ({"MODEL.BACKBONE.NAME": "SmallBackbone"}, "BACKBONE.NAME VisionTransformer, not Small"),
        ({"MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead"}, "NAME EoMTHead, not MaskFormerHead"),
        ({"MODEL.VIT.OUT_FEATURES": ["block2"]}, r"OUT_FEATURES \['last'\], not \['block2'\]"),
        ({"MODEL.VIT.CLASS_EMBEDDING": True}, "CLASS_EMBEDDING False, not True"),
        ({"MODEL.EOMT.BLOCKS": 6}, "MODEL.EOMT.BLOCKS is 6, but the ViT has 5 blocks; lower it"),
        ({"MODEL.META_ARCHITECTURE": "MaskFormer"}, "needs MODEL.META_ARCHITECTURE EoMT, not Mask"),
        ({"MODEL.EOMT.MASK_START": [1]}, "must have 3 iterations each"),
    ],
)  # fmt: skip
def test_a_config_that_is_no_eomt_is_refused(keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        eomt.make(keys)


@pytest.mark.parametrize("name", ["ade20k/semantic", "ade20k/panoptic", "cityscapes/semantic"])
def test_the_published_schedules_end_before_the_training(name):
    cfg = get_config(f"{name}/eomt_vit_l")
    starts, ends = cfg.MODEL.EOMT.MASK_START, cfg.MODEL.EOMT.MASK_END
    sixth = cfg.SOLVER.MAX_ITER / 6
    assert starts == pytest.approx([sixth * i for i in (1, 2, 3, 4)], rel=0.01)
    assert ends == pytest.approx([sixth * i for i in (2, 3, 4, 5)], rel=0.01)
