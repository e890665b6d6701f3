"""Parameter groups, their rates and decays, and gradient clipping."""

import re

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY
from support.small import MASK2FORMER, RANKSEG, image_sample, make_config, make_model
from torch import nn

from rankseg_d2.config import get_config
from rankseg_d2.engine import build_optimizer
from rankseg_d2.engine.optimizer import parameter_groups
from rankseg_d2.engine.step_trainer import StepTrainer

SOLVER = {"SOLVER.BASE_LR": 1.0, "SOLVER.WEIGHT_DECAY": 0.5}
# Every step is the gradient, if it is not clipped.
SGD = {
    "SOLVER.OPTIMIZER": "SGD",
    "SOLVER.BASE_LR": 1.0,
    "SOLVER.MOMENTUM": 0.0,
    "SOLVER.WEIGHT_DECAY": 0.0,
}


def clip(kind="full_model", value=1.0, norm=2.0):
    options = {"ENABLED": True, "CLIP_TYPE": kind, "CLIP_VALUE": value, "NORM_TYPE": norm}
    return {f"SOLVER.CLIP_GRADIENTS.{name}": option for name, option in options.items()}


def options(cfg, model):
    """{name: (rate, decay)} of the parameters that are in a group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(cfg, model)
        for parameter in group["params"]
    }


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, rate, backbone_rate, decay",
    [
        ("ade20k/semantic/r50", 1e-4, 1e-5, 0.05),
        ("ade20k/semantic/swin_t_rankseg", 1e-4, 1e-5, 0.05),
        ("ade20k/semantic/maskformer_swin_t", 6e-5, 6e-5, 0.01),
        ("ade20k/panoptic/maskformer_r50", 1e-4, 1e-5, 1e-4),
    ],
)
def test_groups_of_published_models_follow_upstreams_rules(name, rate, backbone_rate, decay):
    cfg = get_config(name, ["MODEL.DEVICE", "cpu"])
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    norms = (nn.LayerNorm, nn.GroupNorm)
    undecayed = {"ml_head.cls_emb"}
    for path, module in model.named_modules():
        if isinstance(module, (*norms, nn.Embedding)):
            undecayed |= {f"{path}.{own}" for own, _ in module.named_parameters(recurse=False)}
    expected = {}
    for full in dict(model.named_parameters()):
        own_rate = {"backbone": backbone_rate, "ml_head": 0.1 * rate}.get(full.split(".")[0], rate)
        is_free = full in undecayed or full.endswith("relative_position_bias_table")
        expected[full] = own_rate, 0.0 if is_free else decay
    found = options(cfg, model)
    assert found.keys() == expected.keys()
    for full, (own_rate, own_decay) in expected.items():
        assert found[full] == (pytest.approx(own_rate), own_decay), full
    assert len(parameter_groups(cfg, model)) <= 6
    free = [full for full, (_, own_decay) in found.items() if own_decay == 0]
    assert any("query_embed" in full for full in free) and any("norm" in full for full in free)


class Parts(nn.Module):
    """A module of every kind that has a rule."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.backbone.absolute_pos_embed = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.head.weight
        self.query = nn.Embedding(3, 4)
        self.norm = nn.GroupNorm(2, 4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.token = nn.Parameter(torch.zeros(4))
        self.inner = Tokens()


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(4))
        self.linear = nn.Linear(2, 2)

    def no_weight_decay(self):
        return {"cls_token", "linear.bias", "not_there"}


def test_each_part_has_its_rate_and_each_kind_its_decay():
    cfg = make_config(
        SOLVER,
        {
            "SOLVER.BACKBONE_MULTIPLIER": 0.25,
            "SOLVER.WEIGHT_DECAY_NORM": 0.125,
            "SOLVER.WEIGHT_DECAY_EMBED": 0.25,
        },
    )
    assert options(cfg, Parts()) == {
        "backbone.0.weight": (0.25, 0.5),
        "backbone.0.bias": (0.25, 0.5),
        "backbone.1.weight": (0.25, 0.125),
        "backbone.1.bias": (0.25, 0.125),
        "backbone.absolute_pos_embed": (0.25, 0.25),
        "head.weight": (1.0, 0.5),
        "head.bias": (1.0, 0.5),
        "tied.bias": (1.0, 0.5),
        "query.weight": (1.0, 0.25),
        "norm.weight": (1.0, 0.125),
        "norm.bias": (1.0, 0.125),
        "token": (1.0, 0.5),
        "inner.cls_token": (1.0, 0.0),
        "inner.linear.weight": (1.0, 0.5),
        "inner.linear.bias": (1.0, 0.0),
    }


def test_biases_have_detectron2s_factor_and_decay():
    biases = {"SOLVER.BIAS_LR_FACTOR": 2.0, "SOLVER.WEIGHT_DECAY_BIAS": 0.0625}
    found = options(make_config(SOLVER, biases), Parts())
    assert found["backbone.0.bias"] == (0.2, 0.0625)
    assert found["norm.bias"] == (2.0, 0.0625)  # norms' too, as in detectron2
    assert found["head.weight"] == (1.0, 0.5)


