"""`rankseg-d2 train` and `eval`: what is chosen, written and trained, and what is refused."""

import json
import math
import re

import pytest
import torch
import yaml
from support import own_data
from support.configs import leaves

from rankseg_d2.cli import main
from rankseg_d2.config import get_config
from rankseg_d2.engine import commands

pytestmark = pytest.mark.usefixtures("clean_catalogs")
SHORT = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"]


@pytest.fixture
def street(tmp_path, monkeypatch):
    """The yaml of ten images, in the working folder, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return str(own_data.semantic(tmp_path)[0])


@pytest.fixture
def started(monkeypatch):
    """What would be run: a list of (config file, KEY VALUE pairs), and the config when checked."""
    runs = []

    def start(args, once_checked=None):
        cfg = get_config(args.config_file, args.opts)
        runs.append((args, cfg))
        if once_checked:
            once_checked(cfg)

    monkeypatch.setattr(commands, "start", start)
    return runs


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([*words])
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err


def test_data_alone_gets_a_config_with_reasons_and_a_file_that_says_the_same(
    street, started, capsys
):
    words = ["train", "--data", "my.yaml", "SOLVER.MAX_ITER", "10", "SEED=4"]
    assert main([*words, "INPUT.MIN_SIZE_TRAIN", "(96,)"]) == 0
    ((args, cfg),) = started
    assert args.config_file == "own/semantic/lite0_small_rankseg" and not args.eval_only
    assert list(cfg.DATASETS.FILES) == [street] and cfg.DATASETS.TRAIN == ("street_train",)
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD, cfg.SEED) == (10, 2, 4)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5 and 4 <= cfg.MODEL.RANKSEG.TOPK <= 5
    text = capsys.readouterr().out
    assert text.startswith("street: semantic, 8 images for training, 5 classes, mostly 32 x 24 pix")
    for what in ("model", "image size", "batch", "schedule", "κ", "evaluation"):
        assert f"\n  {what}" in text
    assert "you have set SOLVER.MAX_ITER, SEED, INPUT.MIN_SIZE_TRAIN" in text
    path = "output/street/train.yaml"
    assert path in text
    assert dict(leaves(get_config(path))) == dict(leaves(cfg))
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    assert content["_BASE_"] == args.config_file
    assert content["INPUT"]["MIN_SIZE_TRAIN"] == [96] and content["SOLVER"]["MAX_ITER"] == 10


def test_what_is_chosen_can_be_changed_and_the_file_is_where_the_run_is(street, started, capsys):
    keys = ["OUTPUT_DIR", "elsewhere", "MODEL.RANKSEG.TOPK", "3", "MODEL.TIMM.PRETRAINED", "False"]
    assert main(["train", "--data", street, *keys]) == 0
    written = get_config("elsewhere/train.yaml")
    assert (written.MODEL.RANKSEG.TOPK, written.MODEL.TIMM.PRETRAINED) == (3, False)
    assert "elsewhere/train.yaml" in capsys.readouterr().out


def test_a_resumed_run_is_not_chosen_again(street, started, monkeypatch):
    assert main(["train", "--data", street]) == 0
    monkeypatch.setattr(commands, "fingerprint", None)
    assert main(["train", "--data", street, "--resume", "SOLVER.BASE_LR", "0.1"]) == 0
    (first, cfg), (args, resumed) = started
    assert args.config_file == "output/street/train.yaml" and args.resume
    changed = {key: value for key, value in leaves(resumed) if value != dict(leaves(cfg))[key]}
    assert changed == {"SOLVER.BASE_LR": 0.1}


def test_other_processes_neither_say_nor_write_it(street, started, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "--data", street]) == 0
    assert started[0][1].SOLVER.IMS_PER_BATCH == 4
    assert capsys.readouterr().out == "" and not (tmp_path / "output").exists()


@pytest.mark.parametrize("words", [["own/semantic/lite0"], ["--config-file", "own/semantic/lite0"]])
def test_a_config_for_own_data(street, started, words):
    assert main(["train", "--data", street, *words, "SOLVER.MAX_ITER=7"]) == 0
    ((args, cfg),) = started
    assert args.config_file == "own/semantic/lite0"
    assert list(cfg.DATASETS.FILES) == [street] and cfg.SOLVER.MAX_ITER == 7
    assert not cfg.MODEL.RANKSEG.FLAG


@pytest.mark.parametrize(("command", "eval_only"), [("train", False), ("eval", True)])
def test_a_config_alone_is_run_as_train_net_does(started, command, eval_only):
    words = ["--resume", "--num-gpus", "2", "shapes/panoptic/r10t", "SEED", "5"]
    assert main([command, *words]) == 0
    ((args, cfg),) = started
    assert (args.config_file, args.opts) == ("shapes/panoptic/r10t", ["SEED", "5"])
    assert (args.eval_only, args.resume, args.num_gpus, cfg.SEED) == (eval_only, True, 2, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "train: error: give a config: .*, or --data FILE"),
        (["eval"], "eval: error: give a config: a yaml file, or the name of a shipped one\n"),
        (["eval", "--data", "my.yaml"], "unrecognized arguments: --data"),
        (["train", "SEED", "1"], "give a config"),
        (["train", "--config-file", "a.yaml", "b.yaml"], "give one config: .*a.yaml, or b.yaml"),
        (["train", "--data", "absent.yaml"], "absent.yaml does not exist"),
        (["train", "--data", "my.yaml", "SOLVER.MAX_ITRE", "3"], "SOLVER.MAX_ITER"),
        (["train", "--data", "my.yaml", "SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER must be of"),
        (["train", "--data", "my.yaml", "MODEL.RANKSEG.TOPK", "9"], r"TOPK must be in \[1, 5\]"),
    ],
)
def test_mistakes_end_in_one_sentence(street, capsys, words, message):
    capsys.readouterr()
    error = refused(capsys, *words)
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_whole_numbers_of_the_command_line():
    assert {commands._whole(value) for value in ("12", 12, "012")} == {12}
    others = (None, "", "0", -3, "many", "1.5", True, "1" * 20)
    assert {commands._whole(value) for value in others} == {None}


def test_the_memory_of_the_smallest_gpu_counts(monkeypatch):
    parser = commands.default_argument_parser()
    assert commands.this_machine(parser.parse_args([])).gpu_memory == 0.0 or (
        torch.cuda.is_available()
    )
    sizes = [16 * 2**30, 8 * 2**30]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: type("", (), {"total_memory": sizes[i]})
    )
    machine = commands.this_machine(parser.parse_args(["--num-gpus", "2"]))
    assert (machine.processes, machine.gpu_memory) == (2, 8.0) and machine.cpus >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "metric"),
    [("semantic", "sem_seg/mIoU"), ("instances", "segm/AP"), ("panoptic", "panoptic_seg/PQ")],
)
def test_own_data_train_from_an_imagenet_backbone_and_are_evaluated(
    tmp_path, monkeypatch, capsys, kind, metric
):
    monkeypatch.chdir(tmp_path)
    path, _ = getattr(own_data, kind)(tmp_path)
    assert main(["train", "--data", str(path), "OUTPUT_DIR", "run", *SHORT]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert math.isfinite(rows[0]["total_loss"])
    assert metric in rows[-1]
    assert "starts from ImageNet weights" in capsys.readouterr().out
    # The same without the data's yaml on the command line, and without the package.
    monkeypatch.setattr(commands, "fingerprint", None)
    monkeypatch.setattr("importlib.metadata.files", None)
    weights = ["MODEL.WEIGHTS", "run/model_final.pth", "OUTPUT_DIR", "evaluated"]
    assert main(["eval", "run/train.yaml", *weights]) == 0
    assert f"{metric.split('/')[1]}" in capsys.readouterr().out
