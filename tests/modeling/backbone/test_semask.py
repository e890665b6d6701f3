"""SeMask-Swin computes what its authors' code computes, and its loss learns the pixels' classes."""

import pytest
import torch
from detectron2.modeling import build_model
from support import pixel_golden
from support.small import (
    CLASSES,
    KINDS,
    RANKSEG,
    VIDEO,
    clip_sample,
    image_sample,
    make_config,
    picture,
    train,
    without_gradient,
)
from torch import nn
from torch.nn import functional as F

from rankseg_d2.modeling.backbone import D2SeMaskSwinTransformer
from rankseg_d2.modeling.backbone.semask import SemanticAttention, SemanticLayer, summed
from rankseg_d2.modeling.clips import NO_CLASS, label_map
from rankseg_d2.modeling.outputs import CLASS_LOGITS

TINY = {"embed_dim": 8, "depths": (1, 2), "num_heads": (2, 4), "window_size": 4}
TINY |= {"out_features": ("res2", "res3"), "drop_path_rate": 0.0}
SEMASK = {
    "MODEL.BACKBONE.NAME": "D2SeMaskSwinTransformer",
    "MODEL.SWIN.EMBED_DIM": 8,
    "MODEL.SWIN.DEPTHS": [1, 1, 1, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 2, 4],
    "MODEL.SWIN.WINDOW_SIZE": 4,
    "MODEL.SWIN.DROP_PATH_RATE": 0.0,
    "MODEL.SEMASK.WINDOW_SIZE": 5,
}
PIXELS = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.0,
    "MODEL.SEM_SEG_HEAD.STRETCH": True,
}
HEADS = ["UPerNetHead", "SegFormerHead"]


