"""Published files to results: prepare, register, train a step, evaluate, for every public data set.

What a model that is right would get must be 100: that is how records, labels, metadata and
evaluators agree.
"""

import csv
import json
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
from detectron2.data import MetadataCatalog
from support import backbones, raw_persons
from support import raw_datasets as raw
from support.end_to_end import Perfect, small_config, train

from rankseg_d2.cli import main
from rankseg_d2.engine import Trainer

SEMANTIC = "ade20k/semantic/r50_rankseg"
ADE_PANOPTIC, COCO_PANOPTIC = "ade20k/panoptic/r50_rankseg", "coco/panoptic/r50_rankseg"
INSTANCES = {f"MODEL__MASK_FORMER__TEST__{task}_ON": False for task in ("SEMANTIC", "PANOPTIC")}
INSTANCES |= {"MODEL__MASK_FORMER__TEST__INSTANCE_ON": True}


class Case(NamedTuple):
    """A data set: its raw copy, the commands that prepare it, and the config that trains on it."""

    make: Callable
    commands: list[str]
    names: str  # of the splits, with * for what tells them apart
    config: str = SEMANTIC
    tasks: tuple[str, ...] = ("sem_seg",)
    keys: dict = {}
    splits: tuple[str, str] = ("train", "val")


ALL = ("sem_seg", "panoptic_seg", "segm")
coco_stuff_10k = partial(
    Case, names="coco_2017_*_stuff_10k_sem_seg", splits=("train", "test"),
    commands=["coco-stuff-10k"],
)  # fmt: skip
parsing = partial(Case, tasks=("parsing", "sem_seg"))
CASES = {
    "ade20k": Case(raw.make_ade20k, ["ade20k"], "ade20k_sem_seg_*"),
    # As published, stuff keeps the area that things hide: no prediction can be right then.
    "ade20k-panoptic": Case(
        raw.make_ade20k, ["ade20k-panoptic --visible-area"],
        "ade20k_panoptic_*", ADE_PANOPTIC, ALL,
    ),
    "ade20k-instance": Case(
        raw.make_ade20k, ["ade20k-instance"], "ade20k_instance_*", ADE_PANOPTIC, ("segm",),
        INSTANCES | {"INPUT__DATASET_MAPPER_NAME": "mask_former_instance"},
    ),
    "ade20k-full": Case(raw.make_ade20k_full, ["ade20k-full"], "ade20k_full_sem_seg_*"),
    "coco-panoptic": Case(
        raw.make_coco, ["coco-panoptic"], "coco_2017_*_panoptic_with_sem_seg", COCO_PANOPTIC, ALL,
    ),
    "coco-panoptic-alone": Case(
        raw.make_coco, [], "coco_2017_*_panoptic", COCO_PANOPTIC, ALL,
        {"INPUT__DATASET_MAPPER_NAME": "detr_panoptic"},
    ),
    "coco-instance": Case(
        raw.make_coco, [], "coco_2017_*", COCO_PANOPTIC, ("segm",),
        INSTANCES | {"INPUT__DATASET_MAPPER_NAME": "coco_instance_lsj"},
    ),
    "coco-stuff-10k-1.0": coco_stuff_10k(partial(raw.make_coco_stuff_10k, release="1.0")),
    "coco-stuff-10k-1.1": coco_stuff_10k(raw.make_coco_stuff_10k),
    "coco-stuff-164k": Case(
        raw.make_coco_stuff_164k, ["coco-stuff-164k"], "coco_2017_*_stuff_164k_sem_seg"
    ),
    "coco-lvis": Case(raw.make_coco_lvis, ["coco-lvis"], "coco_lvis_sem_seg_*"),
    "pascal-context-59": Case(
        raw.make_pascal_context, ["pascal-context"], "pascal_context_59_sem_seg_*"
    ),
    "pascal-context-60": Case(
        partial(raw.make_pascal_context, source="matlab"), ["pascal-context"],
        "pascal_context_60_sem_seg_*",
    ),
    "cityscapes": Case(raw.make_cityscapes, ["cityscapes"], "cityscapes_fine_sem_seg_*"),
    "cityscapes-panoptic": Case(
        raw.make_cityscapes, ["cityscapes"], "cityscapes_fine_panoptic_*", ADE_PANOPTIC,
        ("sem_seg", "panoptic_seg"),
    ),
    "camvid": Case(
        raw_persons.make_camvid, ["camvid"], "camvid_sem_seg_*",
        "camvid/semantic/segformer_b0_rankseg", keys={"MODEL__RANKSEG__TOPK": 11},
    ),
    "lip": Case(raw_persons.make_lip, [], "lip_sem_seg_*", "lip/semantic/segformer_b0_rankseg"),
    "cihp": Case(raw_persons.make_cihp, [], "cihp_sem_seg_*", "cihp/semantic/segformer_b0_rankseg"),
    "cihp-parsing": parsing(
        raw_persons.make_cihp, [], "cihp_parsing_*", "cihp/parsing/r50_rankseg"
    ),
    "mhpv1": Case(
        partial(raw_persons.make_mhp, version=1), ["mhpv1"], "mhpv1_sem_seg_*",
        "mhpv1/semantic/segformer_b0_rankseg", splits=("test", "test"),
    ),
    "mhpv1-parsing": parsing(
        partial(raw_persons.make_mhp, version=1), ["mhpv1"], "mhpv1_parsing_*",
        "mhpv1/parsing/r50_rankseg", splits=("test", "test"),
    ),
    "mhpv2": Case(
        partial(raw_persons.make_mhp, version=2), ["mhpv2"], "mhpv2_sem_seg_*",
        "mhpv2/semantic/segformer_b0_rankseg",
    ),
    "mhpv2-parsing": parsing(
        partial(raw_persons.make_mhp, version=2), ["mhpv2"], "mhpv2_parsing_*",
        "mhpv2/parsing/r50_rankseg",
    ),
    "atr": Case(raw_persons.make_atr, [], "atr_sem_seg_*", "atr/semantic/segformer_b0_rankseg"),
}  # fmt: skip

