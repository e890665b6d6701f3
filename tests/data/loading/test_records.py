"""Records by the names of data sets: those of images as detectron2's, those of videos as well."""

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from torch.utils.data import Dataset

from rankseg_d2.config import add_rankseg_config
from rankseg_d2.data.loading import records
from rankseg_d2.data.loading.records import load_records
from rankseg_d2.engine import build_train_loader


def note(category, iscrowd=0):
    return {"category_id": category, "iscrowd": iscrowd}


def image(*notes):
    return {"file_name": "a.jpg", "annotations": list(notes)}


def video(*frames):
    return {"file_names": ["a.jpg"] * len(frames), "annotations": [list(frame) for frame in frames]}


VIDEOS = [
    video([note(1)], [note(1), note(0)]),
    video([], []),
    video([note(0, iscrowd=1)], []),
    video([], [note(1, iscrowd=1), note(0)]),
]
IMAGES = [image(note(1)), image(), image(note(0, iscrowd=1)), image(note(0), note(1))]


class Numbers(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"file_name": str(index)}


@pytest.fixture
def register():
    names = []

    def add(name, content, **metadata):
        DatasetCatalog.register(name, lambda: content)
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("filter_empty", [True, False])
def test_records_of_images_are_those_of_detectron2(filter_empty, register):
    names = [register(name, IMAGES, thing_classes=["cat", "dog"]) for name in ("pets", "zoo")]
    expected = get_detection_dataset_dicts(names, filter_empty)
    assert load_records(names, filter_empty=filter_empty) == expected
    assert len(expected) == (4 if filter_empty else 8)


def test_videos_in_which_no_frame_has_an_object_are_left_out_if_asked(register):
    names = [register("pets", VIDEOS, thing_classes=["cat", "dog"])]
    assert load_records(names) == VIDEOS
    kept = load_records(names, filter_empty=True)
    assert len(kept) == 2 and kept[0] is VIDEOS[0] and kept[1] is VIDEOS[3]


def test_objects_of_videos_are_counted_over_all_frames(register, monkeypatch):
    counted = []
    monkeypatch.setattr(records, "print_instances_class_histogram", lambda *a: counted.append(a))
    load_records([register("pets", VIDEOS, thing_classes=["cat", "dog"])])
    (flat, names), = counted
    categories = [entry["category_id"] for record in flat for entry in record["annotations"]]
    assert sorted(categories) == [0, 0, 0, 1, 1, 1] and names == ["cat", "dog"]


def test_records_without_annotations_and_torch_data_sets_stay_as_they_are(register):
    videos = [{"file_names": ["a.jpg"], "sem_seg_file_names": ["a.png"]}]
    names = [register("roads", videos, stuff_classes=["road"])]
    assert load_records(names, filter_empty=True) == videos
    numbers = Numbers()
    assert load_records([register("numbers", numbers)]) is numbers


def test_a_data_set_in_which_nothing_is_annotated_says_so(register):
    names = [register("pets", VIDEOS[1:2], thing_classes=["cat", "dog"])]
    with pytest.raises(ValueError, match="pets has usable.*FILTER_EMPTY_ANNOTATIONS"):
        load_records(names, filter_empty=True)


def test_categories_beyond_the_list_of_names_are_an_error(register):
    names = [register("pets", VIDEOS, thing_classes=["cat"])]
    with pytest.raises((ValueError, AssertionError), match="1"):
        load_records(names)


def test_videos_of_rare_categories_can_be_repeated(register):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    rare = video([], [note(1)])
    videos = [video([note(0)])] * 9 + [rare]
    cfg.DATASETS.TRAIN = (register("pets", videos, thing_classes=["cat", "dog"]),)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.9
    cfg.SOLVER.IMS_PER_BATCH = 12  # nine videos, and the rare one sqrt(0.9 / 0.1) = 3 times
    loader = build_train_loader(cfg, mapper=lambda record: record)
    batch = next(loader.batches(seed=0))
    assert sum(record["annotations"] == rare["annotations"] for record in batch) == 3
