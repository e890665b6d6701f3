"""Which evaluators a data set gets, and all of them behind a model."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from support.evaluation_data import metadata_of, register, unregister, write
from support.small import MASK2FORMER, RANKSEG, make_config, make_model

from rankseg_d2.evaluation import EVALUATORS, build_evaluator
from rankseg_d2.evaluation.examples import Examples
from rankseg_d2.evaluation.pictures import PictureSheet
from rankseg_d2.tasks import IMAGE_TYPES, VIDEO_TYPES

NAME = "test_choices"


@pytest.fixture
def metadata(tmp_path):
    """The metadata of a data set whose records a test may set."""
    (tmp_path / "instances.json").touch()
    register(NAME, [], metadata_of(tmp_path))
    yield MetadataCatalog.get(NAME)
    unregister(NAME)


def names_of(evaluator):
    evaluators = getattr(evaluator, "_evaluators", [evaluator])
    evaluators = [one for one in evaluators if not isinstance(one, PictureSheet | Examples)]
    return [type(one).__name__.removesuffix("Evaluator") for one in evaluators]


def set_type(metadata, evaluator_type):
    del metadata.evaluator_type
    metadata.evaluator_type = evaluator_type


def on(*tasks):
    return {
        f"MODEL.MASK_FORMER.TEST.{task}_ON": task in tasks
        for task in ("SEMANTIC", "PANOPTIC", "INSTANCE", "PARSING")
    }


@pytest.mark.parametrize(
    "evaluator_type, options, expected",
    [
        ("sem_seg", {}, ["Semantic"]),
        ("sem_seg", on("SEMANTIC", "PANOPTIC", "INSTANCE"), ["Semantic"]),
        ("sem_seg", RANKSEG, ["Semantic", "MultiLabel"]),
        ("sem_seg", RANKSEG | {"MODEL.RANKSEG.USE_GT": True}, ["Semantic"]),
        ("cityscapes_sem_seg", {}, ["Semantic"]),
        ("ade20k_full_sem_seg", {}, ["Semantic"]),
        ("ade20k_panoptic_seg", on("PANOPTIC"), ["Panoptic"]),
        ("coco_panoptic_seg", on("PANOPTIC", "INSTANCE"), ["Panoptic", "Instance"]),
        (
            "coco_panoptic_seg",
            RANKSEG | on("SEMANTIC", "PANOPTIC", "INSTANCE"),
            ["Semantic", "Panoptic", "Instance", "MultiLabel"],
        ),
        ("cityscapes_panoptic_seg", on("SEMANTIC"), ["Semantic"]),
        ("human_parsing", on("SEMANTIC", "PARSING"), ["Parsing", "Semantic"]),
        ("human_parsing", {}, ["Semantic"]),
        ("human_parsing", RANKSEG | on("PARSING"), ["Parsing", "MultiLabel"]),
        ("coco", on("SEMANTIC", "INSTANCE"), ["Instance"]),
        ("coco", on("INSTANCE") | RANKSEG, ["Instance", "MultiLabel"]),
        (
            "coco_panoptic_seg",
            on("SEMANTIC", "PANOPTIC") | {"MODEL.META_ARCHITECTURE": "PixelClassifier"},
            ["Semantic"],
        ),
    ],
)
def test_config_and_data_set_choose(metadata, evaluator_type, options, expected):
    set_type(metadata, evaluator_type)
    metadata.part_classes = ["head"]
    assert names_of(build_evaluator(make_config(options), NAME)) == expected


def test_every_type_has_a_factory():
    assert IMAGE_TYPES.keys() | VIDEO_TYPES.keys() <= EVALUATORS.keys()


def test_ranking_of_instances_is_over_things(metadata):
    set_type(metadata, "coco")
    ranking = build_evaluator(make_config(on("INSTANCE") | RANKSEG), NAME)._evaluators[1]
    assert ranking.names == ["cat", "dog", "unicorn"]


def test_instances_need_ground_truth(metadata, caplog):
    del metadata.json_file
    cfg = make_config(on("PANOPTIC", "INSTANCE"))
    assert names_of(build_evaluator(cfg, NAME)) == ["Panoptic"]
    assert "neither json_file nor annotations" in caplog.text
    DatasetCatalog.remove(NAME)
    DatasetCatalog.register(NAME, lambda: [{"annotations": []}])
    assert names_of(build_evaluator(cfg, NAME)) == ["Panoptic", "Instance"]


def test_a_missing_json_is_an_error_before_the_first_image(metadata, tmp_path):
    (tmp_path / "instances.json").unlink()
    with pytest.raises(FileNotFoundError, match="instances.json, does not exist. Prepare"):
        build_evaluator(make_config(on("PANOPTIC", "INSTANCE")), NAME)


def test_nothing_to_evaluate_is_an_error(metadata):
    set_type(metadata, "coco")
    with pytest.raises(ValueError, match="needs INSTANCE_ON .* but only PANOPTIC_ON is True"):
        build_evaluator(make_config(on("PANOPTIC")), NAME)


@pytest.mark.parametrize("save", [False, True])
def test_predictions_are_saved_when_the_config_asks(metadata, save):
    options = on("SEMANTIC", "PANOPTIC") | {"TEST.SAVE_PREDICTIONS": save, "TEST.PICTURES": 0}
    cfg = make_config(options)
    for evaluator in build_evaluator(cfg, NAME, "folder")._evaluators:
        assert evaluator.save_predictions == save
        assert evaluator.output_folder == "folder"


def test_results_of_a_model_are_evaluated(tmp_path):
    """All evaluators, in batches of two, take what a model with RankSeg returns."""
    records, metadata = write(tmp_path / "data", count=3)
    register(NAME, records, metadata)
    options = MASK2FORMER | RANKSEG | on("SEMANTIC", "PANOPTIC", "INSTANCE")
    options |= {"DATASETS.TEST": (NAME,), "OUTPUT_DIR": str(tmp_path)}
    rng = np.random.default_rng(0)
    samples = [
        record | {"image": torch.from_numpy(rng.integers(0, 255, (3, 64, 96))).float()}
        for record in records
    ]
    try:
        evaluator = build_evaluator(make_config(options), NAME)
        model = make_model(options).eval()
        results = inference_on_dataset(model, [samples[:2], samples[2:]], evaluator)
    finally:
        unregister(NAME)
    assert results.keys() == {"sem_seg", "panoptic_seg", "segm", "multilabel"}
    assert 0 <= results["sem_seg"]["pACC"] <= 100
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100
    assert 0 <= results["segm"]["AP"] <= 100
    assert results["multilabel"]["k"] == 4
    assert (tmp_path / "inference" / NAME / "panoptic_seg.csv").exists()


@pytest.mark.parametrize("tasks", [["SEMANTIC"], ["PANOPTIC"], ["SEMANTIC", "PANOPTIC"]])
def test_instances_with_the_flags_of_other_tasks_are_an_error_also_with_a_ranking(metadata, tasks):
    set_type(metadata, "coco")
    for options in (on(*tasks), RANKSEG | on(*tasks)):
        with pytest.raises(ValueError, match="needs INSTANCE_ON .*but only .*_ON is True"):
            build_evaluator(make_config(options), NAME)


def test_a_flag_without_labels_is_named(metadata, caplog):
    set_type(metadata, "coco")
    build_evaluator(make_config(on("SEMANTIC", "INSTANCE")), NAME)
    assert "TEST.SEMANTIC_ON is True, but test_choices has no semantic labels" in caplog.text
