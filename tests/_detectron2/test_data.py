"""Catalogs, loaders, mapper and data set readers of whichever engine answers."""

import itertools
import json
import logging
import pickle

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    DatasetMapper,
    MapDataset,
    Metadata,
    MetadataCatalog,
    ToIterableDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.build import print_instances_class_histogram
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.datasets import (
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
    register_coco_panoptic,
)
from detectron2.data.samplers import (
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.structures import BoxMode
from PIL import Image

import rankseg_d2

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="what only the embedded engine promises"
)
REFUSED = (AssertionError, ValueError, TypeError)


@pytest.fixture
def catalogs():
    """Forget what a test registers."""
    before = {id(c): set(c) for c in (DatasetCatalog, MetadataCatalog)}
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in set(catalog) - before[id(catalog)]:
            catalog.remove(name)


# Catalogs


@embedded_only
def test_no_data_set_is_registered_by_importing():
    from subprocess import run
    from sys import executable

    code = (
        "import rankseg_d2._detectron2.data as d, sys; "
        "assert not d.DatasetCatalog and not d.MetadataCatalog; "
        "assert not {'pycocotools', 'cv2', 'torchvision', 'matplotlib'} & set(sys.modules)"
    )
    run([executable, "-c", code], check=True)


def test_catalog_loads_what_is_registered(catalogs):
    DatasetCatalog.register("engine_a", lambda: [{"file_name": "x"}])
    assert "engine_a" in DatasetCatalog.list()
    assert DatasetCatalog.get("engine_a") == [{"file_name": "x"}]
    with pytest.raises(AssertionError, match="engine_a"):
        DatasetCatalog.register("engine_a", list)
    assert DatasetCatalog.pop("engine_a")() == [{"file_name": "x"}]
    assert "engine_a" not in DatasetCatalog
    with pytest.raises(REFUSED):
        DatasetCatalog.register("engine_b", [1, 2])


def test_an_unknown_data_set_is_a_key_error():
    with pytest.raises(KeyError, match="engine_zzz"):
        DatasetCatalog.get("engine_zzz")


@embedded_only
def test_an_unknown_data_set_names_its_neighbours(catalogs):
    DatasetCatalog.register("engine_sem_seg_train", list)
    with pytest.raises(KeyError, match="did you mean 'engine_sem_seg_train'.* are registered"):
        DatasetCatalog.get("engine_semseg_train")


def test_metadata_is_set_once(catalogs):
    meta = MetadataCatalog.get("engine_meta")
    assert meta is MetadataCatalog.get("engine_meta")
    assert meta.set(thing_classes=["a"], color=3) is meta
    meta.thing_classes = ["a"]
    with pytest.raises(AssertionError, match="thing_classes"):
        meta.thing_classes = ["b"]
    with pytest.raises(AttributeError, match="stuff_classes"):
        _ = meta.stuff_classes
    assert meta.get("stuff_classes", 7) == 7
    assert meta.as_dict() == {"name": "engine_meta", "thing_classes": ["a"], "color": 3}
    assert Metadata(color=3).name == "N/A"
    assert pickle.loads(pickle.dumps(meta)).as_dict() == meta.as_dict()


def test_metadata_takes_arrays(catalogs):
    MetadataCatalog.get("engine_array").colors = np.eye(3)
    assert MetadataCatalog.get("engine_array").colors.shape == (3, 3)


# Datasets


@pytest.mark.parametrize("serialize", [True, False])
def test_dataset_from_list_gives_copies(serialize):
    records = [{"i": i, "list": [i]} for i in range(5)]
    dataset = DatasetFromList(records, serialize=serialize)
    dataset[2]["list"].append(9)
    assert len(dataset) == 5
    assert [dataset[i] for i in range(5)] == records
    again = pickle.loads(pickle.dumps(dataset))
    assert [again[i] for i in range(5)] == records