@torch.no_grad()
def shake(model):
    """Parameters that are no zeros, and no dropout."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    pixel_golden.without_dropout(model)
    return model


def tiny(**options):
    options = TINY | {"num_classes": 5, "semantic_window": 3, "global_stages": ("res3",)} | options
    return shake(D2SeMaskSwinTransformer(**options).double().eval())


def small(*options):
    return shake(build_model(make_config(SEMASK, *options)))


def pixel_sample(size=(64, 96)):
    labels = (picture(0, size)[0] * CLASSES // 256).long()
    labels[:5] = 255
    return {"image": picture(0, size), "sem_seg": labels}


def test_features_class_scores_and_gradients_are_the_references():
    arrays, facts = pixel_golden.load("semask_swint")
    model = D2SeMaskSwinTransformer(drop_path_rate=0.0)
    assert sum(x.numel() for x in model.parameters()) == facts["parameters"]
    weights = model.state_dict()
    for name, value in weights.items():
        if value.is_floating_point():
            value.copy_(pixel_golden.value_of(name, value.shape))
    model.double().eval()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in facts["mean_std"])
    images = [(pixel_golden.image(i, *facts["hw"]) - mean) / std for i in facts["image_seeds"]]
    features, scores = model.with_scores(torch.stack(images).double())
    found = {f"out/feat/{name}": x for name, x in features.items()}
    found |= {f"out/sem/res{i + 2}": x for i, x in enumerate(scores)}
    for name, x in found.items():
        assert arrays[name].diff(x)[1] < 1e-4, name

    noise = torch.Generator().manual_seed(5)
    value = sum(
        (x * torch.randn(x.shape, generator=noise)).sum() / x.numel() ** 0.5
        for x in found.values()
    )
    assert value.item() == pytest.approx(arrays["proj/value"].values[0], rel=1e-4)
    value.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(gradients) == set(facts["grad_names"])
    norms = zip(facts["grad_names"], arrays["grad_norm"].values, strict=True)
    for name, norm in norms:
        if not name.endswith("mlp_cls_k.bias"):  # zero in theory
            assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-4), name
    sampled = [name for name in arrays if name.startswith("grad/")]
    assert len(sampled) == 16
    for name in sampled:
        assert arrays[name].diff(gradients[name.removeprefix("grad/")])[1] < 1e-4, name


def test_a_token_reads_the_tokens_of_similar_scores():
    torch.manual_seed(0)
    attention = shake(SemanticAttention(6, 4).double()).eval()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    found, scores = attention(x)
    share = (scores @ attention.mlp_cls_k(x).mT).softmax(-1)  # not divided by a root
    expected = x + attention.gamma * attention.mlp_res(share @ attention.mlp_v(x))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(scores, attention.mlp_cls_q(x))


def test_before_training_a_stage_ends_in_a_norm_alone():
    layer = SemanticLayer(6, 4, 3).eval()
    x = torch.randn(2, 4, 5, 6)
    found, scores = layer(x)
    torch.testing.assert_close(found, layer.norm1(x))
    assert scores.shape == (2, 4, 5, 4)


def test_windows_are_apart_and_the_whole_map_is_one():
    layer = shake(SemanticLayer(6, 4, 3).double()).eval()
    x = torch.randn(1, 6, 6, 6, dtype=torch.float64)
    other = x.clone()
    other[:, 4, 4] = -x[:, 4, 4]
    changed = (layer(x)[0] - layer(other)[0]).abs().amax((0, 3)) > 1e-12
    assert changed[3:, 3:].all() and changed.sum() == 9
    layer.window_size = None
    changed = (layer(x)[0] - layer(other)[0]).abs().amax((0, 3)) > 1e-12
    assert changed.all()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 47), (64, 64)])
def test_any_size_is_taken_and_a_batch_is_its_images(size):
    model = tiny()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        features, scores = model.with_scores(images)
        alone = model(images[1:])
    rounded = [tuple(-(-side // stride) for side in size) for stride in (4, 8)]
    assert [x.shape[-2:] for x in features.values()] == rounded
    assert [x.shape for x in scores] == [(2, 5, *one) for one in rounded]
    assert alone.keys() == features.keys()  # no class logits in evaluation
    for name, x in alone.items():
        torch.testing.assert_close(x, features[name][1:])


def test_gradient_checkpointing_changes_nothing():
    one, other = tiny().train(), tiny(use_checkpoint=True).train()
    images = torch.randn(2, 3, 20, 28, dtype=torch.float64)
    for model in (one, other):
        sum(x.square().sum() for x in model(images).values()).backward()
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert name.endswith("mlp_cls_k.bias") or a.grad.any(), name
        torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=1e-6)


def test_the_sum_of_the_stages_is_as_fine_as_the_first():
    scores = [torch.full((1, 2, h, w), float(v)) for h, w, v in ((5, 7, 1), (3, 4, 2), (2, 2, 4))]
    total = summed(scores)
    torch.testing.assert_close(total, torch.full((1, 2, 5, 7), 7.0))
    ramp = torch.linspace(0, 1, 3).expand(1, 1, 3, 3)  # corners stay where they are
    total = summed([torch.zeros(1, 1, 6, 6), ramp])
    torch.testing.assert_close(total[0, 0, 0], torch.linspace(0, 1, 6))


def test_the_loss_is_the_cross_entropy_of_the_enlarged_logits():
    model = tiny(loss_weight=0.4)
    logits = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    labels = torch.randint(-1, 5, (2, 11, 16))  # less than 4 x 3 rows: the rest is padding
    found = model.losses(logits, labels)
    large = F.interpolate(logits, (12, 16), mode="bilinear", align_corners=True)[:, :, :11]
    expected = 0.4 * F.cross_entropy(large, labels, ignore_index=NO_CLASS)
    assert found.keys() == {"loss_cate"}
    torch.testing.assert_close(found["loss_cate"], expected)
    assert model.losses(logits, torch.full((2, 12, 16), NO_CLASS))["loss_cate"] == 0


def test_a_label_map_shows_the_smallest_of_objects_that_overlap():
    masks = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    masks[0, :, :2, :2], masks[1, :, :3] = True, True  # small, then large
    masks[2, 1, 3, 3] = True
    found = label_map(torch.tensor([5, 2, 7]), masks)
    assert found[0].tolist() == [[5, 5, 2, 2], [5, 5, 2, 2], [2, 2, 2, 2], [-1, -1, -1, -1]]
    assert found[1, 3].tolist() == [-1, -1, -1, 7]
    nothing = label_map(torch.zeros(0, dtype=torch.long), torch.zeros(0, 1, 2, 3, dtype=torch.bool))
    assert nothing.tolist() == [[[-1] * 3] * 2]


@pytest.mark.parametrize("more", [{}, RANKSEG], ids=["plain", "rankseg"])
@pytest.mark.parametrize("kind", KINDS)
def test_mask_classifiers_add_the_loss_of_the_true_classes(kind, more):
    """With RankSeg, too: of classes, not of ranks, and of those that are not kept."""
    model = small(KINDS[kind], more)
    samples = [image_sample(labels=(6, 3, 1)), image_sample(1, labels=())]
    losses = train(model, samples)
    with torch.no_grad():
        clips = model.preprocess(samples)
        logits = model.backbone(clips.tensor)[CLASS_LOGITS]
        labels = model.label_maps(model.prepare_targets(samples, clips))
        expected = model.backbone.losses(logits, labels)["loss_cate"]
    assert labels[0].unique().tolist() == [-1, 1, 3, 6] and (labels[1] == -1).all()
    torch.testing.assert_close(losses["loss_cate"], expected)
    missing = [name for name in without_gradient(model) if name.startswith("backbone")]
    assert all(name.endswith("mlp_cls_k.bias") for name in missing), missing


def test_clips_have_a_label_map_for_each_frame():
    model = small(KINDS["mask2former"], VIDEO)
    losses = train(model, [clip_sample(frames=2)])
    assert losses["loss_cate"] > 0


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("ranks", [False, True])
def test_pixel_classifiers_add_the_loss_and_predict(head, ranks):
    ranked = RANKSEG | {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False, "MODEL.RANKSEG.HEAD": "pooling"}
    model = small(PIXELS, {"MODEL.SEM_SEG_HEAD.NAME": head}, ranked if ranks else {})
    samples = [pixel_sample(), pixel_sample((50, 75))]
    losses = train(model, samples)
    labels = model.label_maps(model.prepare_targets(samples, None))
    assert labels.shape == (2, 64, 96) and labels.unique().tolist() == [-1, *range(CLASSES)]
    assert losses["loss_cate"] > 0 and losses["loss_sem_seg"] > 0
    with torch.no_grad():
        (result,) = model.eval()([{"image": picture(0, (50, 75))}])
    assert result["sem_seg_labels"].shape == (50, 75)


def test_rows_of_classes_go_to_another_vocabulary():
    rows = small(KINDS["mask2former"]).checkpoint_rows()
    names = [name for name in rows if "mlp_cls" in name]
    assert len(names) == 16 and all(rows[name].meaning == "classes" for name in names)


def test_an_unknown_stage_is_named():
    with pytest.raises(ValueError, match=r"GLOBAL_STAGES has res5, which is not .*: res2, res3"):
        tiny(global_stages=("res5",))


def test_keys_come_from_the_config():
    cfg = make_config(SEMASK, {"MODEL.SEMASK.GLOBAL_STAGES": [], "MODEL.SEMASK.WEIGHT": 2.0})
    model = build_model(cfg).backbone
    assert model.loss_weight == 2 and model.size_divisibility == 32
    assert [stage.semantic_layer.window_size for stage in model.layers] == [5] * 4
    assert model.layers[0].semantic_layer.class_injection[0].mlp_cls_q.out_features == CLASSES


def test_training_under_autocast_gives_a_loss_in_full_precision():
    model = small(KINDS["mask2former"])
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train()([image_sample()])["loss_cate"]
    assert loss.dtype == torch.float32 and loss.isfinite()
