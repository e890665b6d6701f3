"""Which categories the oracle reads, with samples of mappers that are not ours."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support.small import RANKSEG, make_config, make_model, picture

from rankseg_d2.modeling.oracle import label_metadata, present_labels

ORACLE = RANKSEG | {"MODEL.RANKSEG.USE_GT": True}


@pytest.fixture
def shifted(tmp_path):
    """A data set whose label files have class + 1, and 0 for ignored; the path of one file."""
    table = np.append(255, np.arange(4))
    MetadataCatalog.get("oracle_test").set(label_table=table, ignore_label=255)
    MetadataCatalog.get("oracle_plain").set(ignore_label=255)
    path = tmp_path / "labels.png"
    Image.fromarray(np.array([[0, 2], [4, 4]], np.uint8)).save(path)
    yield str(path)
    for name in ("oracle_test", "oracle_plain"):
        MetadataCatalog.remove(name)
        DatasetCatalog.pop(name, None)


def test_a_label_file_is_read_by_the_table_of_its_data_set(shifted):
    sample = {"sem_seg_file_name": shifted}
    metadata = MetadataCatalog.get("oracle_test")
    assert present_labels(sample, metadata).tolist() == [1, 3]
    assert present_labels(sample).tolist() == [0, 2, 4]


def test_a_label_map_in_the_sample_goes_before_the_file(shifted):
    sample = {"sem_seg_file_name": shifted, "sem_seg": torch.tensor([[7, 7], [9, 9]])}
    assert present_labels(sample).tolist() == [7, 9]
    assert present_labels(sample | {"present_classes": torch.tensor([5])}).tolist() == [5]


def test_a_model_reads_files_by_the_data_set_that_it_evaluates(shifted):
    model = make_model(ORACLE | {"DATASETS.TEST": ("oracle_test",)}).eval()
    sample = {"image": picture(), "height": 64, "width": 96, "sem_seg_file_name": shifted}
    ranking = model([sample])[0]["ranking"]
    present = ranking["scores"].nonzero().flatten().tolist()
    assert present == [1, 3]


def test_data_sets_that_read_files_differently_are_refused(shifted):
    names = {"DATASETS.TEST": ("oracle_test", "oracle_plain")}
    with pytest.raises(ValueError, match="oracle_test and oracle_plain read differently"):
        label_metadata(make_config(ORACLE | names))
    only_train = {"DATASETS.TEST": (), "DATASETS.TRAIN": ("oracle_test",)}
    assert label_metadata(make_config(ORACLE | only_train)).label_table[1] == 0
    assert label_metadata(make_config(ORACLE | {"DATASETS.TEST": ("never_registered",)})) is None
