"""What yaml allows and a config does not: each is one short sentence, at once."""

import time
import tracemalloc

import pytest

from rankseg_d2 import config_files
from rankseg_d2._yaml import read_yaml
from rankseg_d2.config import get_config
from rankseg_d2.errors import short

LAUGHS = "\n".join(
    ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
)
MERGES = "\n".join(
    ["b0: &b0 {x: 1}"] + [f"b{i}: &b{i} {{<<: [*b{i - 1}, *b{i - 1}]}}" for i in range(1, 40)]
)
LONG = "A" * 5000


def error_of(make, limit_mb=60):
    """The sentence of the error; it must come quickly, and in little memory."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, KeyError, FileNotFoundError)) as error:
            make()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sentence = str(error.value.args[-1])
    assert len(sentence) < 1500 and time.perf_counter() - start < 20
    assert peak < limit_mb * 2**20, f"{peak / 2**20:.0f} MB"
    return sentence


@pytest.mark.parametrize(
    "text, line, reason",
    [
        ("SEED: 1\nSOLVER: {GAMMA: 0.5}\nSEED: 2\n", 3, "'SEED' comes a second time, after line 1"),
        ("SOLVER: {GAMMA: 0.5, GAMMA: 0.2}\n", 1, "'GAMMA' comes a second time, after line 1"),
        ("SOLVER:\n  GAMMA: 1\nSEED: 1\nSOLVER:\n  BASE_LR: 1\n", 4, "'SOLVER' comes a second"),
        ("1: a\n0x1: b\n", 2, "1 comes a second time"),
        ("SEED: " + "[" * 3000 + "]" * 3000, 1, "nested more than 50 times"),
        ("SEED: " + "{a: " * 3000 + "}" * 3000, 1, "nested more than 50 times"),
        ("SEED: " + "[" * 3000, 1, "nested more than 50 times"),
        ("SEED: &a [*a]\n", 1, "an alias (*name) is within what it names"),
        ("SOLVER: &a {STEPS: *a}\n", 1, "an alias (*name) is within what it names"),
        (f"{LAUGHS}\nSEED: *a9\n", 6, "has more than 500,000 values"),
        (f"{MERGES}\nSOLVER: *b39\n", 18, "has more than 500,000 values"),
        ("SEED: " + "9" * 5000, 1, "is no value: Exceeds the limit"),
        ("SEED: 2020-13-45\n", 1, "'2020-13-45' is no value: month must be in 1..12"),
    ],
)
def test_a_file_is_refused_at_the_line(text, line, reason, write):
    sentence = error_of(lambda: get_config(write(text)))
    assert f"mine.yaml, line {line}: " in sentence and reason in sentence


def test_keys_of_a_merged_section_may_be_set_anew(write):
    assert read_yaml(write("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")) == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize(
    "opts, reason",
    [
        (["SEED", "[" * 3000 + "]" * 3000], "opts: SEED must be of type int"),
        (["SEED", "-" * 100_000 + "1"], "opts: SEED must be of type int"),
        (["SEED", "-" * 9_000 + "1"], "opts: SEED must be of type int"),
        (["SEED", "{[]: 1}"], "opts: SEED must be of type int"),
        (["SEED", "9" * 5000], "opts: SEED must be of type int"),
        (["SOLVER.BASE_LR", "1" + "0" * 400], "opts: SOLVER.BASE_LR must be of type float"),
        ([LONG, "1"], "opts: unknown key AAA"),
        ([f"SOLVER.{LONG}", "1"], "opts: unknown key SOLVER.AAA"),
        ([LONG], "opts: the last key, AAA"),
        (["SEED", LONG], "got 'AAA"),
    ],
)
def test_an_option_is_refused(opts, reason):
    assert reason in error_of(lambda: get_config("toy/semantic/r18", opts))


@pytest.mark.parametrize(
    "name", [LONG, f"{LONG}_rankseg.yaml", "a\0b", "a\0_rankseg.yaml", "~no/x", ""]
)
def test_a_name_that_is_no_file_is_refused(name, write, monkeypatch):
    monkeypatch.setattr(config_files, "shipped_names", lambda: ["toy/semantic/r18"] * 20)
    assert "is neither a file nor a shipped config" in error_of(lambda: get_config(name))
    base = write(f'_BASE_: "{name}"\n'.replace("\0", "\\0"))
    assert "(_BASE_ of " in error_of(lambda: get_config(base))


def test_a_folder_or_a_large_file_is_refused(tmp_path, write):
    assert "is neither a file" in error_of(lambda: get_config(tmp_path))
    sentence = error_of(lambda: get_config(write("A: " + "a" * 5_000_000)))
    assert "is larger than 4,000,000 letters" in sentence


def test_long_texts_are_cut(write):
    assert "of `KEY: value`, got 'aaa" in error_of(lambda: get_config(write("a" * 100_000)))


# _BASE_


def test_bases_that_double_are_read_once_each(write):
    write("SEED: 3\nVIS_PERIOD: 1\n", "base_60.yaml")
    for i in range(20, 60):
        write(
            f"_BASE_: [base_{i + 1}.yaml, base_{i + 1}.yaml]\nVIS_PERIOD: {i}\n", f"base_{i}.yaml"
        )
    cfg = get_config(write("_BASE_: [base_20.yaml, base_21.yaml]\n"))
    assert (cfg.SEED, cfg.VIS_PERIOD) == (3, 21)  # the later one wins


def test_a_long_chain_of_bases_is_refused(write):
    for i in range(1200):
        write(f"_BASE_: base_{i + 1}.yaml\n", f"base_{i}.yaml")
    sentence = error_of(lambda: get_config(write("_BASE_: base_0.yaml\n")))
    assert "more than 50 files inherit from each other by _BASE_" in sentence


def test_short_is_short_and_fast():
    value = ["ha"]
    for _ in range(60):
        value = [value, value]
    assert len(short(value)) < 1000
    assert short(10**5000) == "a number of thousands of digits"
    assert short([1, "a"]) == "[1, 'a']"
