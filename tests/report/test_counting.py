"""Counts equal arithmetic by hand, and those of a real run."""

import pytest
import torch
import torchvision
from support.small import (
    CLASSES,
    MASK2FORMER,
    MASKFORMER,
    QUERIES,
    RANKSEG,
    VIDEO,
    WIDTH,
    make_config,
)
from torch import nn
from torch.nn import functional as F

from rankseg_d2.ops.ms_deform_attn import backends, ms_deform_attn, ms_deform_attn_fused
from rankseg_d2.report.counting import (
    CLASSIFY,
    RESULT,
    count_config,
    count_model,
    counting,
    make_model,
)

PIXELS = MASKFORMER | {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 1.5,
}
PLUS = PIXELS | {
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselinePlusHead",
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": CLASSES,
}
ORACLE = RANKSEG | {"MODEL.RANKSEG.USE_GT": True}
DYNAMIC = RANKSEG | {"MODEL.RANKSEG.THRESHOLD": 0.3}
KINDS = {
    "mask2former": MASK2FORMER,
    "mask2former with RankSeg": MASK2FORMER | RANKSEG,
    "a threshold": MASK2FORMER | DYNAMIC,
    "the oracle": MASK2FORMER | ORACLE,
    "maskformer": MASKFORMER | RANKSEG,
    "pixels": PIXELS,
    "pixels with RankSeg": PIXELS | RANKSEG,
    "pixels with queries": PLUS,
}
TOPK = RANKSEG["MODEL.RANKSEG.TOPK"]


def count(module, *inputs):
    """(parameters, multiply-adds, activations) of each module that takes part, by name."""
    with torch.no_grad(), counting(module.eval()) as counter:
        module(*inputs)
    rows = counter.counts(module)
    return {row.name: (row.parameters, row.flops, row.activations) for row in rows}


def by_name(rows):
    return {row.name: row for row in rows}


@pytest.mark.parametrize(
    "module, shape, flops, activations",
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 5, 7), 2 * 35 * 8 * 27, 2 * 35 * 8),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (1, 4, 9, 9), 16 * 6 * 18, 16 * 6),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6), (1, 6, 8, 8), 64 * 6 * 25, 64 * 6),
        (nn.Conv1d(4, 5, 1), (1, 4, 10), 10 * 20, 50),
        (nn.ConvTranspose2d(4, 5, 2, stride=2), (1, 4, 3, 3), 9 * 4 * 5 * 4, 36 * 5),
        (nn.Linear(10, 20), (3, 10), 3 * 200, 60),
        (nn.Linear(10, 20, bias=False), (2, 3, 10), 6 * 200, 120),
        (nn.Sequential(nn.LayerNorm(10), nn.GELU(), nn.Softmax(-1)), (3, 10), 0, 0),
    ],
)
def test_a_layer_has_the_multiply_adds_of_its_formula(module, shape, flops, activations):
    size = sum(parameter.numel() for parameter in module.parameters())
    assert count(module, torch.zeros(shape))[""] == (size, flops, activations)


class Attention(nn.Module):
    """PyTorch's function, which has fused kernels."""

    def forward(self, query, key, mask=None):
        return F.scaled_dot_product_attention(query, key, key, mask)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_counts_both_of_its_products(masked):
    batch, heads, queries, keys, width = 2, 4, 10, 30, 8
    query = torch.rand(batch, heads, queries, width)
    key = torch.rand(batch, heads, keys, width)
    mask = torch.ones(queries, keys, dtype=torch.bool) if masked else None
    found = count(Attention(), query, key, mask)[""]
    pairs = batch * heads * queries * keys
    assert found == (0, 2 * pairs * width, pairs + query.numel())


@pytest.mark.parametrize("layers", [0, 2])
def test_the_fast_path_of_pytorchs_transformer_hides_nothing(layers):
    width, hidden, tokens = 16, 40, 12
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    x = torch.rand(1, tokens, width)
    if layers:
        layer = nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True)
        module = nn.TransformerEncoder(layer, layers)
        wanted = layers * (attention + 2 * tokens * width * hidden)
        assert count(module, x)[""][1] == wanted
    else:
        module = nn.MultiheadAttention(width, 4, batch_first=True)
        assert count(module, x, x, x)[""][1] == attention


def test_resnet50_has_its_4_billion():
    found = count(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224))
    parameters, flops, activations = found[""]
    assert parameters == 25_557_032  # torchvision's documentation: 25.6 M and 4.09 GFLOPS
    assert flops == pytest.approx(4.09e9, rel=2e-3)
    assert activations == pytest.approx(11.1e6, rel=5e-3)  # Radosavovic et al. 2020
    assert found["conv1"] == (64 * 147, 112**2 * 64 * 147, 112**2 * 64)
    assert found["fc"][1] == 2048 * 1000
    children = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    for i in range(3):
        assert sum(found[name][i] for name in children) == found[""][i]


def test_products_into_an_earlier_output_are_counted_and_are_no_activations():
    class InPlace(nn.Module):
        def forward(self, x):
            total = x.new_zeros(4, 6)
            total.addmm_(x[:, :3], x.new_ones(3, 6)).addmm_(x[:, 3:], x.new_ones(2, 6))
            return total @ x.new_ones(6)  # a vector

    assert count(InPlace(), torch.ones(4, 5))[""] == (0, 4 * 5 * 6 + 24, 4)


