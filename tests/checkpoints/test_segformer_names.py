"""The tables of names know SegFormer of mmsegmentation, transformers and the official code."""

import gzip
import json

import pytest
import torch
from detectron2.modeling import build_model
from support import golden, pixel_golden

from rankseg_d2.checkpoints.sources import find_table, segformer
from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import convert, export
from rankseg_d2.engine import Checkpointer

KEYS = golden.DATA / pixel_golden.FOLDER / "keys_segformer.json.gz"
PLAIN = ["MODEL.DEVICE=cpu", "MODEL.SEM_SEG_HEAD.NORM=BN"]
CONV_HEAD = [*PLAIN, "MODEL.SEM_SEG_HEAD.NAME=SegFormerConvHead"]
FILES = {
    "mmseg_segformer_b0_ade150": (segformer.MMSEGMENTATION, CONV_HEAD),
    "hf_segformer_b0_ade150": (segformer.TRANSFORMERS, PLAIN),
    "sithu_segformer_b0_ade150": (segformer.OFFICIAL, PLAIN),
}
LIBRARIES = dict(zip(FILES, ("mmsegmentation", "transformers", "nvlabs"), strict=True))
ALL = pytest.mark.parametrize("file", FILES)


def make(opts, config="ade20k/semantic/segformer_b0"):
    torch.manual_seed(0)
    return build_model(get_config(config, opts))


def shapes(weights):
    return {name: tuple(x.shape) for name, x in weights.items()}


def weights_of(file):
    """Random weights under the names of a public file."""
    keys = json.loads(gzip.decompress(KEYS.read_bytes()))[file]
    weights = {name: pixel_golden.value_of(name, shape) for name, shape in keys}
    return {name: x.long() if "num_batches" in name else x for name, x in weights.items()}


@ALL
def test_a_public_file_has_exactly_the_models_weights(file):
    table, opts = FILES[file]
    theirs = weights_of(file)
    ours = table.to_ours(theirs)
    assert shapes(ours) == shapes(make(opts).state_dict())
    back = table.to_theirs(ours)
    assert back.keys() == theirs.keys()
    assert all(back[name].equal(x) for name, x in theirs.items())
    assert find_table(theirs) is table and find_table(ours) is None


@ALL
def test_a_public_file_is_loaded_as_it_is(file, tmp_path):
    table, opts = FILES[file]
    theirs = weights_of(file)
    key = "state_dict" if "mmseg" in file else "model"
    torch.save({key: theirs}, tmp_path / "public.pth")
    model = make(opts)
    Checkpointer(model).load(str(tmp_path / "public.pth"))
    expected = table.to_ours(theirs)
    assert all(x.equal(expected[name]) for name, x in model.state_dict().items())


IMAGENET = {"official": segformer.OFFICIAL_BACKBONE, "mmseg": segformer.MMSEGMENTATION_BACKBONE}


@pytest.mark.parametrize("source", IMAGENET)
def test_imagenet_weights_are_loaded_into_the_backbone(source, tmp_path):
    table = IMAGENET[source]
    donor, model = make(PLAIN), make(PLAIN, "ade20k/semantic/segformer_b0_rankseg")
    torch.nn.init.normal_(donor.backbone.stages[0].norm.weight)
    own = {name: x for name, x in donor.state_dict().items() if name.startswith("backbone.")}
    theirs = table.to_theirs(own)
    assert not any(name.startswith("backbone") for name in theirs)
    theirs |= {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    assert find_table(theirs) is table
    if source == "official":
        assert not set(table.to_ours(theirs)) - set(own)
    torch.save(theirs, tmp_path / "mit_b0.pth")
    Checkpointer(model).load(str(tmp_path / "mit_b0.pth"))
    loaded = model.state_dict()
    assert all(loaded[name].equal(x) for name, x in own.items())


@pytest.mark.parametrize("file, library", LIBRARIES.items())
def test_a_public_file_is_converted_and_back(file, library, tmp_path):
    _, opts = FILES[file]
    cfg, theirs = get_config("ade20k/semantic/segformer_b0", opts), weights_of(file)
    public, ours, back = (
        tmp_path / name for name in ("theirs.pth", "ours.safetensors", "back.pth")
    )
    torch.save({"state_dict": theirs}, public)
    convert(cfg, public, ours)
    export(cfg, ours, back, library)
    weights = torch.load(back)["state_dict"]
    assert weights.keys() == theirs.keys()
    assert all(weights[name].equal(x) for name, x in theirs.items())


def test_query_key_and_value_are_one_parameter():
    theirs = weights_of("sithu_segformer_b0_ade150")
    ours = segformer.OFFICIAL.to_ours(theirs)["backbone.stages.2.blocks.1.attn.qkv.weight"]
    assert ours[:160].equal(theirs["backbone.block3.1.attn.q.weight"])
    assert ours[160:].equal(theirs["backbone.block3.1.attn.kv.weight"])


def test_a_model_of_transformers_gives_the_same_numbers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder_hidden_size": 256
    }  # fmt: skip
    config = transformers.SegformerConfig(num_labels=150, **sizes)
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    model = make([*PLAIN, "MODEL.MIT.NORM_EPS=1e-5"]).eval()
    Checkpointer(model).load(str(tmp_path / "model.safetensors"))
    for size in ((64, 96), (75, 113)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            ours = model.decide(model.network(images)).logits[-1]
            expected = theirs(images).logits
        assert (ours - expected).abs().max() < 1e-4 * expected.std()
