"""Every shipped yaml loads, repeats nothing of its base, and builds its model."""

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.registry import Registry

from rankseg_d2._yaml import read_chain, settable_keys
from rankseg_d2.config import get_config, shipped_configs_dir

FOLDER = shipped_configs_dir()
NAMES = [path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*.yaml"))]


def flat(section, prefix=""):
    """{full key: value} of a nested dict."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_repeats_nothing_of_its_base_or_of_the_defaults(name):
    *bases, (_, keys) = read_chain(FOLDER / name)
    inherited = get_config(bases[-1][0]) if bases else get_config_of_nothing()
    before = {key: settable.default for key, settable in settable_keys(inherited).items()}
    for key, value in flat(keys):
        default = list(before[key]) if isinstance(before[key], tuple) else before[key]
        # A device that is absent here has become the CPU.
        assert value != default or key == "MODEL.DEVICE", f"{key} repeats {value!r}"


def get_config_of_nothing():
    from detectron2.config import get_cfg

    from rankseg_d2.config import add_rankseg_config

    cfg = get_cfg()
    add_rankseg_config(cfg)
    return cfg


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("base.yaml")])
def test_a_yaml_builds_its_model(name):
    cfg = get_config(name, ["MODEL.DEVICE", "cpu"])
    assert isinstance(META_ARCH_REGISTRY, Registry)
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        assert name.startswith("toy/"), name  # the example registers its own
        return
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    ranks = cfg.MODEL.RANKSEG.FLAG
    assert hasattr(model, "ml_head") is ranks
    assert name.endswith("_rankseg.yaml") is ranks
    assert model.num_classes == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