# Of each task: what is 100 where all is right, and whose classes its table lists
METRICS = {
    "sem_seg": (["mIoU", "mIoU_nanmean", "fwIoU", "mACC", "pACC"], "stuff_classes"),
    "panoptic_seg": (["PQ", "SQ", "RQ", "PQ_th", "PQ_st"], "stuff_classes"),
    "segm": (["AP", "AP50", "AP75", "AR100"], "thing_classes"),
    "parsing": (["APp", "APp50", "PCP50", "APr", "APr50", "APr_corrected"], "part_classes"),
    "multilabel": (["mAP", "LRAP", "recall@k"], None),
}


def prepare(case, root):
    if case is CASES["coco-stuff-10k-1.0"]:
        pytest.importorskip("h5py")
    case.make(root)
    for command in case.commands:
        name, *options = command.split()
        words = ["dataset", "prepare", name, "--root", str(root), "--workers", "1", *options]
        assert main(words) == 0


def config_of(case, output_dir, **keys):
    train_name, test_name = (case.names.replace("*", split) for split in case.splits)
    data = {"DATASETS__TRAIN": [train_name], "DATASETS__TEST": [test_name]}
    return small_config(case.config, output_dir, **data, **case.keys, **keys)


def small_backbone(name):
    return {key.replace(".", "__"): value for key, value in backbones.SMALL[name].items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_public_data_set_trains_and_is_evaluated(case, root, tmp_path):
    prepare(case, root)
    cfg = config_of(case, tmp_path / "output")
    tasks = (*case.tasks, "multilabel")
    results = train(cfg)
    check_tables(cfg, tasks)
    for task in tasks:
        for name in METRICS[task][0]:
            value = results[f"{task}/{name}"]
            assert 0 <= value <= 100, (task, name)
    assert results["multilabel/k"] == cfg.MODEL.RANKSEG.TOPK

    right = Trainer.test(cfg, Perfect(cfg))
    assert right.keys() == set(tasks)
    for task in tasks:
        values = {name: right[task][name] for name in METRICS[task][0]}
        assert values == pytest.approx(dict.fromkeys(values, 100)), task
    check_tables(cfg, tasks)


@pytest.mark.parametrize("name", ["lip", "cihp-parsing"])
def test_a_test_split_without_labels_gets_label_maps(name, root, tmp_path):
    case = CASES[name]._replace(splits=("train", "test"))
    prepare(case, root)
    raw_persons.make_tests(root)
    cfg = config_of(case, tmp_path / "output")
    assert not Trainer.test(cfg, Trainer.build_model(cfg))
    made = (tmp_path / "output").glob("**/sem_seg_predictions/*.png")
    assert sorted(path.name for path in made) == ["7.png", "8.png"]


@pytest.mark.parametrize("ranks", ["", "_rankseg"])
@pytest.mark.parametrize(
    "config, backbone",
    [
        ("ade20k/semantic/upernet_cswin_t", "CSWin"),
        ("ade20k/semantic/upernet_volo_d1", "VOLO"),
        ("ade20k/semantic/upernet_vit_adapter_b", "ViT-Adapter"),
        ("ade20k/semantic/semask_swin_l", "SeMask"),
        ("ade20k/semantic/vit_adapter_beit_l", "ViT-Adapter on BEiT"),
    ],
)
def test_the_configs_of_other_backbones_train_and_are_evaluated(
    config, backbone, ranks, root, tmp_path
):
    keys = small_backbone(backbone) | {
        "TEST__SLIDING_WINDOW__SIZE": [64, 64], "TEST__SLIDING_WINDOW__STRIDE": [64, 64]
    }  # fmt: skip
    case = CASES["ade20k"]._replace(config=config + ranks, keys=keys)
    prepare(case, root)
    results = train(config_of(case, tmp_path / "output"))
    assert 0 <= results["sem_seg/mIoU"] <= 100
    assert ("multilabel/mAP" in results) == bool(ranks)


@pytest.mark.parametrize(
    "config, backbone", [("coco/entity/r50", None), ("coco/entity/condinst_mit_b0", "MiT")]
)
def test_the_entities_of_coco_train_and_are_evaluated(config, backbone, root, tmp_path):
    keys = small_backbone(backbone) if backbone else {}
    keys |= {"MODEL__SEM_SEG_HEAD__CONVS_DIM": 64}  # of 32 groups that are normalised
    case = Case(raw.make_coco, ["coco-entity"], "coco_2017_*_entity", config, keys=keys)
    prepare(case, root)
    cfg = config_of(case, tmp_path / "output")
    results = train(cfg)
    assert 0 <= results["entity/AP"] <= 100
    right = Trainer.test(cfg, Perfect(cfg))
    assert list(right) == ["entity"]
    assert [right["entity"][x] for x in ("AP", "AP50", "AP75", "AR100")] == pytest.approx([100] * 4)


def check_tables(cfg, tasks):
    """Each task has a table with a row for each class, as json and as csv."""
    (name,) = cfg.DATASETS.TEST
    for task in tasks:
        folder = f"{cfg.OUTPUT_DIR}/inference/{name}"
        with open(f"{folder}/{task}.json") as file:
            content = json.load(file)
        with open(f"{folder}/{task}.csv") as file:
            rows = list(csv.DictReader(file))
        classes = MetadataCatalog.get(name).get(METRICS[task][1] or "")
        count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if classes is None else len(classes)
        assert len(content["rows"]) == len(rows) == count
        assert [row["class"] for row in content["rows"]] == [row["class"] for row in rows]


def test_what_the_evaluation_lacks_is_told_before_the_training(root, tmp_path):
    case = CASES["ade20k-panoptic"]
    prepare(case, root)
    truth = root / "ADEChallengeData2016" / "ade20k_instance_val.json"
    truth.rename(truth.with_suffix(".away"))
    with pytest.raises(FileNotFoundError, match=rf"{truth}, does not exist. Prepare the"):
        Trainer(config_of(case, tmp_path / "output"))
    Trainer(config_of(case, tmp_path / "output", MODEL__MASK_FORMER__TEST__INSTANCE_ON=False))
    (root / "ADEChallengeData2016" / "ade20k_panoptic_val.json").unlink()
    with pytest.raises(FileNotFoundError, match="make it with `rankseg-d2 .* ade20k-panoptic"):
        Trainer(config_of(case, tmp_path / "output"))