def test_map_dataset_tries_another_element_where_the_mapper_gives_none():
    dataset = MapDataset(DatasetFromList(list(range(10))), lambda i: None if i < 5 else i)
    results = [dataset[i] for i in range(10)]
    assert results[5:] == [5, 6, 7, 8, 9]
    assert all(i >= 5 for i in results)


@embedded_only
def test_a_mapper_that_refuses_everything_is_an_error():
    with pytest.raises(RuntimeError, match="None for all 3 elements"):
        _ = MapDataset(DatasetFromList([1, 2, 3]), lambda i: None)[0]


def test_map_dataset_of_an_iterable_leaves_none_out():
    source = ToIterableDataset(DatasetFromList(list(range(6))), InferenceSampler(6))
    mapped = MapDataset(source, lambda i: i * 10 if i % 2 else None)
    assert list(mapped) == [10, 30, 50]


def test_aspect_ratio_groups_hold_one_orientation():
    records = [{"width": 2 - i % 2, "height": 1 + i % 2, "i": i} for i in range(10)]
    batches = [[r["i"] for r in batch] for batch in AspectRatioGroupedDataset(records, 2)]
    assert batches == [[0, 2], [1, 3], [4, 6], [5, 7]]


# Samplers


def test_training_sampler_passes_over_all_before_it_repeats():
    stream = list(itertools.islice(TrainingSampler(7, seed=1), 14))
    assert sorted(stream[:7]) == list(range(7))
    assert sorted(stream[7:]) == list(range(7))
    assert stream[:7] != stream[7:]
    assert list(itertools.islice(TrainingSampler(3, shuffle=False), 5)) == [0, 1, 2, 0, 1]


def test_repeat_factors_favour_rare_categories():
    records = [{"annotations": [{"category_id": 0}]} for _ in range(9)]
    records.append({"annotations": [{"category_id": 0}, {"category_id": 1}]})
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.4)
    torch.testing.assert_close(factors, torch.tensor([1.0] * 9 + [2.0]))
    stream = list(itertools.islice(RepeatFactorTrainingSampler(factors, seed=0), 110))
    assert stream.count(9) == 20


def test_inference_sampler_covers_all_once():
    assert list(InferenceSampler(5)) == [0, 1, 2, 3, 4]
    assert len(InferenceSampler(5)) == 5


def test_empty_samplers_are_refused():
    for make in (TrainingSampler, InferenceSampler):
        with pytest.raises(REFUSED):
            make(0)


# Loaders


def double(record):
    return None if record["i"] == 3 else {**record, "double": record["i"] * 2}


def records_of(n):
    return [{"i": i, "width": 2 + i % 3, "height": 3} for i in range(n)]


@pytest.mark.parametrize(
    ("context", "grouping"),
    [("fork", True), ("fork", False), pytest.param("spawn", False, marks=pytest.mark.slow)],
)
def test_workers_give_each_index_once(context, grouping):
    loader = build_detection_train_loader(
        records_of(12),
        mapper=double,
        sampler=TrainingSampler(12, shuffle=False),
        total_batch_size=2,
        aspect_ratio_grouping=grouping,
        num_workers=2,
        multiprocessing_context=context,
    )
    batches = list(itertools.islice(loader, 5))
    assert all(len(batch) == 2 for batch in batches)
    assert all(r["double"] == 2 * r["i"] for batch in batches for r in batch)
    if not grouping:
        chunks = [[r["i"] for r in batch] for batch in batches]
        assert chunks[:1] + chunks[2:] == [[0, 1], [4, 5], [6, 7], [8, 9]]
        assert chunks[1][0] == 2


