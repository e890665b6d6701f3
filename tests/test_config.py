import ast
import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from support.configs import leaves
from support.paths import GOLDEN

from rankseg_d2 import config
from rankseg_d2.config import (
    add_rankseg_config,
    get_config,
    resolve_device,
)
from rankseg_d2.errors import nearest

UPSTREAM_SIZES = '!!python/object/apply:eval ["[int(x * 0.1 * 512) for x in range(5, 21)]"]'


def upstream_keys():
    sections = json.loads((GOLDEN / "config_keys.json").read_text())
    return [pytest.param(key, value, id=f"{name}-{key}")
            for name, keys in sections.items() for key, value in keys.items()]


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config._warn_absent.cache_clear()


# Keys and their defaults


@pytest.mark.parametrize("key, default", upstream_keys())
def test_every_upstream_key_has_upstreams_default(key, default):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    value = dict(leaves(cfg))[key]
    assert (value, type(value)) == (default, type(default))


def test_every_key_is_read_somewhere():
    """But those that upstream's yaml files have and that no model of ours needs."""
    unread = {"LOG_OUTPUT", "LOSS_TYPE"}
    unread |= {f"PROJECT_{name}" for name in ("FEATURES", "CHANNELS")}
    unread |= {"ASPP_CHANNELS", "ASPP_DROPOUT"}
    unread |= {"USE_DEPTHWISE_SEPARABLE_CONV", "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS"}
    package = Path(config.__file__).parent
    sources = [path for path in package.rglob("*.py") if path.name != "config.py"]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    read |= {node.value for node in nodes if isinstance(node, ast.Constant)}
    keys = CfgNode()
    config._add_missing(keys, config.KEYS)
    names = {key.rpartition(".")[2] for key, _ in leaves(keys)}
    assert names - read == unread


def test_our_own_keys_default_to_plain_training():
    cfg = get_cfg()
    add_rankseg_config(cfg)
    assert (cfg.SOLVER.AMP.DTYPE, cfg.SOLVER.ACCUMULATION_STEPS) == ("fp16", 1)


def test_adding_keys_again_keeps_values_and_keys_of_other_projects():
    cfg = get_cfg()
    cfg.MODEL.RESNETS.STEM_TYPE = "basic"
    add_rankseg_config(cfg)
    cfg.MODEL.RANKSEG.TOPK = 25
    once = cfg.dump()
    add_rankseg_config(cfg)
    assert cfg.dump() == once
    assert (cfg.MODEL.RESNETS.STEM_TYPE, cfg.MODEL.RANKSEG.TOPK) == ("basic", 25)


def test_configs_share_no_lists():
    one, other = get_config("toy/semantic/base"), get_config("toy/semantic/base")
    one.MODEL.SWIN.DEPTHS.append(7)
    assert other.MODEL.SWIN.DEPTHS == [2, 2, 6, 2]


# Keys and values of files


@pytest.mark.parametrize("text, key, value", [
    ("SOLVER: {BASE_LR: 1}", "SOLVER.BASE_LR", 1.0),
    ("SOLVER: {BASE_LR: 1e-4}", "SOLVER.BASE_LR", 0.0001),
    ("SOLVER: {STEPS: [1, 2]}", "SOLVER.STEPS", (1, 2)),
    ('SOLVER: {STEPS: "(1,)"}', "SOLVER.STEPS", (1,)),
    ("DATASETS:\n  TRAIN: ('a', 'b')", "DATASETS.TRAIN", ("a", "b")),
    ("INPUT: {CROP: {SIZE: !!seq [640, 640]}}", "INPUT.CROP.SIZE", [640, 640]),
    ("SOLVER: {WEIGHT_DECAY_BIAS: 0.1}", "SOLVER.WEIGHT_DECAY_BIAS", 0.1),
    ("MODEL: {WEIGHTS: null}", "MODEL.WEIGHTS", None),
    ("MODEL: {RANKSEG: {LOSS_WEIGHT: 10}}", "MODEL.RANKSEG.LOSS_WEIGHT", 10),
    ("MODEL: {RANKSEG: {LOSS_WEIGHT: 2.5}}", "MODEL.RANKSEG.LOSS_WEIGHT", 2.5),
    ("VERSION: 1\nSEED: 4", "VERSION", 2),
    ("", "VERSION", 2),
])
def test_values_take_the_type_of_the_default(text, key, value, write):
    got = dict(leaves(get_config(write(text))))[key]
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize("text, message", [
    ("SOLVER: {BASE_LRR: 1}", r"mine\.yaml: unknown key SOLVER\.BASE_LRR; .* are SOLVER\.BASE_LR,"),
    ("RANKSEG: {TOPK: 1}", r"mine\.yaml: unknown key RANKSEG; .* are MODEL\.RANKSEG,"),
    ("MODEL: {RANKSEG: {TOP_K: 1}}", r"MODEL\.RANKSEG\.TOP_K; .* are MODEL\.RANKSEG\.TOPK,"),
    ("VERSION: 1\nMODEL: {ROI_HEADS: {POSITIVE: 1}}", r"unknown key MODEL\.ROI_HEADS\.POSITIVE;"),
    ("1: 2", r"unknown key 1;"),
])
def test_an_unknown_key_is_named_with_the_nearest_known_ones(text, message, write):
    with pytest.raises(KeyError, match=message):
        get_config(write(text))


