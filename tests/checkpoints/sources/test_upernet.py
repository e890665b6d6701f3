"""Tables of names of UPerNet: mmsegmentation's, RankSeg's, BEiT's, CSWin's and HuggingFace's."""

import pytest
import torch
from detectron2.modeling import build_model
from support import pixel_golden
from support.backbones import public_weights
from support.small import RANKSEG, make_config
from torch.nn import functional as F

from rankseg_d2.checkpoints import rename
from rankseg_d2.checkpoints.sources import find_table, upernet
from rankseg_d2.checkpoints.sources.swin import by_channel, by_neighbour
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.checks import build_on_meta

HEAD = {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "UPerNetHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 11,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 24,
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.STRETCH": True,
    "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURE": "res4",
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CHANNELS": 20,
}
SWIN = HEAD | {
    "MODEL.BACKBONE.NAME": "D2SwinTransformer",
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.DEPTHS": [1, 2, 1, 2],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 4, 8],
}
BEIT = HEAD | {
    "MODEL.BACKBONE.NAME": "BEiT",
    "MODEL.BEIT.IMG_SIZE": [64, 64],
    "MODEL.BEIT.EMBED_DIM": 32,
    "MODEL.BEIT.DEPTH": 4,
    "MODEL.BEIT.NUM_HEADS": 4,
    "MODEL.BEIT.OUT_BLOCKS": [1, 2, 3, 4],
    "MODEL.BEIT.MLP_RATIO": 2.0,
    "MODEL.BEIT.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
}
CSWIN = HEAD | {
    "MODEL.BACKBONE.NAME": "CSWinTransformer",
    "MODEL.CSWIN.EMBED_DIM": 16,
    "MODEL.CSWIN.DEPTHS": [1, 2, 1, 1],
}
RANKED = RANKSEG | {
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False,
    "MODEL.RANKSEG.HEAD": "separable",
    "MODEL.RANKSEG.SHARE_EMBEDDING": True,
    "MODEL.RANKSEG.HIDDEN_DIM": 24,
}
OWN = RANKED | {"MODEL.RANKSEG.SHARE_EMBEDDING": False}
MODELS = [
    (upernet.UPERNET_SWIN, SWIN),
    (upernet.UPERNET_SWIN, SWIN | {"MODEL.SWIN.APE": True}),
    (upernet.UPERNET_SWIN_RANKSEG, SWIN | RANKED),
    (upernet.UPERNET_BEIT, BEIT),
    (upernet.UPERNET_BEIT_RANKSEG, BEIT | OWN),
    (upernet.UPERNET_CSWIN, CSWIN),
    (upernet.UPERNET_MMSEG_BEIT, BEIT),
    (upernet.HUGGINGFACE_UPERNET_SWIN, SWIN),
    (upernet.HUGGINGFACE_UPERNET_BEIT, BEIT),
]


def small(options):
    torch.manual_seed(0)
    model = build_model(make_config(options)).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model):
    for name, x in model.state_dict().items():
        if x.is_floating_point():
            x.uniform_(0.5, 1.5) if "running_var" in name else x.normal_(std=0.2)


@pytest.mark.parametrize(("table", "options"), MODELS)
def test_weights_come_back_from_the_other_names(table, options):
    weights = small(options).state_dict()
    theirs = table.to_theirs(weights)
    assert find_table(theirs) is table
    assert table.knows(weights) and not table.knows([*weights, "sem_seg_head.other.weight"])
    back = table.to_ours(theirs)
    assert back.keys() == weights.keys()
    for name, x in weights.items():
        assert back[name].equal(x), name
    renamed = [name for name in theirs if name.startswith(("sem_seg_head", "ml_"))]
    assert renamed == []


@pytest.mark.parametrize(("table", "options"), MODELS)
def test_a_file_is_loaded_as_it_is(table, options, tmp_path):
    saved, model = small(options), build_model(make_config(options)).eval()
    theirs = table.to_theirs(saved.state_dict())
    torch.save({"state_dict" if "mmseg" in table.name else "model": theirs}, tmp_path / "file.pth")
    Checkpointer(model).load(str(tmp_path / "file.pth"))
    for name, x in saved.state_dict().items():
        assert model.state_dict()[name].equal(x), name


@pytest.mark.parametrize(
    ("config", "table", "params"),
    [
        ("ade20k/semantic/upernet_swin_t", upernet.UPERNET_SWIN, 59.94),
        ("ade20k/semantic/upernet_swin_s", upernet.UPERNET_SWIN, 81.26),
        ("ade20k/semantic/upernet_swin_b", upernet.UPERNET_SWIN, 121.42),
        ("ade20k/semantic/upernet_cswin_t", upernet.UPERNET_CSWIN, 52.12),
        ("ade20k/semantic/upernet_beit_l", upernet.UPERNET_MMSEG_BEIT, 441.27),
        ("ade20k/semantic/upernet_beit_l", upernet.UPERNET_BEIT, 441.27),
    ],
)
def test_published_models_have_the_published_size_and_names(config, table, params):
    model = build_on_meta(get_config(config, ["MODEL.DEVICE", "cpu"]))
    assert sum(x.numel() for x in model.parameters()) / 1e6 == pytest.approx(params, abs=0.006)
    theirs = table.to_theirs(model.state_dict())
    assert find_table(theirs) is table
    if table is upernet.UPERNET_MMSEG_BEIT:
        assert theirs["backbone.layers.0.attn.relative_position_bias_table"].shape == (6244, 16)
        assert theirs["neck.upsample_4x.3.weight"].shape == (1024, 1024, 2, 2)


