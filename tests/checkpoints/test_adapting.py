"""Public, old and foreign checkpoints load into the models, and the log says how.

`data/golden_keys.json.gz` has the names and shapes of public checkpoints.
"""

import gzip
import json
import logging
import pickle
import zlib

import numpy as np
import pytest
import timm
import torch
from detectron2.modeling import build_model
from support import golden, small

from rankseg_d2.checkpoints import Rows, adapt, rename
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer

GOLDEN = json.loads((golden.DATA / "golden_models.json").read_text())
KEYS = json.loads(gzip.decompress((golden.DATA / "golden_keys.json.gz").read_bytes()))

RANKSEG = {
    "MODEL.RANKSEG.FLAG": True,
    "MODEL.RANKSEG.TOPK": 150,
    "MODEL.RANKSEG.LOSS_WEIGHT": 10,
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True,
}
PUBLIC = {  # the configs that GOLDEN does not have: one that it has, and the differences
    "gt_oracle_r50_sem": ("mask2former_r50_sem", {"MODEL.RANKSEG.USE_GT": True}),
    "maskformer_v1_r50_pan": (
        "maskformer_v1_r50_sem",
        {
            "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
            "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 6,
            "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
        },
    ),
    "maskformer_v1_swint_sem": (
        "maskformer_v1_r50_sem",
        {"MODEL.BACKBONE.NAME": "D2SwinTransformer"},
    ),
    "rankseg_r50_pan": ("mask2former_r50_sem", RANKSEG),
    "rankseg_swin_topk50_sem": ("rankseg_swinb_like_sem", {"MODEL.RANKSEG.TOPK": 50}),
    "shared_embedding_r50_sem": (
        "mask2former_r50_sem",
        RANKSEG | {"MODEL.RANKSEG.SHARE_EMBEDDING": True, "MODEL.RANKSEG.HIDDEN_DIM": 256},
    ),
    "video_rankseg_r50_vspw_topk30": ("video_rankseg_r50_vspw", {"MODEL.RANKSEG.TOPK": 30}),
    "video_rankseg_r50_ytvis": (
        "video_rankseg_r50_vspw",
        {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 40, "MODEL.RANKSEG.TOPK": 40},
    ),
}
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.BACKBONE.NAME": "D2SwinTransformer",
    "MODEL.SWIN.EMBED_DIM": 8,
    "MODEL.SWIN.DEPTHS": [2, 1, 1, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MODEL.MASK_FORMER.DEC_LAYERS": 4,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 6,
}
SMALL_RANKSEG = RANKSEG | {"MODEL.RANKSEG.TOPK": 4, "MODEL.RANKSEG.HIDDEN_DIM": 64}
SMALL_V1 = {
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
}
CLASS_EMBED = "sem_seg_head.predictor.class_embed"
CLASS_ROWS = {f"{CLASS_EMBED}.weight": Rows("classes", closed=True)}


