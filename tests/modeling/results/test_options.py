"""Which results a config asks for."""

import re

import pytest
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog

from rankseg_d2.config import add_rankseg_config
from rankseg_d2.modeling.results.options import ResultOptions

C, Q = 7, 9

def options_of(**keys):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    cfg.merge_from_list([w for key, value in keys.items() for w in (key.replace("__", "."), value)])
    return ResultOptions.from_config(cfg)


def test_options_come_from_the_config():
    test = "MODEL__MASK_FORMER__TEST__"
    options = options_of(**{
        "MODEL__MASK_FORMER__TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
        test + "SEMANTIC_ON": False,
        test + "OBJECT_MASK_THRESHOLD": 0.8,
        test + "OVERLAP_THRESHOLD": 0.7,
        test + "SCORE_THRESHOLD": 0.2,
        test + "DETECTIONS_PER_VIDEO": 5,
        "TEST__DETECTIONS_PER_IMAGE": 50,
        "MODEL__RANKSEG__FULL_SCORES": True,
    })
    assert options == ResultOptions(
        semantic=False,
        object_mask_threshold=0.8,
        overlap_threshold=0.7,
        score_threshold=0.2,
        detections_per_video=5,
        detections_per_image=50,
        full_scores=True,
        thing_ids=options.thing_ids,
    )


@pytest.mark.parametrize(
    "key", ["SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE", "PANOPTIC_ON", "INSTANCE_ON"]
)
def test_masks_are_resized_first_where_the_key_or_the_task_asks_for_it(key):
    assert not options_of().resize_first and not options_of().covered_only
    assert options_of(**{f"MODEL__MASK_FORMER__TEST__{key}": True}).resize_first


@pytest.mark.parametrize(
    "key", ["TEST.DETECTIONS_PER_IMAGE", "MODEL.MASK_FORMER.TEST.DETECTIONS_PER_VIDEO"]
)
def test_fewer_detections_than_none_are_refused(key):
    assert options_of(**{key: 0})
    with pytest.raises(ValueError, match=f"^{re.escape(key)} must be at least 0, but is -1; 100"):
        options_of(**{key: -1})


def test_things_are_those_of_the_first_data_set_that_knows():
    names = ["inference_test_unknown", "inference_test_things", "inference_test_other_things"]
    for name, ids in zip(names[1:], ({10: 0, 30: 2}, {1: 1}), strict=True):
        MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = ids
    try:
        known = options_of(DATASETS__TRAIN=tuple(names[:1]), DATASETS__TEST=tuple(names[1:]))
        assert known.things() == {0, 2}
        unknown = options_of(DATASETS__TRAIN=tuple(names[:1]), DATASETS__TEST=())
        with pytest.raises(ValueError, match="which classes are things"):
            unknown.things()
    finally:
        for name in names:
            MetadataCatalog.pop(name, None)