def test_what_two_modules_share_counts_once_and_every_call_counts():
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    module[2].weight = module[0].weight
    module.append(module[0])
    found = count(module, torch.zeros(2, 6))
    assert found == {"": (48, 216, 36), "0": (42, 144, 24), "2": (42, 72, 12)}


def test_counting_leaves_nothing_behind_even_after_an_error():
    module = nn.Linear(3, 3)
    model = nn.Sequential(module)
    with pytest.raises(RuntimeError, match="shapes"), counting(model):
        model(torch.zeros(2, 5))
    assert not module._forward_hooks and not module._forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled()
    with counting(model) as counter:
        pass
    model(torch.zeros(2, 3))
    assert counter.flops == {}


class Deformable(nn.Module):
    def __init__(self, backend, fused):
        super().__init__()
        self.backend, self.function = backend, ms_deform_attn_fused if fused else ms_deform_attn

    def forward(self, *inputs):
        return self.function(*inputs, backend=self.backend)


@pytest.mark.parametrize("fused", [False, True])
def test_deformable_attention_counts_four_for_each_sampled_value_on_every_backend(fused):
    batch, queries, heads, width, points = 2, 7, 4, 8, 3
    shapes = [(5, 6), (3, 4)]
    value = torch.rand(batch, 42, heads, width)
    locations = torch.rand(batch, queries, heads, 2, points, 2)
    weights = torch.rand(batch, queries, heads, 2, points)
    inputs = (value, shapes, locations, weights)
    if fused:
        inputs = (value, shapes, torch.rand(batch, queries, 2, 2), locations, weights)
    names = [backend.name for backend in backends() if backend.why_not is None]
    found = {name: count(Deformable(name, fused), *inputs)[""][1] for name in names}
    cpu = [name for name in names if name != "cuda"]
    assert "reference" in cpu
    assert {found[name] for name in cpu} == {4 * batch * queries * heads * width * 2 * points}


@pytest.mark.parametrize("kind", KINDS)
def test_counting_shapes_equals_counting_a_real_run(kind):
    cfg = make_config(KINDS[kind])
    shapes, real = count_config(cfg, (70, 90)), count_model(make_model(cfg), (70, 90))
    assert by_name(shapes).keys() == by_name(real).keys()
    for row, other in zip(shapes, real, strict=True):
        assert (row.parameters, row.flops) == (other.parameters, other.flops), row.name
    whole, others = shapes[0], shapes[1:]
    assert whole.name == ""
    for part in ("parameters", "flops", "activations"):
        top = sum(getattr(row, part) for row in others if "." not in row.name)
        assert top == getattr(whole, part)  # nothing twice, nothing left out


def test_parameters_and_steps_of_a_model_with_ranking():
    cfg = make_config(MASK2FORMER | RANKSEG)
    model = make_model(cfg)
    rows = by_name(count_model(model, (64, 96)))
    for name, module in model.named_modules():
        size = sum(p.numel() for p in module.parameters())
        assert size == (rows[name].parameters if name in rows else 0)
    assert rows[CLASSIFY].flops == QUERIES * (TOPK + 1) * WIDTH
    assert rows[RESULT].flops == QUERIES * TOPK * 64 * 96
    plain = by_name(count_config(make_config(MASK2FORMER), (64, 96)))
    assert plain[RESULT].flops == QUERIES * CLASSES * 64 * 96
    assert plain["backbone"] == rows["backbone"]


def test_a_model_is_as_it_was_after_it_was_counted():
    model = make_model(make_config(MASK2FORMER | ORACLE))
    ranker, options = model.ranker, model.result_options
    count_model(model, (64, 64))
    assert model.ranker is ranker and model.ranker.oracle and model.result_options is options


def test_a_clip_of_three_frames_takes_three_times_the_backbone():
    cfg = make_config(MASK2FORMER | VIDEO)
    one, three = (by_name(count_config(cfg, (64, 96), frames)) for frames in (1, 3))
    for step in ("backbone", "sem_seg_head.pixel_decoder", RESULT):
        assert three[step].flops == 3 * one[step].flops
    assert three[""].flops < 3 * one[""].flops  # queries are shared
    assert three[""].parameters == one[""].parameters


@pytest.mark.parametrize(
    "keys, size, frames, message",
    [
        (MASK2FORMER, (64, 64), 2, "MaskFormer takes images, but 2 frames are asked for"),
        (MASK2FORMER, (0, 64), 1, r"at least 1; got \(0, 64\) and 1"),
        (MASK2FORMER | VIDEO, (64, 64), 0, r"at least 1; got \(64, 64\) and 0"),
        ({"MODEL.META_ARCHITECTURE": "MaskFormr"}, (64, 64), 1, "nearest names are MaskFormer"),
    ],
)
def test_bad_input_gets_a_sentence(keys, size, frames, message):
    with pytest.raises((ValueError, KeyError), match=message):
        count_config(make_config(keys), size, frames)