class RandomNumber(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return np.random.rand()


def test_workers_draw_different_random_numbers_and_a_seed_fixes_them():
    def draw(seed):
        torch.manual_seed(seed)
        sampler = TrainingSampler(8, shuffle=False)
        loader = build_batch_data_loader(RandomNumber(), sampler, 2, num_workers=2)
        return list(itertools.islice(loader, 4))

    first = draw(5)
    assert len({x for batch in first for x in batch}) == 8
    assert draw(5) == first
    assert draw(6) != first


def test_train_loader_collates_and_groups():
    loader = build_detection_train_loader(
        records_of(9), mapper=double, total_batch_size=3, collate_fn=len
    )
    assert list(itertools.islice(loader, 4)) == [3, 3, 3, 3]


def test_test_loader_gives_all_in_order():
    loader = build_detection_test_loader(records_of(8), mapper=lambda r: r["i"], batch_size=3)
    assert list(loader) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert len(loader) == 3


def test_batch_size_must_fit_the_processes():
    with pytest.raises(REFUSED):
        build_detection_train_loader(records_of(3), mapper=None, total_batch_size=0)


def test_further_keywords_go_to_the_data_loader():
    sampler = TrainingSampler(1)
    loader = build_batch_data_loader(
        DatasetFromList([1]), sampler, 4, num_workers=1, prefetch_factor=3, drop_last=False
    )
    assert (loader.prefetch_factor, loader.drop_last, loader.batch_size) == (3, False, 4)
    assert build_batch_data_loader(DatasetFromList([1]), sampler, 4).drop_last


# Data sets by name


def instance_record(*crowds, category=0):
    annotations = [
        {"iscrowd": c, "category_id": category, "bbox": [0, 0, 2.5, 3], "bbox_mode": BoxMode(0)}
        for c in crowds
    ]
    return {"file_name": "x", "width": 4, "height": 4, "annotations": annotations}


def test_dataset_dicts_leave_out_images_with_crowds_only(catalogs):
    records = [instance_record(0, 1), instance_record(1), instance_record(), instance_record(0)]
    DatasetCatalog.register("engine_inst", lambda: records)
    DatasetCatalog.register("engine_sem", lambda: [{"sem_seg_file_name": "y"}])
    assert get_detection_dataset_dicts("engine_inst") == [records[0], records[3]]
    assert len(get_detection_dataset_dicts(["engine_inst"] * 2, filter_empty=False)) == 8
    assert get_detection_dataset_dicts(["engine_sem"]) == [{"sem_seg_file_name": "y"}]


def test_data_sets_of_other_classes_do_not_mix(catalogs):
    for name, classes in (("engine_1", ["a", "b"]), ("engine_2", ["a", "c"])):
        DatasetCatalog.register(name, lambda: [instance_record(0)])
        MetadataCatalog.get(name).thing_classes = classes
    with pytest.raises(ValueError, match="thing_classes"):
        get_detection_dataset_dicts(["engine_1", "engine_2"])
    both = get_detection_dataset_dicts(["engine_1", "engine_2"], check_consistency=False)
    assert len(both) == 2


def test_histogram_counts_without_crowds(caplog):
    with caplog.at_level(logging.INFO):
        print_instances_class_histogram([instance_record(0, 0, 1), instance_record(0)], ["cat"])
    assert "cat" in caplog.text
    assert "3" in caplog.text
    with pytest.raises(REFUSED, match="category_id=4"):
        print_instances_class_histogram([instance_record(0, category=4)], ["cat"])


def test_nothing_to_train_on_is_an_error(catalogs):
    DatasetCatalog.register("engine_empty", list)
    DatasetCatalog.register("engine_crowds", lambda: [instance_record(1)])
    for names in ([], "engine_empty", "engine_crowds"):
        with pytest.raises(REFUSED):
            get_detection_dataset_dicts(names)


def test_cfg_builds_both_loaders(catalogs, tmp_path):
    path = write_image(tmp_path / "a.png")
    records = [instance_record(0) | {"file_name": path, "width": 20, "height": 10}] * 3
    DatasetCatalog.register("engine_cfg", lambda: records)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("engine_cfg",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.MIN_SIZE_TRAIN = (5,)
    cfg.INPUT.MIN_SIZE_TEST = 7
    batch = next(iter(build_detection_train_loader(cfg)))
    assert [r["image"].shape for r in batch] == [(3, 5, 10)] * 2
    assert len(batch[0]["instances"]) == 1
    (first, *_) = next(iter(build_detection_test_loader(cfg, "engine_cfg")))
    assert first["image"].shape == (3, 7, 14)
    cfg.DATALOADER.SAMPLER_TRAIN = "Sampler"
    with pytest.raises(ValueError, match="Sampler"):
        build_detection_train_loader(cfg)


# Images and annotations


def write_image(path, size=(10, 20), **options):
    image = np.random.RandomState(0).randint(0, 255, (*size, 3)).astype(np.uint8)
    Image.fromarray(image).save(path, **options)
    return str(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_by_exif(tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_image(tmp_path / "turned.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert expected.shape[:2] == ((20, 10) if orientation > 4 else (10, 20))
    np.testing.assert_array_equal(utils.read_image(path, "RGB"), expected)
    np.testing.assert_array_equal(utils.read_image(path, "BGR"), expected[:, :, ::-1])


@embedded_only
@pytest.mark.parametrize("content", [b"no image", None])
def test_a_broken_image_file_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    write_image(path)
    path.write_bytes(content or path.read_bytes()[:300])
    with pytest.raises(OSError, match="broken.png is not a whole image"):
        utils.read_image(str(path), "RGB")


@embedded_only
def test_an_unknown_image_format_is_named(tmp_path):
    path = write_image(tmp_path / "image.png")
    assert utils.read_image(path, "L").shape == (10, 20, 1)
    with pytest.raises(ValueError, match="INPUT.FORMAT 'YUV-BT.601' is not 'BGR' or a Pillow mode"):
        utils.read_image(path, "YUV-BT.601")


def test_sixteen_bit_labels_keep_their_values(tmp_path):
    labels = np.array([[0, 300], [65535, 7]], np.uint16)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    np.testing.assert_array_equal(utils.read_image(str(tmp_path / "labels.png")), labels)


def test_wrong_image_size_is_an_error():
    record = {"file_name": "odd.png", "width": 5, "height": 4}
    utils.check_image_size(record, np.zeros((4, 5, 3)))
    with pytest.raises(utils.SizeMismatchError, match="odd.png"):
        utils.check_image_size(record, np.zeros((4, 6, 3)))
    fresh = {}
    utils.check_image_size(fresh, np.zeros((4, 6, 3)))
    assert fresh == {"width": 6, "height": 4}


def rle(mask):
    from pycocotools import mask as mask_util

    return mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_boxes_and_masks_become_instances():
    mask = np.zeros((10, 20))
    mask[2:6, 3:9] = 1
    box = {"bbox": [3, 2, 6, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 2}
    polygon = [[3.0, 2, 9, 2, 9, 6, 3, 6]]
    annos = [
        utils.transform_instance_annotations(anno, [T.HFlipTransform(20)], (10, 20))
        for anno in ({**box, "segmentation": rle(mask)}, {**box, "segmentation": polygon})
    ]
    instances = utils.annotations_to_instances(annos, (10, 20), "bitmask")
    assert instances.gt_boxes.tensor.tolist() == [[11, 2, 17, 6]] * 2
    assert instances.gt_classes.tolist() == [2, 2]
    expected = torch.from_numpy(mask[:, ::-1].copy()).bool()
    assert all(torch.equal(m, expected) for m in instances.gt_masks.tensor)
    polygons = utils.annotations_to_instances(annos[1:], (10, 20), "polygon")
    assert polygons.gt_masks.get_bounding_boxes().tensor.tolist() == [[11, 2, 17, 6]]
    with pytest.raises(ValueError, match="polygon"):
        utils.annotations_to_instances(annos, (10, 20), "polygon")
    assert len(utils.annotations_to_instances([], (10, 20))) == 0


def test_empty_instances_are_filtered():
    annos = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "segmentation": mask}
        for box, mask in (
            ([0, 0, 2, 2], np.ones((4, 5), np.uint8)),
            ([1, 1, 1, 2], np.ones((4, 5), np.uint8)),
            ([0, 0, 3, 3], np.zeros((4, 5), np.uint8)),
        )
    ]
    instances = utils.annotations_to_instances(annos, (4, 5), "bitmask")
    kept, which = utils.filter_empty_instances(instances, return_mask=True)
    assert which.tolist() == [True, False, False]
    assert len(kept) == 1
    assert len(utils.filter_empty_instances(instances, by_mask=False)) == 2


def test_mapper_makes_tensors_of_a_record(tmp_path):
    labels = np.arange(200).reshape(10, 20) % 7
    Image.fromarray(labels.astype(np.uint8)).save(tmp_path / "labels.png")
    record = instance_record(0, 1, 0) | {
        "file_name": write_image(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "width": 20,
        "height": 10,
    }
    before = pickle.dumps(record)
    mapper = DatasetMapper(True, augmentations=[T.RandomFlip(1.0)], image_format="RGB")
    out = pickle.loads(pickle.dumps(mapper))(record)
    assert pickle.dumps(record) == before
    assert out["image"].dtype == torch.uint8
    assert out["image"].shape == (3, 10, 20)
    assert out["sem_seg"].dtype == torch.int64
    np.testing.assert_array_equal(out["sem_seg"], labels[:, ::-1])
    assert out["instances"].gt_boxes.tensor.tolist() == [[17.5, 0, 20, 3]] * 2
    assert not {"annotations", "sem_seg_file_name"} & out.keys()
    test = DatasetMapper(False, augmentations=[], image_format="L")(record)
    assert test["image"].shape == (1, 10, 20)
    assert "instances" not in test


@embedded_only
def test_mapper_refuses_keypoints_and_proposals():
    for changes in ({"KEYPOINT_ON": True}, {"LOAD_PROPOSALS": True}):
        cfg = get_cfg()
        cfg.MODEL.update(changes)
        with pytest.raises(ValueError, match=next(iter(changes))):
            DatasetMapper(cfg, True)


# Data set files


@pytest.fixture
def coco_json(tmp_path):
    content = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 10, "width": 20},
            {"id": 3, "file_name": "a.jpg", "height": 10, "width": 20},
        ],
        "categories": [{"id": 5, "name": "five"}, {"id": 2, "name": "two"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "iscrowd": 0, "bbox": [0, 0, 2, 2],
             "segmentation": [[0, 0, 1, 1, 2, 2], [1, 2]], "extra": 1},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 2, 2],
             "segmentation": [[0, 0, 1]]},
            {"id": 3, "image_id": 3, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 1, 1],
             "segmentation": {"size": [10, 20], "counts": [3, 5, 192]}},
        ],
    }  # fmt: skip
    path = tmp_path / "instances.json"

    def write(**changes):
        path.write_text(json.dumps(content | changes))
        return str(path)

    return write


