"""Every shipped yaml repeats nothing of its bases, builds its model, and equals upstream's."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.registry import Registry

import rankseg_d2.modeling  # noqa: F401  (registers the models)
from rankseg_d2._yaml import read_chain, set_keys, settable_keys
from rankseg_d2.config import add_rankseg_config, get_config, shipped_configs_dir

FOLDER = shipped_configs_dir()
NAMES = [path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*.yaml"))]
WHOLE = [
    name for name in NAMES if not name.startswith("parts/") and not name.endswith("base.yaml")
]
UPSTREAM = json.loads((Path(__file__).parent / "data/upstream_configs.json").read_text())
# Upstream's file names of weights are those of converted files; ours are where these came from.
WEIGHTS = {
    "R-101": "resnet101-63fe2227",
    "DeepLab/R-103": "R-103",
    "ImageNetPretrained/torchvision/R-50": "R-50",
}
# What upstream's files leave over from their bases, where nothing uses it.
UNUSED = {
    "ade20k/panoptic/maskformer_": {"TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE"},
    "coco/panoptic/maskformer_swin": {"MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS"},
}


def flat(section, prefix=""):
    """{full key: value} of a nested dict."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_repeats_nothing_of_its_bases_or_of_the_defaults(name):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    *bases, (_, keys) = read_chain(FOLDER / name)
    for path, inherited in bases:
        set_keys(settable_keys(cfg), inherited, path)
    before = {key: settable.default for key, settable in settable_keys(cfg).items()}
    for key, value in flat(keys):
        # A device that is absent here has become the CPU.
        assert value != plain(before[key]) or key == "MODEL.DEVICE", f"{key} repeats {value!r}"


@pytest.mark.parametrize("name", WHOLE)
def test_a_yaml_builds_its_model(name):
    cfg = get_config(name, ["MODEL.DEVICE", "cpu"])
    assert isinstance(META_ARCH_REGISTRY, Registry)
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        assert name.startswith("toy/"), name  # the example registers its own
        return
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    oracle = cfg.MODEL.RANKSEG.USE_GT
    assert name.endswith(("_gt.yaml", "_oracle.yaml")) is oracle
    assert hasattr(model, "ml_head") is name.endswith("_rankseg.yaml")
    assert hasattr(model, "topk") is (oracle or cfg.MODEL.RANKSEG.FLAG)
    if hasattr(model, "criterion"):
        assert model.num_classes == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


@pytest.mark.parametrize("row", UPSTREAM["rows"])
def test_hyper_parameters_are_those_that_upstream_publishes(row):
    cfg = get_config(row)
    ours = dict(flat(cfg))
    unused = next((keys for rows, keys in UNUSED.items() if row.startswith(rows)), set())
    for key, value in published(row).items():
        if key == "MODEL.WEIGHTS":
            value, ours[key] = stem(value), stem(ours[key])
        # Upstream's Swin configs have a ResNet's for their base.
        of_a_resnet = key.startswith("MODEL.RESNETS.") and "Swin" in cfg.MODEL.BACKBONE.NAME
        if key not in unused and not of_a_resnet:
            assert plain(ours[key]) == value, key


def published(row):
    """{key: value} of everything that upstream's yaml and its bases set."""
    number = list(UPSTREAM["rows"]).index(row)
    some = {
        key: value
        for key, values in UPSTREAM["some"].items()
        for value, numbers in values
        if number in numbers
    }
    return UPSTREAM["all"] | some


def stem(weights):
    name = weights.removeprefix("detectron2://").removesuffix(".pkl").removesuffix(".pth")
    return WEIGHTS.get(name, name.rpartition("/")[2])


@pytest.mark.parametrize("row", UPSTREAM["rows"])
def test_every_published_row_has_a_rankseg_and_an_oracle_config(row):
    if "per_pixel" in row:
        return
    without = dict(flat(get_config(row)))
    with_rankseg = dict(flat(get_config(f"{row}_rankseg")))
    oracle = dict(flat(get_config(f"{row}_rankseg_gt")))
    classes = {"ade20k": 150, "coco": 133}[row.partition("/")[0]]
    assert {key: value for key, value in with_rankseg.items() if without[key] != value} == {
        "MODEL.RANKSEG.FLAG": True,
        "MODEL.RANKSEG.TOPK": classes,
        "MODEL.RANKSEG.LOSS_WEIGHT": 10,
        "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True,
        "SOLVER.MLHEAD_MULTIPLIER": 0.1,
    }
    changed = {key for key, value in oracle.items() if with_rankseg[key] != value}
    assert changed == {"MODEL.RANKSEG.USE_GT"}