def test_an_error_in_a_base_names_the_base(write):
    write("SEEED: 1\n", "wrong.yaml")
    with pytest.raises(KeyError, match=r"wrong\.yaml: unknown key SEEED"):
        get_config(write("_BASE_: wrong.yaml\n"))


@pytest.mark.parametrize("text, message", [
    ("SEED: abc", r"mine\.yaml: SEED must be of type int, such as its default -1, got 'abc'"),
    ("SEED: true", r"SEED must be of type int.* got True of type bool"),
    ("SEED: 1.5", r"SEED must be of type int.* got 1\.5 of type float"),
    ("SOLVER: {BASE_LR: true}", r"SOLVER\.BASE_LR must be of type float.*0\.001, got True"),
    ("SOLVER: {STEPS: 3}", r"SOLVER\.STEPS must be of type list.*\(30000,\), got 3 of type int"),
    ("SOLVER: {MAX_ITER: {A: 1}}", r"SOLVER\.MAX_ITER must be of type int.* got \{'A': 1\}"),
    ("MODEL: {MASK_ON: 1}", r"MODEL\.MASK_ON must be True or False .*got 1 of type int"),
    ("OUTPUT_DIR: 3", r"OUTPUT_DIR must be of type str, such as its default './output', got 3"),
    ("SOLVER: 3", r"SOLVER is a section with keys such as SOLVER\..*got 3"),
    ("SOLVER:", r"SOLVER is a section .*got None"),
    ("LOG_OUTPUT: 2020-01-01", r"LOG_OUTPUT must be .*got datetime\.date"),
    ("VERSION: 3", r"mine\.yaml: VERSION must be 2 \(or left out\), got 3"),
])
def test_a_wrong_type_names_key_default_and_value(text, message, write):
    with pytest.raises(ValueError, match=message):
        get_config(write(text))


@pytest.mark.parametrize("text, message", [
    ("SEED: 1\nA: [1,\n", r"mine\.yaml, line 3: not valid yaml: "),
    ("SEED: 1\n\tA: 1\n", r"mine\.yaml, line 2: not valid yaml: "),
    ("SEED: *nix\n", r"mine\.yaml, line 1: not valid yaml: .*nix"),
    ("- SEED\n", r"mine\.yaml must hold lines of `KEY: value`, got \['SEED'\]"),
    ("SEED: \x00\n", r"mine\.yaml is not a yaml file"),
])
def test_broken_yaml_names_file_and_line(text, message, write):
    with pytest.raises(ValueError, match=message):
        get_config(write(text))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "model.yaml").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match=r"model\.yaml is not a yaml file"):
        get_config(tmp_path / "model.yaml")


# Tags


def test_upstreams_eval_tag_is_refused_with_the_numbers_to_write(write):
    sizes = [int(x * 0.1 * 512) for x in range(5, 21)]
    path = write(f"INPUT:\n  MIN_SIZE_TRAIN: {UPSTREAM_SIZES}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml, line 2: .*apply:eval is refused") as error:
        get_config(path)
    assert f"write {sizes} instead" in str(error.value)
    cfg = get_config(write(f"INPUT:\n  MIN_SIZE_TRAIN: {sizes}\n"))
    assert tuple(sizes) == cfg.INPUT.MIN_SIZE_TRAIN


