"""The names of ViT-Adapter's and of SeMask's published models."""

import gzip
import json

import pytest
import torch
from detectron2.modeling import build_model
from support import pixel_golden
from support.golden import DATA
from support.small import KINDS, make_config

from rankseg_d2.checkpoints.sources import find_table, vit_adapter
from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.checks import build_on_meta

INDEX = "attn.relative_position_index"
ADAPTER = {
    "MODEL.BACKBONE.NAME": "BEiTAdapter",
    "MODEL.BEIT.IMG_SIZE": [64, 64],
    "MODEL.BEIT.EMBED_DIM": 16,
    "MODEL.BEIT.DEPTH": 4,
    "MODEL.BEIT.NUM_HEADS": 2,
    "MODEL.VIT.IMAGE_SIZE": 64,
    "MODEL.VIT.EMBED_DIM": 16,
    "MODEL.VIT.DEPTH": 4,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.LAYER_SCALE": 1.0,
    "MODEL.VIT_ADAPTER.CONV_CHANNELS": 4,
    "MODEL.VIT_ADAPTER.HEADS": 2,
    "MODEL.VIT_ADAPTER.VALUE_RATIO": 0.5,
    "MODEL.VIT_ADAPTER.NORM": "BN",
}
UPERNET = ADAPTER | {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "UPerNetHead",
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.AUXILIARY.IN_FEATURE": "res4",
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CHANNELS": 8,
}
MODELS = [
    (vit_adapter.BEIT_MASK2FORMER, ADAPTER | KINDS["mask2former"]),
    (vit_adapter.BEIT_UPERNET, UPERNET),
    (vit_adapter.VIT_UPERNET, UPERNET | {"MODEL.BACKBONE.NAME": "ViTAdapter"}),
]


def published(model):
    """{name: shape} of a published file, or of a part of it."""
    path = DATA / pixel_golden.FOLDER / "keys_semask_vitadapter.json.gz"
    shapes = json.loads(gzip.decompress(path.read_bytes()))[model]
    return {name: tuple(shape) for name, shape in shapes.items()}


def shapes_of(weights):
    return {name: tuple(x.shape) for name, x in weights.items()}


def whole(name):
    return build_on_meta(get_config(f"ade20k/semantic/{name}", ["MODEL.DEVICE", "cpu"]))


def test_semask_has_the_names_and_shapes_of_the_published_file():
    own = shapes_of(whole("semask_swin_l").state_dict())
    theirs = published("semask_mask2former_swinl")
    assert {name: own.get(name) for name in theirs} == theirs
    # The list leaves out the blocks of a usual Swin, and what makes its levels smaller.
    plain = shapes_of(whole("swin_l").state_dict())
    others = own.keys() - theirs.keys()
    assert others <= plain.keys() and all(".layers." in name for name in others)
    new = own.keys() - plain.keys()
    assert len(new) == 4 * 11 and all(".semantic_layer." in name for name in new)


def test_vit_adapter_has_the_names_and_shapes_of_the_published_file():
    table = vit_adapter.BEIT_MASK2FORMER
    own = shapes_of(table.to_theirs(whole("vit_adapter_beit_l").state_dict()))
    theirs = {f"backbone.{name}": x for name, x in published("vitadapter_beitl_backbone").items()}
    theirs |= published("vitadapter_beitl_decode_head")
    theirs = {name: x for name, x in theirs.items() if not name.endswith(INDEX)}  # computed here
    assert own.pop("criterion.empty_weight") == (151,)  # a setting, not in their files
    assert own == theirs


def test_every_weight_of_the_published_file_is_read():
    theirs = {f"backbone.{name}": x for name, x in published("vitadapter_beitl_backbone").items()}
    theirs |= published("vitadapter_beitl_decode_head")
    theirs = {name: torch.empty(shape, device="meta") for name, shape in theirs.items()}
    table = find_table(theirs)
    assert table is vit_adapter.BEIT_MASK2FORMER
    read = shapes_of(table.to_ours(theirs))
    own = shapes_of(whole("vit_adapter_beit_l").state_dict())
    del own["criterion.empty_weight"]
    assert read == own


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ade20k/semantic/semask_swin_l", 222.63),
        ("ade20k/semantic/vit_adapter_beit_l", 568.2),
        ("ade20k/semantic/upernet_vit_adapter_b", 133.9),
        ("coco_stuff/semantic/vit_adapter_beit_b", 120.2),
    ],
)
def test_models_are_as_large_as_published(name, parameters):
    model = build_on_meta(get_config(name, ["MODEL.DEVICE", "cpu"]))
    found = sum(x.numel() for x in model.parameters()) / 1e6
    assert found == pytest.approx(parameters, rel=0.001)


@pytest.mark.parametrize(("table", "options"), MODELS)
def test_a_file_is_loaded_as_it_is(table, options, tmp_path):
    torch.manual_seed(0)
    saved, model = (build_model(make_config(options)) for _ in range(2))
    with torch.no_grad():
        for x in saved.parameters():
            x.normal_()
    theirs = table.to_theirs(saved.state_dict())
    assert table.knows(saved.state_dict()) and find_table(theirs) is table
    theirs["backbone.blocks.0.attn.relative_position_index"] = torch.zeros(17, 17)
    torch.save({"state_dict": theirs}, tmp_path / "file.pth")
    Checkpointer(model).load(str(tmp_path / "file.pth"))
    for name, x in saved.state_dict().items():
        assert model.state_dict()[name].equal(x), name
