import pickle

import pytest
import yaml
from detectron2.config import CfgNode, configurable, get_cfg

from rankseg_d2 import engine_name


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


embedded_only = pytest.mark.skipif(
    "engine_name() != 'embedded'", reason="real detectron2 behaves in its own way here"
)


# CfgNode


def test_get_cfg_gives_a_fresh_copy():
    one = get_cfg()
    one.MODEL.PIXEL_MEAN.append(0.0)
    one.SOLVER.MAX_ITER = 1
    assert (get_cfg().MODEL.PIXEL_MEAN, get_cfg().SOLVER.MAX_ITER) == (
        [103.53, 116.28, 123.675], 40000)


def test_a_file_merges_over_its_bases(write):
    write("VERSION: 2\nSEED: 1\nVIS_PERIOD: 2\nSOLVER: {GAMMA: 0.5}\n", "a.yaml")
    write("VERSION: 2\nSEED: 2\n", "b.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write("VERSION: 2\n_BASE_: [a.yaml, b.yaml]\nSOLVER: {STEPS: [3]}\n"))
    assert (cfg.SEED, cfg.VIS_PERIOD, cfg.SOLVER.GAMMA, cfg.SOLVER.STEPS) == (2, 2, 0.5, (3,))


def test_a_file_without_version_loads(write):
    cfg = get_cfg()
    cfg.merge_from_file(write("SEED: 3\n"))
    assert (cfg.SEED, cfg.VERSION) == (3, 2)


def test_load_yaml_with_base_gives_a_plain_dict(write):
    write("A: {X: 1}\nB: 1\n", "base.yaml")
    path = write("_BASE_: base.yaml\nA: {Y: 2}\n")
    assert CfgNode.load_yaml_with_base(path) == {"A": {"X": 1, "Y": 2}, "B": 1}


@embedded_only
def test_overriding_one_use_of_an_anchor_leaves_the_other(write):
    write("A: &a {X: 1}\nB: *a\n", "base.yaml")
    path = write("_BASE_: base.yaml\nA: {X: 2}\n")
    assert CfgNode.load_yaml_with_base(path) == {"A": {"X": 2}, "B": {"X": 1}}


def test_unknown_keys_and_wrong_types_are_refused(write):
    cfg = get_cfg()
    with pytest.raises(KeyError, match="SEEED"):
        cfg.merge_from_file(write("VERSION: 2\nSEEED: 3\n"))
    with pytest.raises(ValueError, match="SEED"):
        cfg.merge_from_file(write("VERSION: 2\nSEED: abc\n"))


def test_what_is_dumped_loads_again(write):
    cfg = get_cfg()
    cfg.SOLVER.STEPS = (7, 8)
    cfg.MODEL.WEIGHTS = "a: b"
    again = get_cfg()
    again.merge_from_file(write(cfg.dump()))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    assert type(again.SOLVER.STEPS) is tuple


def test_a_frozen_node_refuses_new_values_but_takes_computed_ones():
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SEED = 1
    cfg.COMPUTED_SIZE = 3
    assert cfg.COMPUTED_SIZE == 3
    with pytest.raises(KeyError, match="COMPUTED_SIZE"):
        cfg.COMPUTED_SIZE = 4


def test_pickle_and_clone_keep_values_and_class():
    cfg = get_cfg()
    cfg.SEED = 9
    for other in (pickle.loads(pickle.dumps(cfg)), cfg.clone()):
        assert other == cfg
        assert type(other.SOLVER) is CfgNode


def test_a_changed_config_leaves_the_defaults_alone():
    cfg = get_cfg()
    cfg.SEED, cfg.MODEL.PIXEL_MEAN[0] = 9, 9.0
    assert get_cfg().SEED == -1 and get_cfg().MODEL.PIXEL_MEAN[0] == 103.53


@embedded_only
@pytest.mark.parametrize("allow_unsafe", [True, False])
def test_tags_are_refused_even_if_unsafe_is_allowed(allow_unsafe, write, tmp_path):
    path = write(f'SEED: !!python/object/apply:os.mkdir ["{tmp_path / "ran"}"]\n')
    with pytest.raises(ValueError, match=r"mine\.yaml, line 1: !!python/object/apply:os\.mkdir"):
        get_cfg().merge_from_file(path, allow_unsafe=allow_unsafe)
    assert not (tmp_path / "ran").exists()


@embedded_only
def test_a_missing_file_a_new_version_and_a_mixed_up_section_are_named(write):
    with pytest.raises(FileNotFoundError, match="config file nix.yaml does not exist"):
        get_cfg().merge_from_file("nix.yaml")
    with pytest.raises(ValueError, match="VERSION must be 2"):
        get_cfg().merge_from_file(write("VERSION: 3\n"))
    write("SOLVER: 3\n", "base.yaml")
    with pytest.raises(ValueError, match="SOLVER is a section here, but a value in its _BASE_"):
        get_cfg().merge_from_file(write("_BASE_: base.yaml\nSOLVER: {GAMMA: 0.5}\n"))


# configurable


CFG = CfgNode({"A": 1, "B": 2})


class Base:
    @configurable
    def __init__(self, a, b=2, *, c=3):
        self.values = (a, b, c)

    @classmethod
    def from_config(cls, cfg, b=5):
        return {"a": cfg.A, "b": b}


class Child(Base):
    @configurable
    def __init__(self, d=0, **kwargs):
        super().__init__(**kwargs)
        self.d = d

    @classmethod
    def from_config(cls, cfg):
        return super().from_config(cfg) | {"d": 4}


class PlainChild(Base):
    def __init__(self, cfg):
        super().__init__(cfg, c=8)


@pytest.mark.parametrize("make, values", [
    (lambda: Base(7), (7, 2, 3)),
    (lambda: Base(7, 8, c=9), (7, 8, 9)),
    (lambda: Base(CFG), (1, 5, 3)),
    (lambda: Base(cfg=CFG), (1, 5, 3)),
    (lambda: Base(CFG, 6), (1, 6, 3)),  # positional: from_config's b
    (lambda: Base(CFG, b=6), (1, 6, 3)),
    (lambda: Base(CFG, c=6), (1, 5, 6)),
    (lambda: Base(CFG, a=6), (6, 5, 3)),
    (lambda: Child(CFG), (1, 5, 3)),
    (lambda: Child(a=7), (7, 2, 3)),
    (lambda: PlainChild(CFG), (1, 5, 8)),
])
def test_a_class_takes_arguments_or_a_cfg(make, values):
    assert make().values == values


def test_a_subclass_adds_its_own_arguments():
    assert (Child(CFG).d, Child(CFG, d=6).d, Child(a=1).d) == (4, 6, 0)


def test_a_from_config_with_var_arguments_gets_all_of_them():
    class Greedy:
        @configurable
        def __init__(self, got):
            self.got = got

        @classmethod
        def from_config(cls, cfg, *args, **kwargs):
            return {"got": (args, kwargs)}

    assert Greedy(CFG, 5, got=6).got == ((5,), {"got": 6})


def test_a_function_takes_arguments_or_a_cfg():
    @configurable(from_config=lambda cfg: {"a": cfg.A, "b": cfg.B})
    def function(a, b=0):
        """Its own words."""
        return a, b

    assert [function(7), function(7, 8), function(CFG), function(cfg=CFG), function(CFG, b=9)] == [
        (7, 0), (7, 8), (1, 2), (1, 2), (1, 9)]
    assert (function.__name__, function.__doc__) == ("function", "Its own words.")
    assert function.from_config(CFG) == {"a": 1, "b": 2}


def test_a_class_without_from_config_is_refused():
    class Without:
        @configurable
        def __init__(self, a):
            self.a = a

    with pytest.raises((TypeError, AttributeError), match="from_config"):
        Without(CFG)


def test_from_config_must_take_cfg_first():
    class Other:
        @configurable
        def __init__(self, a):
            self.a = a

        @classmethod
        def from_config(cls, settings):
            return {"a": settings.A}

    with pytest.raises(TypeError, match="'cfg' as "):
        Other(CFG)
    with pytest.raises(TypeError, match="'cfg' as "):
        configurable(from_config=lambda settings: {})(lambda a: a)(CFG)


@pytest.mark.parametrize("misuse", [
    lambda: configurable(lambda a: a),
    lambda: configurable(3),
    lambda: configurable(from_config=3)(len),
    lambda: configurable()(lambda a: a),
])
def test_misuse_of_configurable_is_refused(misuse):
    with pytest.raises((TypeError, AssertionError)):
        misuse()


def test_the_engine_serves_this_module():
    module = CfgNode.__module__
    assert module.startswith(("detectron2.", "rankseg_d2._detectron2.")), module
    assert module.startswith("rankseg_d2.") == (engine_name() == "embedded")
