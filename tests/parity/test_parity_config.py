import inspect

import detectron2.config as real
import pytest
from support.configs import leaves

import rankseg_d2._detectron2.config as ours


def outcome(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return "refused", isinstance(error, KeyError)


def test_every_default_and_its_type_is_equal():
    wanted = {key: (value, type(value)) for key, value in leaves(real.get_cfg())}
    assert {key: (value, type(value)) for key, value in leaves(ours.get_cfg())} == wanted


def test_nested_types_of_defaults_are_equal():
    assert sorted(map(repr, leaves(ours.get_cfg()))) == sorted(map(repr, leaves(real.get_cfg())))


@pytest.mark.parametrize("name", ["get_cfg", "configurable"])
def test_functions_take_the_same_arguments(name):
    def names(module):
        return list(inspect.signature(getattr(module, name)).parameters)

    assert names(ours) == names(real)


@pytest.mark.parametrize("name", [
    "merge_from_file", "merge_from_list", "merge_from_other_cfg", "load_yaml_with_base", "dump",
    "clone", "freeze",
])
def test_methods_take_the_same_arguments_and_defaults(name):
    def arguments(module):
        parameters = inspect.signature(getattr(module.CfgNode, name)).parameters
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [(p.name, p.default) for p in parameters.values() if p.kind not in kinds]

    assert arguments(ours) == arguments(real)


@pytest.mark.parametrize("writer, reader", [(ours, real), (real, ours)])
def test_each_engine_reads_the_dumps_of_the_other(writer, reader, write):
    path = write(writer.get_cfg().dump())
    configs = [module.get_cfg() for module in (writer, reader)]
    for cfg in configs:
        cfg.merge_from_file(path)
    assert str(configs[0]) == str(configs[1])


@pytest.mark.parametrize("text", [
    "VERSION: 2\nSEED: 3\n",
    "SEED: 3\n",
    "VERSION: 2\nSOLVER: {STEPS: [1, 2], BASE_LR: 1e-4, WEIGHT_DECAY_BIAS: 0.1}\n",
    "VERSION: 2\nDATASETS: {TRAIN: \"('a', 'b')\"}\nMODEL: {WEIGHTS: null}\n",
    "VERSION: 2\nSOLVER: {BASE_LR: 1}\n",
    "VERSION: 2\nSEED: true\n",
    "VERSION: 2\nSOLVER: 3\n",
    "VERSION: 2\nSEEED: 3\n",
    "VERSION: 2\nMODEL: {RESNETS: {NEW: 3}}\n",
    "VERSION: 3\nSEED: 3\n",
    "_BASE_: base.yaml\nVERSION: 2\nSOLVER: {GAMMA: 0.5}\n",
    "_BASE_: [base.yaml, other.yaml]\nVERSION: 2\n",
    "_BASE_: nix.yaml\nVERSION: 2\n",
    "_BASE_: wrong.yaml\nVERSION: 2\nSOLVER: {GAMMA: 0.5}\n",
])
def test_files_merge_to_the_same_values_or_are_refused_by_both(text, write):
    write("VERSION: 2\nSEED: 4\nSOLVER: {GAMMA: 0.25, MAX_ITER: 7}\n", "base.yaml")
    write("VERSION: 2\nSOLVER: {MAX_ITER: 8}\n", "other.yaml")
    write("VERSION: 2\nSOLVER: 8\n", "wrong.yaml")
    path = write(text)

    def merged(module):
        cfg = module.get_cfg()
        cfg.merge_from_file(path)
        return sorted(map(repr, leaves(cfg)))

    assert outcome(merged, ours) == outcome(merged, real)


@pytest.mark.parametrize("opts", [
    ["SEED", "3"], ["SOLVER.STEPS", "(1, 2)"], ["SOLVER.STEPS", "[1, 2]"], ["SEED"],
    ["SEEED", "3"], ["MODEL.WEIGHTS", "None"], ["OUTPUT_DIR", "3"], ["SOLVER.BASE_LR", "1"],
    ["_BASE_", "a.yaml"],
])
def test_lists_merge_to_the_same_values_or_are_refused_by_both(opts):
    def merged(module):
        cfg = module.get_cfg()
        cfg.merge_from_list(opts)
        return sorted(map(repr, leaves(cfg)))

    assert outcome(merged, ours) == outcome(merged, real)


def class_of(configurable):
    class Thing:
        @configurable
        def __init__(self, a, b=2, *, c=3):
            self.values = (a, b, c)

        @classmethod
        def from_config(cls, cfg, b=5, d=0):
            return {"a": (cfg.A, d), "b": b}

    return Thing


@pytest.mark.parametrize("args, kwargs", [
    (("cfg",), {}), ((), {"cfg": "cfg"}), (("cfg", 6), {}), (("cfg", 6, 7), {}),
    (("cfg", 6, 7, 8), {}), (("cfg",), {"a": 9}), (("cfg",), {"b": 9, "c": 9, "d": 9}),
    (("cfg",), {"nix": 9}), ((1,), {}), ((1, 2), {"c": 4}), ((1,), {"a": 1}), ((), {"a": 1}),
    ((1,), {"b": "cfg"}), ((), {}), ((1,), {"cfg": "cfg"}), (("cfg",), {"cfg": "cfg"}),
])
def test_configurable_makes_the_same_arguments(args, kwargs):
    def made(module):
        cfg = module.CfgNode({"A": 1})
        values = class_of(module.configurable)(
            *[cfg if value == "cfg" else value for value in args],
            **{key: cfg if value == "cfg" else value for key, value in kwargs.items()},
        ).values
        return repr(values)

    def called(module):
        cfg = module.CfgNode({"A": 1})
        function = module.configurable(from_config=lambda cfg, b=5, d=0: {"a": cfg.A, "b": b + d})(
            lambda a, b=2, *, c=3: (a, b, c))
        return repr(function(
            *[cfg if value == "cfg" else value for value in args],
            **{key: cfg if value == "cfg" else value for key, value in kwargs.items()},
        ))

    assert outcome(made, ours) == outcome(made, real)
    assert outcome(called, ours) == outcome(called, real)
