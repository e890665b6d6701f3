"""What a user can do wrong is said before anything starts, in one sentence."""

import re
from argparse import Namespace

import pytest
import torch
from support import own_data
from support.end_to_end import small_config

from rankseg_d2.config import get_config
from rankseg_d2.engine import Checkpointer, Trainer, check_run, class_names
from rankseg_d2.engine.checks import build_on_meta, check_norms

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def arguments(**changes):
    defaults = {"eval_only": False, "resume": False, "num_gpus": 1}
    defaults |= {"num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return Namespace(**(defaults | changes))


@pytest.fixture
def config(tmp_path):
    """A small RankSeg on images of the user."""
    own_data.semantic(tmp_path)
    path = tmp_path / "train.yaml"
    path.write_text("_BASE_: ade20k/semantic/r50_rankseg\nDATASETS: {FILES: [my.yaml]}\n")

    def config(**keys):
        keys = {"MODEL__RANKSEG__TOPK": 3, "MODEL__WEIGHTS": ""} | keys
        return small_config(path, tmp_path / "output", **keys)

    return config


def saved(cfg, **parts):
    """The config's model, saved as model_final.pth of OUTPUT_DIR."""
    model = Trainer.build_model(cfg)
    Checkpointer(model, cfg.OUTPUT_DIR, class_names=class_names(cfg)).save("model_final", **parts)
    return f"{cfg.OUTPUT_DIR}/model_final.pth"


def test_a_right_run_passes_and_leaves_no_model_behind(config, tmp_path, caplog):
    cfg = config()
    check_run(cfg, arguments())
    check_run(cfg, arguments())
    left = {path.name for path in (tmp_path / "output").iterdir()}
    assert left <= {".lock"}
    assert not caplog.records
    path = saved(cfg)
    check_run(config(MODEL__WEIGHTS=path), arguments(eval_only=True))
    with torch.device("cpu"):
        assert all(p.is_meta for p in build_on_meta(cfg).parameters())


@pytest.mark.parametrize(
    "keys, args, message",
    [
        ({"INPUT__DATASET_MAPPER_NAME": "mask_former_x"}, {}, "INPUT.DATASET_MAPPER_NAME: 'mask_f"),
        ({"INPUT__FORMAT": "XYZ"}, {}, "INPUT.FORMAT"),
        ({"MODEL__RANKSEG__HEAD": "x"}, {}, "MODEL.RANKSEG.HEAD: 'x' is not known"),
        ({"MODEL__RANKSEG__LAYER": 40}, {}, "MODEL.RANKSEG.LAYER must be in"),
        ({"MODEL__RANKSEG__TOPK": 0}, {}, r"MODEL.RANKSEG.TOPK must be in \[1, 5\]"),
        ({"MODEL__RANKSEG__HIDDEN_DIM": 100_001}, {}, "MODEL.RANKSEG.HIDDEN_DIM"),
        ({"MODEL__MASK_FORMER__NHEADS": 7}, {}, "must be a multiple of MODEL.MASK_FORMER.NHEADS"),
        ({"MODEL__META_ARCHITECTURE": "PixelClassifier"}, {}, "does not classify pixels"),
        ({"SOLVER__OPTIMIZER": "ADAM"}, {}, "SOLVER.OPTIMIZER: 'ADAM' is not known"),
        ({"SOLVER__LR_SCHEDULER_NAME": "x"}, {}, "SOLVER.LR_SCHEDULER_NAME: 'x' is not known"),
        ({"SOLVER__MLHEAD_GUARD__ENABLED": True, "TEST__EVAL_PERIOD": 0}, {}, "TEST.EVAL_PERIOD"),
        ({"SOLVER__IMS_PER_BATCH": 3}, {"num_gpus": 2}, r"IMS_PER_BATCH \(3\) must be a multiple"),
        ({"SOLVER__IMS_PER_BATCH": 6}, {"num_machines": 4}, r"\(4 x 1 = 4\)"),
        ({}, {"num_machines": 2, "machine_rank": 2}, "--machine-rank must be from 0"),
        ({"DATASETS__TRAIN": ("street_trian",)}, {}, "'street_trian' is not registered"),
        ({"MODEL__WEIGHTS": "gone.pth"}, {}, r"gone\.pth does not exist. Correct MODEL.WEIGHTS"),
        ({"TEST__SLIDING_WINDOW__ENABLED": True, "TEST__SLIDING_WINDOW__STRIDE": [900, 9]}, {},
         "a stride is at least"),
        ({"DATASETS__TRAIN": ()}, {}, "DATASETS.TRAIN names no data set"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_start_is_refused(config, keys, args, message):
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        check_run(config(**keys), arguments(**args))


@pytest.mark.parametrize(
    "name, keys",
    [
        ("shapes/semantic/segformer_b0", ["SEM_SEG_HEAD"]),
        ("shapes/semantic/deeplab_r50c", ["RESNETS", "SEM_SEG_HEAD"]),
        ("ade20k/semantic/upernet_volo_d1", ["SEM_SEG_HEAD", "VOLO"]),
        ("ade20k/semantic/upernet_beit_b", ["SEM_SEG_HEAD", "BEIT"]),
        ("coco_stuff/semantic/vit_adapter_beit_b", ["VIT_ADAPTER"]),
        ("ade20k/semantic/r50", []),
    ],
)
def test_sync_norms_are_not_trained_by_processes_on_the_cpu(name, keys):
    sync = {f"MODEL.{key}.NORM": "SyncBN" for key in keys}
    cfg = get_config(
        name, ["MODEL.DEVICE", "cpu", *(word for pair in sync.items() for word in pair)]
    )
    model = build_on_meta(cfg)
    check_norms(cfg, model, ranks=1)
    if not keys:
        check_norms(cfg, model, ranks=2)
        return
    with pytest.raises(
        ValueError, match="2 processes would train it on the CPU.* one process"
    ) as error:
        check_norms(cfg, model, ranks=2)
    named = re.findall(r"set MODEL\.(\w+)\.NORM BN", str(error.value))
    assert sorted(named) == sorted(keys)
    repaired = [word for key in sync for word in (key, "BN")]
    cfg = get_config(name, ["MODEL.DEVICE", "cpu", *repaired])
    check_norms(cfg, build_on_meta(cfg), ranks=2)


def test_sync_norms_are_refused_before_a_training_but_not_before_an_evaluation(config):
    norm = {"MODEL__SEM_SEG_HEAD__NORM": "SyncBN"}
    check_run(config(**norm), arguments())
    with pytest.raises(ValueError, match=r"SyncBN .* set MODEL\.SEM_SEG_HEAD\.NORM BN, or use one"):
        check_run(config(**norm), arguments(num_gpus=2))
    weights = saved(config(**norm))
    check_run(config(**norm, MODEL__WEIGHTS=weights), arguments(num_gpus=2, eval_only=True))


def test_labels_that_do_not_pair_are_named(config, tmp_path):
    cfg = config()
    next((tmp_path / "labels").glob("*.png")).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"without|no label|has no"):
        check_run(cfg, arguments())


def test_damaged_weights_are_named(config, tmp_path):
    path = tmp_path / "bad.pth"
    whole = saved(config())
    with open(whole, "rb") as file:
        path.write_bytes(file.read(50_000))
    (tmp_path / "output" / "last_checkpoint").unlink()
    (tmp_path / "output" / "model_final.pth").unlink()
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read .* truncated, damaged or not"):
        check_run(config(MODEL__WEIGHTS=str(path)), arguments())


# --- evaluations ----------------------------------------------------------------------------------


def test_an_evaluation_needs_weights_and_names_the_runs_own(config):
    message = "--eval-only needs weights, but MODEL.WEIGHTS is empty; "
    with pytest.raises(ValueError, match=f"{message}set MODEL.WEIGHTS .*add --resume"):
        check_run(config(), arguments(eval_only=True))
    with pytest.raises(ValueError, match=message):
        check_run(config(), arguments(eval_only=True, resume=True))
    path = saved(config())
    with pytest.raises(ValueError, match=f"{message}this run has trained MODEL.WEIGHTS {path}"):
        check_run(config(), arguments(eval_only=True))
    check_run(config(), arguments(eval_only=True, resume=True))


def test_an_evaluation_of_weights_to_start_from_is_refused(config, tmp_path):
    cfg = config()
    names = [name for name, _ in build_on_meta(cfg).named_parameters()]
    backbone = {name: torch.zeros(1) for name in names if name.startswith("backbone.")}
    torch.save(backbone, tmp_path / "imagenet.pth")
    cfg = config(MODEL__WEIGHTS=str(tmp_path / "imagenet.pth"))
    check_run(cfg, arguments())
    with pytest.raises(ValueError, match=r"imagenet\.pth lacks \d+ weights of the model, such as"):
        check_run(cfg, arguments(eval_only=True))


# --- going on -------------------------------------------------------------------------------------


def test_a_run_with_another_number_of_ranks_is_not_resumed(config):
    saved(config(), trainer={"iteration": 1})
    check_run(config(), arguments(resume=True))
    with pytest.raises(RuntimeError, match=r"ml_norm\.weight is \(4,\) in the file and \(3,\)"):
        check_run(config(MODEL__RANKSEG__TOPK=2), arguments(resume=True))


def test_a_checkpoint_without_the_trainers_state_is_evaluated_but_not_resumed(config):
    saved(config())
    check_run(config(), arguments(resume=True, eval_only=True))
    with pytest.raises(ValueError, match="it has weights, but no state of the trainer"):
        check_run(config(), arguments(resume=True))


def test_a_folder_with_a_run_is_not_overwritten(config):
    saved(config())
    with pytest.raises(RuntimeError, match=r"holds a run already, with model_final\.pth"):
        check_run(config(), arguments())