def test_names_are_all_those_that_the_references_train():
    for case, options in {
        "upernet_swint": (upernet.UPERNET_SWIN, "upernet_swin_t"),
        "upernet_rankseg_swint": (upernet.UPERNET_SWIN_RANKSEG, "upernet_swin_t_rankseg"),
        "upernet_beitb": (upernet.UPERNET_BEIT, "upernet_beit_b"),
        "mmseg_upernet_beitb": (upernet.UPERNET_MMSEG_BEIT, "upernet_beit_b"),
    }.items():
        table, config = options
        model = build_on_meta(get_config(f"ade20k/semantic/{config}", ["MODEL.DEVICE", "cpu"]))
        theirs = table.to_theirs(dict(model.named_parameters()))
        assert set(theirs) == set(pixel_golden.load(case)[1]["grad_names"]), case


def test_names_of_cswin_are_those_of_its_authors():
    model = build_on_meta(get_config("ade20k/semantic/upernet_cswin_t", ["MODEL.DEVICE", "cpu"]))
    theirs = upernet.UPERNET_CSWIN.to_theirs(model.state_dict())
    found = {
        name.removeprefix("backbone."): x.shape
        for name, x in theirs.items()
        if name.startswith("backbone.")
    }
    weights = public_weights("cswin_t_backbone")
    assert found == {name: x.shape for name, x in weights.items()}
    heads = {name.partition(".")[0] for name in theirs if not name.startswith("backbone.")}
    assert heads == {"decode_head", "auxiliary_head"}


def test_timms_beit_has_the_names_of_its_authors():
    """So weights such as beit_base_patch16_224.in22k_ft_in22k load, but for the head."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with torch.device("meta"):
        theirs = timm.create_model("beit_base_patch16_224").state_dict()
    model = build_on_meta(get_config("ade20k/semantic/upernet_beit_b", ["MODEL.DEVICE", "cpu"]))
    own = model.state_dict()
    rename(theirs, own)
    left = {name.partition(".")[0] for name in theirs if name not in own}
    assert left == {"fc_norm", "head"}
    lacking = {name for name in own if name.startswith("backbone.") and name not in theirs}
    assert all(name.startswith(("backbone.fpn1.", "backbone.fpn2.")) for name in lacking)
    resized = {name for name in theirs.keys() & own if theirs[name].shape != own[name].shape}
    assert all(name.endswith("relative_position_bias_table") for name in resized)


def test_merged_patches_are_those_of_unfold():
    """mmsegmentation merges by `unfold`; ours lists both rows of the first column first."""
    x = torch.randn(2, 3, 4, 6)  # (B, D, h, w)
    weight = torch.randn(5, 12)
    expected = (weight @ F.unfold(x, 2, stride=2)).mT  # (B, N, 5)
    patches = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    merged = patches.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)  # (B, N, 12)
    torch.testing.assert_close(merged @ by_neighbour(weight).mT, expected)
    assert by_channel(by_neighbour(weight)).equal(weight)


def huggingface(kind):
    """A model of transformers with random weights."""
    transformers = pytest.importorskip(
        "transformers", reason="transformers, with which ours is compared, is not installed"
    )
    torch.manual_seed(0)
    if kind == "swin":
        backbone = transformers.SwinConfig(
            embed_dim=16, depths=[1, 2, 1, 2], num_heads=[1, 2, 4, 8], window_size=7,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = transformers.UperNetConfig(
            backbone_config=backbone, hidden_size=24, num_labels=11, auxiliary_in_channels=64,
            auxiliary_channels=20,
        )  # fmt: skip
        model = transformers.UperNetForSemanticSegmentation(config)
    else:
        config = transformers.BeitConfig(
            hidden_size=32, num_hidden_layers=5, num_attention_heads=4, intermediate_size=64,
            image_size=64, use_relative_position_bias=True, num_labels=11,
            out_indices=[2, 3, 4, 5],  # it reads the outputs of the blocks before these
            auxiliary_channels=20, layer_norm_eps=1e-6,
        )  # fmt: skip
        model = transformers.BeitForSemanticSegmentation(config)
    randomise(model)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "size"), [("swin", (64, 64)), ("swin", (37, 75)), ("beit", (64, 64))]
)
def test_huggingfaces_model_computes_the_same(kind, size, tmp_path):
    theirs = huggingface(kind)
    theirs.save_pretrained(tmp_path)
    model = small({"swin": SWIN, "beit": BEIT}[kind])
    Checkpointer(model).load(str(tmp_path / "model.safetensors"))
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs(pixel_values=images).logits
        found = model.decide(model.network(images)).logits[-1]
    found = F.interpolate(found, expected.shape[-2:], mode="bilinear", align_corners=False)
    error = (found - expected).abs().max() / expected.std()
    assert error < 1e-4