def test_the_multi_label_head_is_a_part_of_its_own_even_at_the_same_rate():
    cfg = make_config(SOLVER, MASK2FORMER, RANKSEG, {"SOLVER.MLHEAD_MULTIPLIER": 1.0})
    model = make_model(MASK2FORMER, RANKSEG)
    head = {id(parameter) for parameter in model.ml_head.parameters()}
    groups = [group for group in parameter_groups(cfg, model) if group["name"] == "ml_head"]
    assert {id(parameter) for group in groups for parameter in group["params"]} == head
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(1.0, 0.5), (1.0, 0.0)}


@pytest.mark.parametrize("shared", [False, True])
def test_weight_decay_does_not_touch_class_tokens(shared):
    """They get no gradient here: decay alone would move them."""
    model = make_model(MASK2FORMER, RANKSEG, {"MODEL.RANKSEG.SHARE_EMBEDDING": shared})
    optimizer = build_optimizer(make_config(SOLVER), model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert "ml_head.fc.W" in moved and "sem_seg_head.predictor.class_embed.weight" in moved
    assert "ml_head.cls_emb" not in moved and "ml_norm.weight" not in moved
    assert ("ml_head.cls_emb" in before) is not shared


def test_a_timm_backbone_names_what_must_not_decay():
    timm = {"MODEL.BACKBONE.NAME": "TimmBackbone", "MODEL.TIMM.NAME": "vit_tiny_patch16_224"}
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get("MaskFormer")(make_config(timm, MASK2FORMER))
    found = options(make_config(SOLVER), model)
    positions = [name for name in found if name.endswith(("pos_embed", "cls_token"))]
    assert positions and all(found[name] == (0.1, 0.0) for name in positions)
    assert any(name.startswith("backbone.") and decay == 0.5 for name, (_, decay) in found.items())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_layer_decay_lowers_the_rate_once_per_block_above(name, depth=12):
    timm = {"MODEL.BACKBONE.NAME": "TimmBackbone", "MODEL.TIMM.NAME": name}
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get("MaskFormer")(make_config(timm, MASK2FORMER))
    keys = {"SOLVER.BACKBONE_MULTIPLIER": 1.0, "SOLVER.LAYER_DECAY": 0.5}
    found = {full: rate for full, (rate, _) in options(make_config(SOLVER, keys), model).items()}
    blocks = set()
    for full, rate in found.items():
        number = re.search(r"^backbone\.model\.blocks\.(\d+)\.", full)
        if number:
            blocks.add(int(number[1]))
            assert rate == 0.5 ** (depth - 1 - int(number[1])), full
        elif re.search(r"patch_embed|pos_embed|cls_token", full):
            assert rate == 0.5 ** (depth - 1), full
        else:  # what follows the blocks, and the heads
            assert rate == 1, full
    assert blocks == set(range(depth))


def test_layer_decay_without_numbered_layers_is_refused():
    message = r"SOLVER\.LAYER_DECAY is 0\.5, .* number its layers"
    with pytest.raises(ValueError, match=message) as error:
        build_optimizer(make_config({"SOLVER.LAYER_DECAY": 0.5}), Parts())
    numbered = {
        name
        for name, backbone in BACKBONE_REGISTRY
        if backbone.__module__.startswith("rankseg_d2.modeling.")
        and hasattr(backbone, "layers_above")
    }
    assert len(numbered) == 7
    assert all(name in str(error.value) for name in numbered)


# --- optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, kind", [("ADAMW", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_the_optimizer_steps_as_torchs_own_with_one_group_per_parameter(name, kind):
    torch.manual_seed(0)
    ours, peer = Parts(), Parts()
    peer.load_state_dict(ours.state_dict())
    keys = {"SOLVER.OPTIMIZER": name, "SOLVER.MOMENTUM": 0.5, "SOLVER.NESTEROV": True}
    cfg = make_config(SOLVER, keys)
    per_parameter = options(cfg, peer)
    extra = {"momentum": 0.5, "nesterov": True} if name == "SGD" else {}
    groups = [
        {"params": [parameter], "lr": per_parameter[n][0], "weight_decay": per_parameter[n][1]}
        for n, parameter in peer.named_parameters()
        if n in per_parameter
    ]
    steps = [build_optimizer(cfg, ours), kind(groups, lr=1.0, **extra)]
    for _ in range(3):
        for model, optimizer in zip((ours, peer), steps, strict=True):
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (i + 1))
            optimizer.step()
    assert type(steps[0]) is kind
    for value, expected in zip(ours.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(value, expected)


def test_unknown_optimizers_are_named():
    with pytest.raises(KeyError, match="SOLVER.OPTIMIZER: 'ADAM' is not known; .* ADAMW"):
        build_optimizer(make_config({"SOLVER.OPTIMIZER": "ADAM"}), Parts())


@pytest.mark.parametrize("batch, reference, expected", [(16, 0, 1.0), (16, 16, 1.0), (4, 16, 0.25)])
def test_the_rate_scales_with_the_batch_on_request(batch, reference, expected):
    keys = {"SOLVER.IMS_PER_BATCH": batch, "SOLVER.REFERENCE_BATCH_SIZE": reference}
    cfg = make_config(SOLVER, keys)
    assert options(cfg, Parts())["head.weight"][0] == expected
    assert options(cfg, Parts())["backbone.0.weight"][0] == pytest.approx(0.1 * expected)


@pytest.mark.parametrize("keys", [(-16, 0), (16, 8)])
def test_scaling_that_cannot_be_meant_is_refused(keys):
    both = ("SOLVER.REFERENCE_BATCH_SIZE", "SOLVER.REFERENCE_WORLD_SIZE")
    cfg = make_config(dict(zip(both, keys, strict=True)))
    with pytest.raises(ValueError, match=r"REFERENCE_BATCH_SIZE \(-?16\) must be positive"):
        build_optimizer(cfg, Parts())


# --- clipping -------------------------------------------------------------------------------------


def clipped(kind, value=1.0, norm=2.0):
    """How far an SGD step of rate 1 goes where the gradients are (3, 4) and (0, 12)."""
    model = nn.ModuleList([nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False)])
    model.append(nn.Linear(1, 1))  # without a gradient
    optimizer = build_optimizer(make_config(SGD, clip(kind, value, norm)), model)
    for linear, gradient in zip(model, ([3.0, 4.0], [0.0, 12.0]), strict=False):
        linear.weight.data.zero_()
        linear.weight.grad = torch.tensor(gradient)[:, None]
    optimizer.step()
    return torch.cat([-linear.weight.detach().flatten() for linear in model[:2]])