@pytest.fixture
def config(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    return lambda keys: get_config(empty, [word for item in keys.items() for word in item])


@pytest.fixture
def make(config):
    """A small model with random weights; the options are config keys."""

    def build(*options):
        keys = dict(SMALL)
        for option in options:
            keys |= option
        return build_model(config(keys))

    return build


@pytest.fixture
def log():
    """The log records of the checkpointer about the weights."""

    class Keep(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith(("The model's", "Nothing")):
                records.append(record)

    records, keep = [], Keep()
    logger = Checkpointer(torch.nn.Identity()).logger
    level = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(keep)
    logger.setLevel(level)


def counts(log):
    """The (only) record's first line in numbers."""
    (record,) = log
    words = record.getMessage().splitlines()[0].replace(",", "").split()
    return {words[i + 1]: int(words[i]) for i in range(len(words) - 1) if words[i].isdigit()}


def clone(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(weights, others):
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def save(path, weights, **extra):
    if path.suffix == ".pkl":
        arrays = {name: np.asarray(value) for name, value in weights.items()}
        path.write_bytes(pickle.dumps({"model": arrays, **extra}, 4))
    else:
        torch.save({"model": weights, **extra}, path)
    return str(path)


# --- public names and shapes ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", KEYS)
def test_every_public_checkpoint_loads_wholly(case, config, tmp_path, log):
    base, options = PUBLIC.get(case, (case, {}))
    model = build_model(config(GOLDEN[base]["config"] | {"MODEL.DEVICE": "cpu"} | options))
    constants = clone(model)
    for dtype, suffix in [(torch.float32, ".pth"), (torch.float16, ".pkl")]:
        weights, expected = {}, {}
        for name, shape in KEYS[case]:
            if name.endswith(("relative_position_index", "empty_weight")):
                weights[name] = constants[name]
                assert list(constants[name].shape) == shape
            else:  # one number per name, which .pth files do not repeat, in halves for .pkl's sake
                expected[name] = zlib.crc32((suffix + name).encode()) % 1024 / 1024
                weights[name] = torch.tensor(expected[name], dtype=dtype).expand(shape)
        file = tmp_path / f"model{suffix}"
        Checkpointer(model).load(save(file, weights, __author__="someone"))
        file.unlink()
        total = len(KEYS[case])
        assert counts([log[-1]]) == {
            "weights:": total, "loaded": total, "adapted": 0, "fresh;": 0, "unused": 0,
        }  # fmt: skip
        loaded = model.state_dict()
        assert loaded.keys() == weights.keys()
        for name, value in expected.items():
            low, high = loaded[name].aminmax()
            assert low.item() == high.item() == value, name


# --- old names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_head_before_version_2_had_no_pixel_decoder_prefix(suffix, make, tmp_path, log):
    source, model = make(SMALL_V1), make(SMALL_V1)
    old = {
        name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head."): value
        for name, value in clone(source).items()
    }
    for name in ("adapter_1.weight", "layer_4.weight", "mask_features.bias", "input_proj.weight"):
        assert f"sem_seg_head.{name}" in old
    assert "sem_seg_head.transformer.encoder.layers.0.linear1.weight" in old
    Checkpointer(model).load(save(tmp_path / f"a{suffix}", old))
    assert counts(log)["loaded"] == len(old)
    assert_same(model.state_dict(), source.state_dict())


def test_static_query_is_todays_query_feat(make, tmp_path, log):
    source, model = clone(make()), make()
    old = {name.replace("query_feat", "static_query"): value for name, value in source.items()}
    assert "sem_seg_head.predictor.static_query.weight" in old
    Checkpointer(model).load(save(tmp_path / "a.pth", old))
    assert counts(log)["fresh;"] == counts(log)["unused"] == 0
    loaded = model.sem_seg_head.predictor.query_feat.weight
    assert torch.equal(loaded, source["sem_seg_head.predictor.query_feat.weight"])


def test_names_move_only_where_the_new_one_is_the_models():
    weights = {"sem_seg_head.predictor.input_proj.weight": 0, "sem_seg_head.p2.weight": 1, "x": 2}
    weights |= {"module.y": 3, "sem_seg_head.layer_1.bias": 4, "backbone.z": 5, "z": 6}
    own = {"sem_seg_head.pixel_decoder.predictor.input_proj.weight", "backbone.x", "y"}
    own |= {"sem_seg_head.layer_1.bias", "sem_seg_head.pixel_decoder.layer_1.bias", "backbone.z"}
    rename(weights, own)
    assert weights == {
        "sem_seg_head.predictor.input_proj.weight": 0,
        "sem_seg_head.p2.weight": 1,
        "backbone.x": 2,
        "y": 3,
        "sem_seg_head.layer_1.bias": 4,
        "backbone.z": 5,
        "z": 6,
    }


def test_versions_of_the_layers_survive(make, tmp_path, monkeypatch):
    source, model, seen = make(), make(), []
    Checkpointer(source, str(tmp_path)).save("a")
    take = model.load_state_dict

    def record(state, *args, **kwargs):
        seen.append(state._metadata["sem_seg_head"])
        return take(state, *args, **kwargs)

    monkeypatch.setattr(model, "load_state_dict", record)
    Checkpointer(model).load(str(tmp_path / "a.pth"))
    assert seen == [{"version": 2}]


# --- backbones alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(
    "suffix, extra",
    [
        (".pth", {}),
        (".pkl", {}),
        (".pkl", {"__author__": "third_party", "matching_heuristics": True}),
    ],
)
def test_imagenet_swin_loads_into_the_backbone(prefix, suffix, extra, make, tmp_path, log):
    source, model = make(), make()
    weights = clone(source.backbone)
    norms = [name for name in weights if name.startswith("norm")]  # the files have none of these
    for name in norms:
        del weights[name]
    given = {prefix + name: value for name, value in weights.items()}
    # Weights for classification only. The last norm has the same size and must not take theirs.
    left = {"norm.weight": torch.full((32,), 7.0), "head.weight": torch.zeros(10, 64)}
    left["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    Checkpointer(model).load(save(tmp_path / f"swin{suffix}", given | left, **extra))
    loaded = clone(model.backbone)
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert not any(value.eq(7).all() for value in model.state_dict().values())
    found = counts(log)
    assert found["loaded"] == len(weights) and found["unused"] == len(left)
    assert found["loaded"] + found["fresh;"] == len(model.state_dict())
    assert "unused: norm.weight, head.weight, layers.0.blocks.1.attn_mask" in log[0].getMessage()


RESNET18 = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.STEM_TYPE": "basic",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
}


def test_imagenet_resnet_loads_into_the_backbone(make, tmp_path, log):
    source, model = make(RESNET18), make(RESNET18)
    weights = clone(source.backbone)
    assert "stem.conv1.norm.running_var" in weights and "res2.0.conv1.weight" in weights
    golden.fill(weights)
    left = {"stem.fc.weight": torch.zeros(10, 512), "stem.fc.bias": torch.zeros(10)}
    zoo = {"__author__": "torchvision", "matching_heuristics": True}
    Checkpointer(model).load(save(tmp_path / "R-18.pkl", weights | left, **zoo))
    loaded = clone(model.backbone)
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert counts(log)["loaded"] == len(weights)
    assert "unused: stem.fc.weight, stem.fc.bias" in log[0].getMessage()


def test_torchvisions_resnet_loads_into_the_backbone(make, tmp_path, log):
    """Under torchvision's names; equal features show that each weight is in its layer."""
    torchvision = pytest.importorskip("torchvision")
    source, model = torchvision.models.resnet18(weights=None).eval(), make(RESNET18).eval()
    for name, value in source.state_dict().items():
        if name.endswith(("running_var", "running_mean")):
            value.uniform_(0.5, 1.5)
    path = tmp_path / "resnet18-f37072fd.pth"
    torch.save(source.state_dict(), path)
    Checkpointer(model).load(str(path))
    counted = [name for name in source.state_dict() if name.endswith("num_batches_tracked")]
    assert counts(log)["loaded"] == len(source.state_dict()) - len(counted) - 2  # fc
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = source.maxpool(source.bn1(source.conv1(image)).relu())
        for name in ("res2", "res3", "res4", "res5"):
            features = getattr(source, f"layer{int(name[-1]) - 1}")(features)
            torch.testing.assert_close(model.backbone(image)[name], features)


def test_timms_swin_loads_into_the_backbone(make, tmp_path, log):
    """It merges patches before a stage, not after the one before."""
    keys = {"MODEL.BACKBONE.NAME": "D2SwinTransformer", "MODEL.SWIN.EMBED_DIM": 16}
    keys |= {"MODEL.SWIN.DEPTHS": [1, 1, 2, 1], "MODEL.SWIN.NUM_HEADS": [1, 2, 2, 4]}
    keys |= {"MODEL.SWIN.WINDOW_SIZE": 4, "MODEL.SWIN.DROP_PATH_RATE": 0.0}
    model = make(keys).eval()
    source = timm.models.SwinTransformer(
        img_size=128, embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4), window_size=4
    ).eval()
    for name, value in source.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    path = tmp_path / "swin.pth"
    torch.save(source.state_dict(), path)
    Checkpointer(model).load(str(path))
    unused = {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    assert counts(log)["loaded"] == len(source.state_dict()) - len(unused)
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        x = source.patch_embed(image)
        for i, stage in enumerate(source.layers):
            x = stage(x)  # (B, h, w, D)
            feature = getattr(model.backbone, f"norm{i}")(x).permute(0, 3, 1, 2)
            torch.testing.assert_close(model.backbone(image)[f"res{i + 2}"], feature)


# --- between kinds of models ----------------------------------------------------------------------


def test_mask2former_starts_a_rankseg_model(make, tmp_path, log):
    source, model = clone(make()), make(SMALL_RANKSEG)
    fresh = {name for name in model.state_dict() if name.startswith(("ml_head", "ml_norm"))}
    before = clone(model)
    Checkpointer(model).load(save(tmp_path / "a.pth", source))
    loaded = model.state_dict()
    for name, value in loaded.items():
        assert torch.equal(value, before[name] if name in fresh else source[name]), name
    assert counts(log) == {
        "weights:": len(loaded),
        "loaded": len(loaded) - len(fresh),
        "adapted": 0,
        "fresh;": len(fresh),
        "unused": 1,
    }
    assert f"fresh: ml_head ({len(fresh) - 2}), ml_norm (2)" in log[0].getMessage()
    assert f"unused: {CLASS_EMBED}.bias" in log[0].getMessage()
    assert log[0].levelno == logging.INFO


@pytest.mark.parametrize("kinds", [("", "Video"), ("Video", "")])
def test_images_and_videos_share_their_checkpoints(kinds, make, tmp_path, log):
    source, model = (
        make(SMALL_RANKSEG, {"MODEL.META_ARCHITECTURE": f"{kind}MaskFormer"}) for kind in kinds
    )
    assert type(source) is not type(model)
    Checkpointer(model).load(save(tmp_path / "a.pkl", clone(source)))
    assert counts(log)["loaded"] == len(model.state_dict())
    assert_same(model.state_dict(), source.state_dict())


# --- other classes, queries, ranks ----------------------------------------------------------------

THERE = ["wall", "sky", "Person ", "car", "tree", "dog"]
HERE = ["person", "cat", "sky"]


def test_class_rows_go_by_name(make, tmp_path, log):
    old = make(SMALL_RANKSEG, {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 6})
    Checkpointer(old, str(tmp_path), class_names=THERE).save("old")
    model = make(SMALL_RANKSEG, {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3, "MODEL.RANKSEG.TOPK": 3})
    before = clone(model)
    rest = Checkpointer(model, class_names=HERE).load(str(tmp_path / "old.pth"))
    assert rest["class_names"] == THERE

    there, here = clone(old), clone(model)
    name = f"{CLASS_EMBED}.weight"
    expected = torch.stack([there[name][2], before[name][1], there[name][1], there[name][6]])
    assert torch.equal(here[name], expected)
    for name in ("ml_head.cls_emb", "ml_head.fc.W", "ml_head.fc.b"):
        rows = [there[name][0, 2], before[name][0, 1], there[name][0, 1]]
        assert torch.equal(here[name], torch.stack(rows)[None]), name
    for name in ("ml_norm.weight", "ml_norm.bias"):
        assert torch.equal(here[name], there[name][[0, 1, 2, 4]]), name
    assert torch.equal(here["criterion.empty_weight"], torch.tensor([1, 1, 1, 0.1]))

    text = log[0].getMessage()
    assert counts(log)["adapted"] == 7 and counts(log)["fresh;"] == counts(log)["unused"] == 0
    assert f"adapted, 2 of 3 classes by name and no-object (the file has 6): {CLASS_EMBED}" in text
    assert "adapted, 2 of 3 classes by name (the file has 6): ml_head.cls_emb, ml_head.fc.W" in text
    assert "adapted, 3 of 3 ranks and no-object (the file has 4): ml_norm.weight, ml_nor" in text
    assert "adapted, as the config defines it: criterion.empty_weight" in text
    assert len(log) == 1


def test_as_many_classes_in_another_order_go_by_name():
    weights = {f"{CLASS_EMBED}.weight": torch.arange(4.0)}
    own = {f"{CLASS_EMBED}.weight": torch.full((4,), -1.0)}
    names = ["a", "b", "c"]
    result = adapt(weights, own, names, ["c", "a", "x"], CLASS_ROWS)
    assert result.weights[f"{CLASS_EMBED}.weight"].tolist() == [2, 0, -1, 3]
    for classes, own_classes in [(names, names), (None, names), (names, None), (["a", "b"], names)]:
        result = adapt(weights, own, classes, own_classes, CLASS_ROWS)
        assert result.weights == weights and not result.adapted


def test_without_names_only_no_object_is_taken_over(make, tmp_path, log):
    old = clone(make({"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 7}))
    model = make()
    before = clone(model)
    Checkpointer(model, class_names=["a", "b", "c", "d", "e"]).load(save(tmp_path / "a.pth", old))
    for part in ("weight", "bias"):
        name = f"{CLASS_EMBED}.{part}"
        assert torch.equal(model.state_dict()[name][:5], before[name][:5])
        assert torch.equal(model.state_dict()[name][5], old[name][7])
    assert "0 of 5 classes, whose names are not known on both sides, and no-object" in (
        log[0].getMessage()
    )


def test_tokens_without_a_class_in_common_stay_fresh():
    weights = {"ml_head.fc.b": torch.zeros(1, 3)}
    own = {f"{CLASS_EMBED}.weight": torch.zeros(3, 8), "ml_head.fc.b": torch.ones(1, 2)}
    rows = {"ml_head.fc.b": Rows("classes", dim=1)}
    result = adapt(weights, own, rows=rows)
    assert result.refused.keys() == {"ml_head.fc.b"} and not result.weights
    own["ml_head.fc.b"] = torch.ones(1, 3)
    result = adapt(weights, own, ["a", "b", "c"], ["x", "y", "z"], rows)
    assert result.refused == {"ml_head.fc.b": "0 of 3 classes by name"}


def test_class_rows_of_any_weight_go_by_name():
    own, rows = {"x": torch.tensor([-1.0, -2, -3])}, {"x": Rows("classes")}
    result = adapt({"x": torch.arange(4.0)}, own, list("abcd"), list("dxa"), rows)
    assert result.weights["x"].tolist() == [3, -2, 0]
    assert result.adapted["x"] == "2 of 3 classes by name (the file has 4)"
    assert adapt({"x": torch.arange(4.0)}, own, rows=rows).refused.keys() == {"x"}
    assert adapt({"x": torch.arange(4.0)}, own, list("abcd"), list("dxa")).refused.keys() == {"x"}


MODELS = {
    "mask": small.RANKSEG,
    "pixels": {
        "MODEL.META_ARCHITECTURE": "PixelClassifier",
        "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    },
    "pixels plus": {
        "MODEL.META_ARCHITECTURE": "PixelClassifier",
        "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselinePlusHead",
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": small.CLASSES,
    },
}
FILES = {  # what has rows for classes
    "mask": {"class_embed.weight", "ml_head.cls_emb", "ml_head.fc.W", "ml_head.fc.b"},
    "pixels": {"predictor.weight", "predictor.bias"},
    "pixels plus": {"query_embed.weight", "query_feat.weight"},
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_says_which_of_its_rows_are_classes(kind):
    model = build_model(small.make_config(small.MASK2FORMER, MODELS[kind]))
    state, rows = model.state_dict(), model.checkpoint_rows()
    for name in state.keys() & rows.keys():
        size = {"classes": small.CLASSES, "queries": small.QUERIES, "ranks": 4}[rows[name].meaning]
        assert state[name].shape[rows[name].dim] == size + rows[name].closed, name
    found = {n for n in state if n in rows and rows[n].meaning == "classes"}
    assert all(any(name.endswith(end) for name in found) for end in FILES[kind])
    assert len(found) == len(FILES[kind])


@pytest.mark.parametrize("number", [4, 9])
def test_queries_go_by_number(number, make, tmp_path, log):
    old = clone(make({"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": number}))
    model = make()
    before = clone(model)
    Checkpointer(model).load(save(tmp_path / "a.pkl", old))
    shared = min(number, 6)
    for part in ("query_feat", "query_embed"):
        name = f"sem_seg_head.predictor.{part}.weight"
        assert torch.equal(model.state_dict()[name][:shared], old[name][:shared])
        assert torch.equal(model.state_dict()[name][shared:], before[name][shared:])
    expected = f"adapted, {shared} of 6 queries (the file has {number}): sem_seg_head.predictor.q"
    assert expected in log[0].getMessage() and counts(log)["adapted"] == 2


@pytest.mark.parametrize("topk", [2, 5])
def test_ranks_go_by_number_and_no_object_to_no_object(topk):
    weights = {"ml_norm.weight": torch.arange(topk + 1.0)}
    own = {f"{CLASS_EMBED}.weight": torch.zeros(3, 8)}
    own["ml_norm.weight"] = torch.tensor([-1.0, -2, -3, -4])
    expected = {2: [0, 1, -3, 2], 5: [0, 1, 2, 5]}[topk]
    rows = {"ml_norm.weight": Rows("ranks", closed=True)}
    assert adapt(weights, own, rows=rows).weights["ml_norm.weight"].tolist() == expected


def test_other_widths_are_refused_with_their_shapes(make, tmp_path, log):
    old = make({"MODEL.SEM_SEG_HEAD.MASK_DIM": 64})
    Checkpointer(make()).load(save(tmp_path / "a.pth", clone(old)))
    found = counts(log)
    assert found["fresh;"] == found["unused"] == 4 and found["adapted"] == 0
    text = log[0].getMessage()
    assert "(64, 32) in the file and (32, 32) in the model: sem_seg_head.predictor.mask_" in text


def test_many_other_shapes_are_counted_by_part(make, tmp_path, log):
    old = make({"MODEL.SWIN.EMBED_DIM": 16})
    Checkpointer(make()).load(save(tmp_path / "a.pth", clone(old)))
    text = log[0].getMessage()
    assert "unused, of shapes that differ from the model's: backbone (" in text
    assert len(text.splitlines()) == 4


def test_half_precision_rows_become_the_models_type():
    weights = {f"{CLASS_EMBED}.weight": torch.ones(3, dtype=torch.float16)}
    result = adapt(weights, {f"{CLASS_EMBED}.weight": torch.zeros(4)}, rows=CLASS_ROWS)
    result = result.weights[f"{CLASS_EMBED}.weight"]
    assert result.dtype == torch.float32 and result.tolist() == [0, 0, 0, 1]


def test_a_file_of_which_nothing_fits_is_a_warning(make, tmp_path, log):
    model = make()
    before = clone(model)
    file = save(tmp_path / "a.pth", {"foo": torch.ones(2), "norm.weight": torch.ones(3)})
    Checkpointer(model).load(file)
    (record,) = log
    assert record.levelno == logging.WARNING
    assert "the file has foo, norm.weight; check MODEL.WEIGHTS" in record.getMessage()
    assert_same(model.state_dict(), before)


# --- resuming -------------------------------------------------------------------------------------


def test_resume_is_exact(make, tmp_path, log):
    model = make(SMALL_RANKSEG)
    model.criterion.empty_weight.fill_(3)
    Checkpointer(model, str(tmp_path), class_names=list("abcde")).save("model_0000001", iteration=1)
    resumed = make(SMALL_RANKSEG)
    # Other names of the classes do not move rows here.
    checkpointer = Checkpointer(resumed, str(tmp_path), class_names=list("edcba"))
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    assert_same(resumed.state_dict(), model.state_dict())
    assert log == []


def test_resume_with_another_config_names_what_changed(make, tmp_path):
    Checkpointer(make(), str(tmp_path)).save("model_0000001")
    model = make(SMALL_RANKSEG, {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 9})
    before = clone(model)
    with pytest.raises(
        RuntimeError,
        match=r"model_0000001\.pth cannot be resumed.*criterion\.empty_weight is \(6,\) in the "
        r"file and \(10,\) in the model; .*ml_head\S+ is in the model only.* more; resume with the",
    ):
        Checkpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert_same(model.state_dict(), before)
    # The same file as a start of something new is adapted.
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.resume_or_load(str(tmp_path / "model_0000001.pth"), resume=False)
    assert not torch.equal(clone(model)[f"{CLASS_EMBED}.weight"], before[f"{CLASS_EMBED}.weight"])


def test_first_start_with_resume_adapts(make, tmp_path):
    file = save(tmp_path / "a.pth", clone(make({"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 3})))
    Checkpointer(make(), str(tmp_path / "run")).resume_or_load(file, resume=True)
