import ast
import json
import re
import subprocess
import sys

import pytest
from detectron2.config import get_cfg
from support.configs import leaves
from support.paths import GOLDEN, ROOT

from rankseg_d2.cli import main
from rankseg_d2.config import KEYS
from rankseg_d2.config_reference import detectron2_keys, key_reference, our_keys

OURS = {key.name: key for key in our_keys()}


def test_the_page_is_what_the_command_writes(capsys):
    assert main(["configs", "--keys"]) == 0
    page = (ROOT / "docs/keys.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out, "rankseg-d2 configs --keys > docs/keys.md"


def test_the_reference_has_every_key_once_with_its_default():
    assert {name: key.default for name, key in OURS.items()} == dict(leaves(KEYS))
    defaults = dict(leaves(get_cfg()))
    theirs = {key.name: key.default for key in detectron2_keys()}
    assert theirs.items() <= defaults.items()
    assert {"SOLVER.BASE_LR", "OUTPUT_DIR", "TEST.AUG.FLIP"} <= theirs.keys()
    lines = re.findall(r"^\* `([\w.]+): (.*?)`", key_reference(), re.MULTILINE)
    assert len(lines) == len(OURS) + len(theirs)
    everything = dict(leaves(KEYS)) | theirs
    assert {name: ast.literal_eval(value) for name, value in lines} == everything


def test_every_key_of_ours_is_explained():
    assert [name for name, key in OURS.items() if len(key.meaning.removeprefix("ours: ")) < 5] == []


def test_keys_that_upstream_lacks_and_no_others_are_marked():
    sections = json.loads((GOLDEN / "config_keys.json").read_text())
    upstream = {name for keys in sections.values() for name in keys}
    marked = {name for name, key in OURS.items() if key.meaning.startswith("ours: ")}
    assert marked == OURS.keys() - upstream


@pytest.mark.parametrize(("name", "meaning"), [
    ("MODEL.RANKSEG.USE_GT", "the oracle: rank by the labels, to measure the ceiling"),
    ("MODEL.TIMM.NAME",
     "ours: a model of timm, for MODEL.BACKBONE.NAME TimmBackbone"),  # marked by section
    ("SOLVER.AMP.DTYPE", "ours: fp16 or bf16; needs SOLVER.AMP.ENABLED True"),  # section of one key
    ("SOLVER.REFERENCE_BATCH_SIZE",  # above the key
     "ours: BASE_LR is for a batch of this size and scales with IMS_PER_BATCH; 0: no scaling"),
])  # fmt: skip
def test_a_comment_belongs_to_its_key(name, meaning):
    assert OURS[name].meaning == meaning


def test_of_several_keys_in_a_line_the_last_one_has_the_comment():
    meanings = {key.name: key.meaning for key in detectron2_keys()}
    assert meanings["SOLVER.WEIGHT_DECAY_BIAS"] == "None: as the other weights"
    assert meanings["SOLVER.BIAS_LR_FACTOR"] == meanings["SOLVER.BASE_LR"] == ""


@pytest.mark.parametrize(("word", "wanted"), [
    ("mlhead_", {"MLHEAD_MULTIPLIER"} | {f"MLHEAD_GUARD.{x}" for x in
                                         ("ENABLED", "METRIC", "DROP", "FACTOR")}),
    ("Large-Scale jitter", {"IMAGE_SIZE", "MIN_SCALE", "MAX_SCALE"}),  # in what a key means
])  # fmt: skip
def test_a_word_finds_keys_by_name_and_by_meaning(word, wanted, capsys):
    assert main(["configs", "--keys", word]) == 0
    found = re.findall(r"^\* `(?:SOLVER|INPUT)\.([\w.]+): ", capsys.readouterr().out, re.MULTILINE)
    assert set(found) == wanted


def test_a_word_that_no_key_has_is_answered_with_the_nearest_keys(capsys):
    assert main(["configs", "--keys", "TOP_K"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert "error: no key contains 'TOP_K'" in written.err
    assert "the nearest keys are MODEL.RANKSEG.TOPK, " in written.err


def test_values_are_those_of_the_range_or_of_the_type():
    assert OURS["SOLVER.KEEP_CHECKPOINTS"].line().endswith(" (a whole number of at least 0)")
    assert OURS["INPUT.KEEP_EMPTY"].line().endswith(" (True or False)")
    assert OURS["LOG_OUTPUT"].line() == "* `LOG_OUTPUT: None`: not read: in upstream's yaml files"


def test_the_reference_loads_no_torch():
    code = (
        "import sys\n"
        "from rankseg_d2.cli import main\n"
        "assert main(['configs', '--keys', 'TOPK']) == 0 and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
