"""Samplers of the training loader."""

import pytest
from support.toy import ToyMapper, toy_config, toy_dicts

from rankseg_d2.data.loading import build_train_loader

REPEAT = (
    "DATALOADER.ASPECT_RATIO_GROUPING", False, "DATALOADER.REPEAT_THRESHOLD", 1.0,
    "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler",
)  # fmt: skip


def drawn(cfg, dicts):
    batches = build_train_loader(cfg, ToyMapper(True), dicts).batches(seed=1)
    ids = [x["image_id"] for _ in range(150) for x in next(batches)]
    return ids.count(0) / ids.count(1)


@pytest.mark.parametrize("key", ["annotations", "segments_info"])
def test_the_root_of_the_repeat_factor_is_a_key(tmp_path, key):
    dicts = toy_dicts()
    for d in dicts:
        d["annotations"][0]["category_id"] = int(d["image_id"] == 0)
        d["segments_info" if key == "segments_info" else "other"] = d["annotations"]
    ratios = [
        drawn(toy_config(tmp_path, *REPEAT, "DATALOADER.REPEAT_SQRT", root), dicts)
        for root in (True, False)
    ]
    count = len(dicts)
    assert ratios == pytest.approx([count**0.5, count], rel=0.35)


def test_records_without_categories_are_a_sentence(tmp_path):
    dicts = [{"file_name": f"{i}.jpg", "sem_seg_file_name": f"{i}.png"} for i in range(3)]
    with pytest.raises(ValueError, match="data set of label maps. Set the key to TrainingSampler"):
        build_train_loader(toy_config(tmp_path, *REPEAT), ToyMapper(True), dicts)