@pytest.mark.parametrize("value, fix", [
    ("!!python/tuple [640, 640]", r"write \[640, 640\] instead"),
    ("!!python/name:os.system", "write the plain value instead"),
    ("!ours 3", "write the plain value instead"),
    ('!!python/object/apply:eval ["[x for x in (1).__class__.__mro__]"]', r"such as \[256, 512\]"),
])
def test_other_tags_are_refused_with_a_fix(value, fix, write):
    with pytest.raises(ValueError, match=f"line 1: .* is refused, .*{fix}"):
        get_config(write(f"SEED: {value}\n"))


@pytest.mark.parametrize("tag", [
    '!!python/object/apply:os.mkdir ["{}"]',
    '!!python/object/apply:eval ["__import__(\'os\').mkdir(\'{}\')"]',
    '!!python/tuple [!!python/object/apply:os.mkdir ["{}"]]',
])
def test_no_tag_runs(tag, write, tmp_path):
    victim = tmp_path / "ran"
    with pytest.raises(ValueError, match="is refused"):
        get_config(write("SEED: " + tag.format(victim) + "\n"))
    assert not victim.exists()


# opts


def test_opts_are_pairs_or_assignments_and_the_last_wins():
    cfg = get_config("toy/semantic/base", [
        "SOLVER.BASE_LR", "1", "SEED=5", "MODEL.WEIGHTS", "a=b.pkl", "OUTPUT_DIR=2024",
        "SOLVER.STEPS", "(1, 2)", "SOLVER.MAX_ITER", 3, "SOLVER.MAX_ITER=4",
    ])
    assert (cfg.SOLVER.BASE_LR, cfg.SEED, cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR, cfg.SOLVER.STEPS,
            cfg.SOLVER.MAX_ITER) == (1.0, 5, "a=b.pkl", "2024", (1, 2), 4)


@pytest.mark.parametrize("opts, error, message", [
    (["SEED"], ValueError, "opts: the last key, SEED, has no value"),
    (["SEED", "1", "VIS_PERIOD"], ValueError, "opts: the last key, VIS_PERIOD, has no value"),
    (["SEED", "1", "--eval-only"], ValueError, "opts: --eval-only must come before the KEY VALUE"),
    (["SOLVER.MAX_ITERS", "1"], KeyError, r"opts: unknown key .*nearest .* SOLVER\.MAX_ITER"),
    (["SOLVER.MAX_ITER=soon"], ValueError, r"opts: SOLVER\.MAX_ITER must be of type int"),
    (["MODEL.RANKSEG", "1"], ValueError, r"opts: MODEL\.RANKSEG is a section with keys such as"),
])
def test_wrong_opts_are_named(opts, error, message):
    with pytest.raises(error, match=message):
        get_config("toy/semantic/base", opts)


# Devices and data sets


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_absent_device_becomes_cpu_with_one_warning(device, no_gpu, caplog):
    with caplog.at_level(logging.WARNING):
        configs = [get_config("toy/semantic/base", ["MODEL.DEVICE", device]) for _ in range(3)]
    assert [cfg.MODEL.DEVICE for cfg in configs] == ["cpu"] * 3
    assert [record.message for record in caplog.records] == [
        "MODEL.DEVICE is cuda, but torch finds no such device here: using the cpu"
    ]


def test_a_present_device_stays_without_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for device in ("cpu", "cuda", "cuda:1", "mps"):
        cfg = get_config("toy/semantic/base", ["MODEL.DEVICE", device])
        assert device == cfg.MODEL.DEVICE
    assert caplog.records == []
    with pytest.raises(ValueError, match=r"MODEL\.DEVICE is cuda:2, but .* 0 to 1"):
        get_config("toy/semantic/base", ["MODEL.DEVICE", "cuda:2"])


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", None])
def test_an_unknown_device_is_refused(device):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = device
    with pytest.raises(ValueError, match=r"MODEL\.DEVICE must be cpu, cuda, .*got"):
        resolve_device(cfg)


def test_nearest_puts_the_likest_name_first():
    names = ["SOLVER.STEPS", "MODEL.RANKSEG.FLAG", "MODEL.RANKSEG.TOPK"]
    assert nearest("rankseg.topk", names)[0] == "MODEL.RANKSEG.TOPK"
    assert nearest("MODEL.RANKSEG.FLOG", names, 2) == names[1:]
    assert nearest("anything", []) == []