def test_coco_json_becomes_records(coco_json, catalogs):
    register_coco_instances("engine_coco", {"extra": 1}, coco_json(), "root")
    first, second = DatasetCatalog.get("engine_coco")
    assert (first["file_name"], second["file_name"]) == ("root/a.jpg", "root/b.jpg")
    assert (first["image_id"], first["height"], first["width"]) == (3, 10, 20)
    (annotation,) = second["annotations"]  # the one without a valid polygon is left out
    assert annotation["segmentation"] == [[0, 0, 1, 1, 2, 2]]
    assert (annotation["category_id"], annotation["bbox_mode"]) == (1, BoxMode.XYWH_ABS)
    assert isinstance(first["annotations"][0]["segmentation"]["counts"], bytes)
    meta = MetadataCatalog.get("engine_coco")
    assert meta.thing_classes == ["two", "five"]
    assert meta.thing_dataset_id_to_contiguous_id == {2: 0, 5: 1}
    assert (meta.evaluator_type, meta.extra) == ("coco", 1)
    raw = load_coco_json(coco_json(), "root", extra_annotation_keys=["extra"])
    assert raw[1]["annotations"][0]["category_id"] == 5
    assert raw[1]["annotations"][0]["extra"] == 1


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ({"category_id": 9, "bbox": [0, 0, 1, 1]}, "category_id=9"),
        ({"category_id": 5, "bbox": []}, "empty 'bbox'"),
        ({"category_id": 5, "bbox": [0, 0, 1, 1], "ignore": 1}, "ignore"),
        ({"category_id": 5, "bbox": [0, 0, 1, 1], "id": 2}, "unique"),
    ],
)
def test_broken_coco_json_is_an_error(coco_json, catalogs, annotation, text):
    other = {"id": 2, "image_id": 3, "category_id": 5, "bbox": [0, 0, 1, 1]}
    path = coco_json(annotations=[{"id": 1, "image_id": 3, "iscrowd": 0} | annotation, other])
    with pytest.raises((*REFUSED, KeyError), match=text):
        load_coco_json(path, "root", "engine_broken")


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_images_and_label_maps_pair_up(tmp_path):
    images = touch(tmp_path / "images", "b.jpg", "a.jpg", "c.jpg", "notes.txt")
    labels = touch(tmp_path / "labels", "a.png", "b.png")
    assert load_sem_seg(labels, images) == [
        {"file_name": f"{images}/{s}.jpg", "sem_seg_file_name": f"{labels}/{s}.png"} for s in "ab"
    ]
    with pytest.raises((FileNotFoundError, AssertionError), match="labels"):
        load_sem_seg(labels, images, gt_ext="tif")


