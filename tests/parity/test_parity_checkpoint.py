"""Embedded checkpoint loading against detectron2's: same names, same weights, same leftovers."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from rankseg_d2._detectron2 import checkpoint as ours
from rankseg_d2._detectron2.checkpoint import c2_model_loading as our_names

theirs = pytest.importorskip("detectron2.checkpoint")
their_names = pytest.importorskip("detectron2.checkpoint.c2_model_loading")

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def caffe2_names(depth, norms):
    """The names of a Caffe2 ResNet: its weights, its norms, its classifier, its momenta."""
    convs = ["conv1"]
    for stage, blocks in enumerate(BLOCKS[depth], start=2):
        for block in range(blocks):
            branches = ["branch2a", "branch2b", "branch2c"] + ["branch1"] * (block == 0)
            convs += [f"res{stage}_{block}_{branch}" for branch in branches]
    names = [f"{conv}_w" for conv in convs]
    names += ["conv1_b", "fc1000_w", "fc1000_b", "pred_w", "pred_b"]
    for conv in convs:
        conv = "res_conv1" if conv == "conv1" else conv
        names += [f"{conv}_{norm}" for norm in norms]
    return names


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize(
    "norms",
    [
        ("bn_s", "bn_b"),
        ("bn_s", "bn_b", "bn_rm", "bn_riv"),
        ("bn_gamma", "bn_beta", "bn_running_mean", "bn_running_var"),
        ("gn_s", "gn_b"),
    ],
)
def test_caffe2_names_convert_equally(depth, norms):
    names = caffe2_names(depth, norms)
    assert len(names) > 100
    expected = their_names.convert_basic_c2_names(names)
    assert our_names.convert_basic_c2_names(names) == expected
    weights = {name: torch.full((1,), i) for i, name in enumerate(names)}
    assert our_names.convert_c2_detectron_names(dict(weights)) == (
        their_names.convert_c2_detectron_names(dict(weights))
    )


@pytest.mark.parametrize("name", ["lr", "model_iter", "weight_order", "conv2_w"])
def test_other_caffe2_names_convert_equally(name):
    expected = their_names.convert_basic_c2_names([name])
    assert our_names.convert_basic_c2_names([name]) == expected


def tensors(**shapes):
    return {name.replace("_", "."): torch.rand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "model, checkpoint",
    [
        (tensors(a_x_w=2, b_y_w=2), tensors(x_w=2, w=2)),
        (tensors(a_x_w=2, b_y_w=2), tensors(x_w=2, y_w=3, zz=1)),
        (tensors(a_w=2), tensors(q=2)),
        (tensors(a_w=2), tensors(b_a_w=2)),
        (tensors(a_x_w=2, x_w=2), tensors(x_w=2, a_x_w=2)),
        (tensors(a_weight=(2, 2), b_weight=2), tensors(weight=(2, 2))),
        (tensors(ax_w=2), tensors(x_w=2)),
        (
            tensors(a_res2_0_conv1_weight=2, a_res2_0_conv1_norm_bias=3, a_res3_0_conv1_weight=4),
            {"res2_0_branch2a_w": torch.rand(2), "res2_0_branch2a_bn_b": torch.rand(4)},
        ),
    ],
)
def test_suffixes_match_equally(model, checkpoint):
    options = {"c2_conversion": "res2_0_branch2a_w" in checkpoint}
    expected = their_names.align_and_update_state_dicts(dict(model), dict(checkpoint), **options)
    result = our_names.align_and_update_state_dicts(dict(model), dict(checkpoint), **options)
    assert result.keys() == expected.keys()
    assert all(result[name] is expected[name] for name in result)


def test_ambiguous_suffixes_are_an_error_on_both():
    model = tensors(a_x_w=2, b_x_w=2)
    for engine in (our_names, their_names):
        with pytest.raises(ValueError):
            engine.align_and_update_state_dicts(model, tensors(x_w=2), c2_conversion=False)


@pytest.fixture(scope="module")
def resnet():
    """Gives copies of a model that is nothing but a ResNet-50 backbone, a narrow one."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res5"]
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    model = nn.ModuleDict({"backbone": build_backbone(cfg)})
    return lambda: copy.deepcopy(model)


