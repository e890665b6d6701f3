"""The tables of names know mmsegmentation's models and RankSeg's models in it."""

import gzip
import json

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from support import golden, pixel_golden

from rankseg_d2.checkpoints.sources import Table, find_table
from rankseg_d2.checkpoints.sources.deeplab import DEEPLAB, DEEPLAB_RANKSEG, RESNET_V1C
from rankseg_d2.checkpoints.sources.encnet import ENC_HEAD
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.modeling.pixel_heads import ContextEncoding, EncHead

KEYS = golden.DATA / pixel_golden.FOLDER / "keys_deeplab_encnet.json.gz"
FILES = {  # config, table, and which file the model is
    "deeplabv3_r101_ade150": ("ade20k/semantic/deeplab_r101c", DEEPLAB),
    "deeplabv3_rankseg_r101_cocostuff171": (
        "coco_stuff/semantic/deeplab_r101c_rankseg",
        DEEPLAB_RANKSEG,
    ),
}


def shapes_of(file):
    """{name: shape} of a public file, or of the part of it that is known."""
    return {name: tuple(shape) for name, shape in json.loads(gzip.open(KEYS).read())[file]}


def weights_of(config):
    """The names of a model's weights, without their values."""
    cfg = get_config(config, ["MODEL.DEVICE", "cpu"])
    with torch.device("meta"):
        return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).state_dict()


def shapes(weights):
    return {name: tuple(weight.shape) for name, weight in weights.items()}


@pytest.mark.parametrize("file", FILES)
def test_a_models_weights_have_the_names_and_shapes_of_the_public_file(file):
    config, table = FILES[file]
    ours, public = weights_of(config), shapes_of(file)
    theirs = table.to_theirs(ours)
    parts = {name.partition(".")[0] for name in public}
    found = {name: shape for name, shape in shapes(theirs).items() if name.split(".")[0] in parts}
    assert found == public
    assert shapes(table.to_ours(theirs)) == shapes(ours)
    assert find_table(theirs) is table


def test_enc_head_has_the_names_and_shapes_of_the_public_file():
    with torch.device("meta"):
        head = EncHead(
            [("res5", ShapeSpec(channels=768, stride=16))],
            channels=512, encoding=ContextEncoding(768, 512, 150, 64, "BN"), dropout=0.1,
            norm="BN", num_classes=150, stride=16, coarse_width=768, class_width=512,
        )  # fmt: skip
    table = Table("EncHead", marks=(), rules=ENC_HEAD)
    ours = {f"sem_seg_head.{name}": weight for name, weight in head.state_dict().items()}
    assert shapes(table.to_theirs(ours)) == shapes_of("encnet_head_on_vitb_ade150")
    assert shapes(table.to_ours(table.to_theirs(ours))) == shapes(ours)


def test_values_come_back_from_the_other_names():
    names = shapes_of("deeplabv3_rankseg_r101_cocostuff171")
    weights = {
        name: torch.randn(shape) for name, shape in names.items() if "aspp" not in name and shape
    }
    back = DEEPLAB_RANKSEG.to_theirs(DEEPLAB_RANKSEG.to_ours(weights))
    assert back.keys() == weights.keys()
    for name, weight in weights.items():
        assert back[name].equal(weight), name


def test_imagenet_weights_of_the_backbone_alone_are_known():
    public = shapes_of("deeplabv3_r101_ade150")
    bare = {
        name.removeprefix("backbone."): torch.empty(shape, device="meta")
        for name, shape in public.items()
        if name.startswith("backbone.")
    }
    classifier = {"fc.weight": torch.empty(1000, 2048), "fc.bias": torch.empty(1000)}
    assert find_table(bare | classifier) is RESNET_V1C
    ours = shapes(weights_of("ade20k/semantic/deeplab_r101c"))
    expected = {name: x for name, x in ours.items() if name.startswith("backbone.")}
    assert shapes(RESNET_V1C.to_ours(bare | classifier)) == expected


def test_files_with_our_own_names_have_no_table():
    assert find_table(weights_of("ade20k/semantic/deeplab_r101c")) is None
    assert find_table(["stem.conv1.weight", "res2.0.conv1.weight"]) is None


def test_a_public_file_loads_as_it_is(tmp_path):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.WIDTH_PER_GROUP", 2]
    opts += ["MODEL.RESNETS.RES2_OUT_CHANNELS", 8, "MODEL.RESNETS.STEM_OUT_CHANNELS", 4]
    opts += ["MODEL.SEM_SEG_HEAD.CONVS_DIM", 16, "MODEL.RANKSEG.HIDDEN_DIM", 64]
    cfg = get_config("ade20k/semantic/deeplab_r101c_rankseg", opts)
    trained, model = build_model(cfg), build_model(cfg)
    file = {"state_dict": DEEPLAB_RANKSEG.to_theirs(trained.state_dict()), "meta": {"epoch": 3}}
    torch.save(file, tmp_path / "theirs.pth")
    Checkpointer(model).load(str(tmp_path / "theirs.pth"))
    for name, weight in model.state_dict().items():
        assert weight.equal(trained.state_dict()[name]), name