@pytest.fixture
def panoptic_roots(tmp_path):
    """(images, panoptic PNGs, json) of one image with a thing and a stuff segment."""
    segments = [{"id": 1, "category_id": 5, "iscrowd": 0}, {"id": 2, "category_id": 9}]
    content = [{"image_id": "7", "file_name": "b.png", "segments_info": segments}]
    (tmp_path / "panoptic.json").write_text(json.dumps({"annotations": content}))
    images = touch(tmp_path / "images", "a.jpg", "b.jpg")
    return images, touch(tmp_path / "panoptic", "b.png"), str(tmp_path / "panoptic.json")


IDS = {
    "thing_dataset_id_to_contiguous_id": {2: 0, 5: 1},
    "stuff_dataset_id_to_contiguous_id": {9: 2},
}


def test_panoptic_json_becomes_records(panoptic_roots, catalogs):
    images, panoptic, path = panoptic_roots
    register_coco_panoptic("engine_pan", IDS | {"extra": 1}, images, panoptic, path)
    (record,) = DatasetCatalog.get("engine_pan")
    assert record["file_name"] == f"{images}/b.jpg"
    assert record["pan_seg_file_name"] == f"{panoptic}/b.png"
    assert record["image_id"] == 7
    assert [(s["category_id"], s["isthing"]) for s in record["segments_info"]] == [
        (1, True),
        (2, False),
    ]
    meta = MetadataCatalog.get("engine_pan")
    assert (meta.label_divisor, meta.ignore_label, meta.extra) == (1000, 255, 1)
    assert meta.evaluator_type == "coco_panoptic_seg"


def test_panoptic_json_with_unknown_categories_or_files_is_an_error(panoptic_roots, catalogs):
    images, panoptic, path = panoptic_roots
    no_stuff = IDS | {"stuff_dataset_id_to_contiguous_id": {}}
    register_coco_panoptic("engine_pan1", no_stuff, images, panoptic, path)
    register_coco_panoptic("engine_pan2", IDS, "nowhere", panoptic, path)
    with pytest.raises(KeyError, match="9"):
        DatasetCatalog.get("engine_pan1")
    with pytest.raises((FileNotFoundError, AssertionError), match="nowhere"):
        DatasetCatalog.get("engine_pan2")