def random_state(resnet):
    torch.manual_seed(1)
    state = resnet()["backbone"].state_dict()
    return {name: torch.rand(value.shape) for name, value in state.items()}


def load_with_both(resnet, path):
    """The states and the leftovers after both engines loaded the file."""
    results = []
    for engine in (ours, theirs):
        model = resnet()
        rest = engine.DetectionCheckpointer(model).load(str(path))
        results.append((model.state_dict(), rest))
    (state, rest), (expected, expected_rest) = results
    assert state.keys() == expected.keys() and rest == expected_rest
    assert all(torch.equal(state[name], expected[name]) for name in state)
    return state


def test_caffe2_resnet_file_gives_the_same_state(tmp_path, resnet):
    shapes = {name: v.shape for name, v in resnet()["backbone"].state_dict().items()}
    blobs = {}
    for name in caffe2_names(50, ("bn_s", "bn_b")):
        shape = shapes.get(our_names.convert_basic_c2_names([name])[0], (3,))
        blobs[name] = np.full(shape, len(blobs) + 1, "f4")
        blobs[f"{name}_momentum"] = np.zeros(shape, "f4")
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    state = load_with_both(resnet, path)
    assert state["backbone.stem.conv1.weight"].eq(1).all()
    learned = [n for n in state if n.endswith(("weight", "bias"))]
    assert all(state[name].unique().numel() == 1 for name in learned)  # each came from the file


@pytest.mark.parametrize("heuristics", [True, False])
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_zoo_file_gives_the_same_state(tmp_path, resnet, prefix, heuristics):
    source = random_state(resnet)
    content = {
        "model": {prefix + name: value.numpy() for name, value in source.items()},
        "__author__": "torchvision",
    }
    content["model"]["extra.weight"] = np.ones(3, "f4")
    if heuristics:
        content["matching_heuristics"] = True
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    state = load_with_both(resnet, path)
    found = torch.equal(state["backbone.res2.0.conv1.weight"], source["res2.0.conv1.weight"])
    # a "module." prefix is cut off after the matching, and only if every name has it
    assert found == (prefix == "backbone." or (heuristics and prefix == ""))


@pytest.mark.parametrize("query", ["", "?matching_heuristics=True"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_torch_file_gives_the_same_state(tmp_path, resnet, query, wrapped):
    state = random_state(resnet)
    torch.save({"model": state, "iteration": 3} if wrapped else state, tmp_path / "a.pth")
    load_with_both(resnet, f"{tmp_path}/a.pth{query}")


def test_checkpoint_of_one_engine_resumes_on_the_other(tmp_path):
    for saver, loader, name in ((ours, theirs, "a"), (theirs, ours, "b")):
        source, model = nn.Linear(3, 2), nn.Linear(3, 2)
        saver.DetectionCheckpointer(source, str(tmp_path)).save(name, iteration=7)
        rest = loader.DetectionCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)
        assert rest == {"iteration": 7} and torch.equal(source.weight, model.weight)


def test_leftovers_are_reported_equally():
    model = nn.Linear(2, 2)
    model.register_buffer("pixel_mean", torch.zeros(3))
    model.register_buffer("pixel_std", torch.ones(3))
    results = []
    for engine in (ours, theirs):
        state = tensors(weight=(2, 2), bias=3, x_anchor=1)
        state["x.anchor_generator.cell_anchors.0"] = torch.ones(1)
        results.append(engine.DetectionCheckpointer(model)._load_model({"model": state}))
    assert results[0] == results[1]


def test_signatures_are_equal():
    for name in ("__init__", "load"):
        mine = inspect.signature(getattr(ours.DetectionCheckpointer, name))
        assert mine == inspect.signature(getattr(theirs.DetectionCheckpointer, name))