@pytest.mark.parametrize(
    "kind, norm, expected",
    [
        ("full_model", 2.0, [3 / 13, 4 / 13, 0.0, 12 / 13]),
        ("full_model", 1.0, [3 / 19, 4 / 19, 0.0, 12 / 19]),
        ("norm", 2.0, [0.6, 0.8, 0.0, 1.0]),
        ("value", 2.0, [1.0, 1.0, 0.0, 1.0]),
    ],
)
def test_gradients_are_clipped_before_the_step(kind, norm, expected):
    torch.testing.assert_close(clipped(kind, norm=norm), torch.tensor(expected), atol=1e-5, rtol=0)


def test_small_gradients_and_a_value_of_zero_clip_nothing():
    expected = torch.tensor([3.0, 4.0, 0.0, 12.0])
    assert clipped("full_model", 20.0).equal(expected)
    assert clipped("full_model", 0.0).equal(expected)


def test_unknown_clip_types_are_named():
    with pytest.raises(KeyError, match="CLIP_TYPE: 'full' is not known; .*full_model"):
        clipped("full")


def test_clipping_sees_gradients_without_the_scale_of_mixed_precision():
    """A gradient scaler multiplies the loss by 2**16; the clipped step must not know."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(make_config(SGD, clip(value=0.5)), model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for slope, expected in [(0.25, 0.25), (8.0, 0.5), (float("inf"), 0.0)]:
        before = model.weight.item()
        optimizer.zero_grad()
        scaler.scale(slope * model.weight.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert before - model.weight.item() == pytest.approx(expected, abs=1e-5), slope


@pytest.mark.parametrize("parts", [1, 2])
def test_accumulated_gradients_are_clipped_once_and_together(parts):
    """Two images whose gradients cancel in part: clipping each on its own would differ."""
    slopes = [3.0, -2.0]
    model = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(make_config(SGD, clip(value=0.75)), model)
    trainer = StepTrainer(
        Slope(model), [slopes], optimizer, device=torch.device("cpu"), seed=0,
        accumulation_steps=parts,
    )  # fmt: skip
    trainer.iter = 0
    trainer.note_losses = trainer.write_losses = lambda *_: None
    before = model.weight.item()
    trainer.run_step()
    assert before - model.weight.item() == pytest.approx(0.5)


class Slope(nn.Module):
    """Its loss falls along the weight with the mean slope of the batch."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, batch):
        return {"loss": sum(batch) / len(batch) * self.linear.weight.sum()}


# --- all together ---------------------------------------------------------------------------------


def test_mask2former_with_rankseg_trains_in_bf16_with_accumulation_and_clipping():
    model = make_model(MASK2FORMER, RANKSEG).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    size = (32, 64)
    batches = [[image_sample(i, (1, 3), size), image_sample(9 - i, (2,), size)] for i in range(3)]
    trainer = StepTrainer(
        model, batches, build_optimizer(make_config(clip(value=0.01)), model),
        device=torch.device("cpu"), seed=0, amp_dtype=torch.bfloat16, accumulation_steps=2,
    )  # fmt: skip
    losses = []
    trainer.note_losses = lambda means, _: losses.append(dict(means))
    for trainer.iter in range(3):
        trainer.run_step()
    assert len(losses) == 3 and all("loss_ml" in step and "loss_mask_1" in step for step in losses)
    assert all(loss.isfinite() for step in losses for loss in step.values())
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert total == pytest.approx(0.01, rel=1e-3)
    still = {n for n, value in model.named_parameters() if value.equal(before[n])}
    assert not still, still
