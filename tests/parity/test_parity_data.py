"""Data: the embedded engine and real detectron2 give equal numbers for equal seeds."""

import contextlib
import copy
import itertools
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

ours_data = pytest.importorskip("rankseg_d2._detectron2.data")
real_data = pytest.importorskip("detectron2.data")
if ours_data is real_data:
    pytest.skip("detectron2 is the embedded engine here", allow_module_level=True)

from detectron2.config import get_cfg as real_cfg  # noqa: E402
from detectron2.data import build as real_build  # noqa: E402
from detectron2.data import datasets as real_datasets  # noqa: E402
from detectron2.data import detection_utils as real_utils  # noqa: E402
from detectron2.data import samplers as real_samplers  # noqa: E402
from detectron2.data import transforms as real_T  # noqa: E402
from detectron2.data.common import AspectRatioGroupedDataset as RealGrouped  # noqa: E402
from detectron2.data.datasets import coco_panoptic as real_panoptic  # noqa: E402
from detectron2.structures import BoxMode as RealBoxMode  # noqa: E402
from detectron2.utils import comm as real_comm  # noqa: E402

from rankseg_d2._detectron2.config import get_cfg as ours_cfg  # noqa: E402
from rankseg_d2._detectron2.data import build as ours_build  # noqa: E402
from rankseg_d2._detectron2.data import datasets as ours_datasets  # noqa: E402
from rankseg_d2._detectron2.data import detection_utils as ours_utils  # noqa: E402
from rankseg_d2._detectron2.data import samplers as ours_samplers  # noqa: E402
from rankseg_d2._detectron2.data import transforms as ours_T  # noqa: E402
from rankseg_d2._detectron2.data.common import (  # noqa: E402
    AspectRatioGroupedDataset as OursGrouped,
)
from rankseg_d2._detectron2.data.datasets import coco_panoptic as ours_panoptic  # noqa: E402
from rankseg_d2._detectron2.structures import BoxMode as OursBoxMode  # noqa: E402
from rankseg_d2._detectron2.utils import comm as ours_comm  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = [(60, 90), (90, 61), (37, 37), (5, 200), (128, 96), (1, 7)]
AUGMENTATIONS = {
    "shortest_range": lambda T: T.ResizeShortestEdge((20, 80), 100, "range"),
    "shortest_choice": lambda T: T.ResizeShortestEdge([16, 33, 80], 75, "choice"),
    "shortest_int": lambda T: T.ResizeShortestEdge(45),
    "shortest_zero": lambda T: T.ResizeShortestEdge([0, 0], 100),
    "shortest_bicubic": lambda T: T.ResizeShortestEdge(45, interp=Image.BICUBIC),
    "resize": lambda T: T.Resize((33, 44)),
    "resize_int": lambda T: T.Resize(20, Image.NEAREST),
    "scale": lambda T: T.ResizeScale(0.3, 2.0, 64, 128),
    "scale_tall": lambda T: T.ResizeScale(0.5, 1.9, 100, 64),
    "flip": lambda T: T.RandomFlip(),
    "vertical_flip": lambda T: T.RandomFlip(0.3, horizontal=False, vertical=True),
    "crop_relative": lambda T: T.RandomCrop("relative", (0.4, 0.6)),
    "crop_relative_range": lambda T: T.RandomCrop("relative_range", (0.4, 0.6)),
    "crop_absolute": lambda T: T.RandomCrop("absolute", (30, 200)),
    "crop_absolute_range": lambda T: T.RandomCrop("absolute_range", (30, 70)),
    "crop_category": lambda T: T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.4, 255),
    "crop_category_range": lambda T: T.RandomCrop_CategoryAreaConstraint(
        "relative_range", (0.2, 0.2), 0.5, 1
    ),
    "crop_category_off": lambda T: T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 1.0),
    "fixed": lambda T: T.FixedSizeCrop((64, 64)),
    "fixed_values": lambda T: T.FixedSizeCrop((50, 120), pad_value=7, seg_pad_value=254),
    "fixed_without_pad": lambda T: T.FixedSizeCrop((40, 120), pad=False),
    "contrast": lambda T: T.RandomContrast(0.5, 1.5),
    "brightness": lambda T: T.RandomBrightness(0.5, 1.5),
    "saturation": lambda T: T.RandomSaturation(0.5, 1.5),
    "apply": lambda T: T.RandomApply(T.ResizeShortestEdge((20, 80)), 0.6),
    "apply_transform": lambda T: T.RandomApply(T.VFlipTransform(0), 0.0),
    "list": lambda T: T.AugmentationList(
        [
            T.ResizeScale(0.1, 2.0, 96, 96),
            T.FixedSizeCrop((96, 96)),
            T.RandomFlip(),
            T.RandomApply(T.RandomContrast(0.5, 1.5), 0.5),
            T.RandomCrop("relative_range", (0.5, 0.5)),
        ]
    ),
    "color": lambda T: T.AugmentationList([T.ColorTransform(lambda image: 255 - image)]),
}


def scene(size, dtype=np.uint8, seed=0):
    """(image (H, W, 3), label map (H, W)) with blocks of labels, so that crops differ."""
    rng = np.random.RandomState(seed)
    image = (rng.rand(*size, 3) * 255).astype(dtype)
    coarse = rng.choice([0, 1, 2, 255], (size[0] // 10 + 1, size[1] // 10 + 1))
    labels = coarse.repeat(10, 0).repeat(10, 1)[: size[0], : size[1]].astype(np.uint8)
    return image, labels


def outcome(function):
    """What `function()` gives, or that it raises."""
    try:
        return function()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_draw_and_compute_the_same(name, dtype):
    for size, seed in itertools.product(SIZES, range(4)):
        image, labels = scene(size, dtype, seed)
        box = np.array([[1.5, 0.5, size[1] * 0.8, size[0] * 0.7]])
        coords = np.random.RandomState(seed).rand(11, 2) * size[::-1]
        polygon = [np.array([[1.0, 0], [size[1] - 1, 0], [size[1] - 1, size[0]], [0, size[0]]])]
        results = []
        for T in (real_T, ours_T):
            np.random.seed(seed)
            aug_input = T.AugInput(image.copy(), boxes=box.copy(), sem_seg=labels.copy())
            transforms = outcome(lambda T=T, a=aug_input: AUGMENTATIONS[name](T)(a))
            if isinstance(transforms, type):
                results.append([np.zeros(0)])
                continue
            arrays = [aug_input.image, aug_input.boxes, aug_input.sem_seg]
            arrays.append(transforms.apply_coords(coords.copy()))
            with contextlib.suppress(ModuleNotFoundError):  # crops of polygons need shapely
                arrays += transforms.apply_polygons(copy.deepcopy(polygon))
            with contextlib.suppress(NotImplementedError, AssertionError):
                arrays.append(transforms.inverse().apply_coords(coords.copy()))
            arrays.append(np.random.rand(3))  # the same amount of randomness was used
            results.append(arrays)
        real, ours = results
        assert len(real) == len(ours), (size, seed)
        for expected, actual in zip(real, ours, strict=True):
            assert expected.dtype == actual.dtype, (size, seed)
            np.testing.assert_array_equal(actual, expected, err_msg=str((size, seed)))


def test_augmentations_have_equal_representations():
    for name, make in AUGMENTATIONS.items():
        if name not in ("apply", "apply_transform", "list", "color"):
            assert str(make(ours_T)) == str(make(real_T)), name


@pytest.mark.parametrize("interp", [Image.NEAREST, Image.BILINEAR, Image.BICUBIC, Image.LANCZOS])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_resize_transform_equals_for_all_layouts(dtype, interp):
    for shape in [(31, 45), (31, 45, 1), (31, 45, 2), (31, 45, 3), (31, 45, 4)]:
        base = (np.random.RandomState(1).rand(*shape) * 255).astype(dtype)
        for array in (base, base[:, ::-1], base[::-1]):
            for target in [(31, 45), (62, 20), (17, 90), (5, 3)]:
                real, ours = (
                    outcome(lambda T=T, a=array, t=target: T.ResizeTransform(
                        31, 45, *t, interp).apply_image(a))
                    for T in (real_T, ours_T)
                )
                assert isinstance(real, type) == isinstance(ours, type)
                if not isinstance(real, type):
                    assert real.dtype == ours.dtype
                    np.testing.assert_array_equal(ours, real)


def test_resizing_integer_boxes_truncates_alike():
    box = np.array([[1, 2, 30, 27]])
    real, ours = (T.ResizeTransform(31, 45, 17, 20).apply_box(box) for T in (real_T, ours_T))
    assert real.dtype == ours.dtype
    np.testing.assert_array_equal(ours, real)


def test_output_shapes_round_alike():
    real, ours = (T.ResizeShortestEdge.get_output_shape for T in (real_T, ours_T))
    sizes = np.random.RandomState(0).randint(1, 1500, (100000, 4)).tolist()
    sizes += [[441, 1036, 443, 666], [1398, 1165, 684, 801]]  # just beside one half
    assert [ours(*size) for size in sizes] == [real(*size) for size in sizes]


def test_apply_augmentations_gives_the_same_pair():
    image, _ = scene((40, 50))
    results = []
    for T in (real_T, ours_T):
        np.random.seed(3)
        augs = [T.RandomFlip(), T.RandomCrop("absolute", (9, 9))]
        out, transforms = T.apply_transform_gens(augs, image)
        results.append((out, str(transforms)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_samplers_give_equal_streams_on_every_rank(size, world_size, monkeypatch):
    factors = torch.rand(size, generator=torch.Generator().manual_seed(0)) * 3
    makers = {
        "shuffled": lambda S: S.TrainingSampler(size, seed=5),
        "negative seed": lambda S: S.TrainingSampler(size, seed=-1),
        "ordered": lambda S: S.TrainingSampler(size, shuffle=False, seed=1),
        "repeat": lambda S: S.RepeatFactorTrainingSampler(factors + 0.2, seed=7),
        "ordered repeat": lambda S: S.RepeatFactorTrainingSampler(
            factors + 0.2, shuffle=False, seed=7
        ),
        "inference": lambda S: S.InferenceSampler(size),
    }
    for rank in range(world_size):
        for comm in (real_comm, ours_comm):
            monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
            monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
        for name, make in makers.items():
            real, ours = make(real_samplers), make(ours_samplers)
            if name == "inference":
                assert len(ours) == len(real)
            expected = list(itertools.islice(real, 4 * size))
            assert list(itertools.islice(ours, 4 * size)) == expected, (name, rank)


@pytest.mark.parametrize("sqrt", [True, False])
def test_repeat_factors_are_equal(sqrt):
    rng = np.random.RandomState(0)
    records = [
        {"annotations": [{"category_id": int(c)} for c in rng.zipf(1.6, rng.randint(0, 5)) % 9]}
        for _ in range(60)
    ]
    real, ours = (
        S.RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.4, sqrt)
        for S in (real_samplers, ours_samplers)
    )
    assert torch.equal(real, ours)


def test_substitutes_for_refused_elements_are_equal():
    refused = {1, 3, 4, 8}
    order = [0, 1, 3, 1, 4, 0, 2, 3, 8, 5, 4, 1, 8, 8, 3]
    real, ours = (
        data.MapDataset(
            data.DatasetFromList(list(range(12))), lambda i: None if i in refused else i
        )
        for data in (real_data, ours_data)
    )
    assert [ours[i] for i in order] == [real[i] for i in order]


def test_aspect_ratio_groups_are_equal():
    rng = np.random.RandomState(0)
    records = [
        {"i": i, "width": int(w), "height": int(h)}
        for i, (w, h) in enumerate(rng.randint(1, 4, (50, 2)))
    ]
    assert list(OursGrouped(records, 3)) == list(RealGrouped(records, 3))


@pytest.mark.parametrize("grouping", [True, False])
def test_train_loaders_give_equal_batches(grouping):
    records = [{"i": i, "width": i % 3, "height": 1} for i in range(11)]
    batches = []
    for data, samplers in ((real_data, real_samplers), (ours_data, ours_samplers)):
        loader = data.build_detection_train_loader(
            records,
            mapper=lambda record: None if record["i"] == 5 else record,
            sampler=samplers.TrainingSampler(11, seed=2),
            total_batch_size=4,
            aspect_ratio_grouping=grouping,
        )
        batches.append([[r["i"] for r in batch] for batch in itertools.islice(loader, 9)])
    assert batches[0] == batches[1]


def test_random_numbers_in_workers_are_equal():
    drawn = []
    for data, samplers in ((real_data, real_samplers), (ours_data, ours_samplers)):
        torch.manual_seed(11)
        loader = data.build_batch_data_loader(
            data.MapDataset(data.DatasetFromList(list(range(8))), lambda i: (i, np.random.rand())),
            samplers.TrainingSampler(8, seed=2),
            4,
            num_workers=2,
        )
        drawn.append(list(itertools.islice(loader, 5)))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("format", [None, "RGB", "BGR", "L", "F", "HSV"])
def test_images_are_read_equally(tmp_path, format):
    rng = np.random.RandomState(0)
    rgb = Image.fromarray(rng.randint(0, 255, (6, 9, 3)).astype(np.uint8))
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb.save(tmp_path / f"exif{orientation}.jpg", exif=exif)
    for mode in ("RGB", "L", "P", "RGBA", "1"):
        rgb.convert(mode).save(tmp_path / f"{mode}.png")
    Image.fromarray(rng.randint(0, 9, (6, 9)).astype(np.uint16)).save(tmp_path / "uint16.png")
    for path in sorted(tmp_path.iterdir()):
        real, ours = (utils.read_image(str(path), format) for utils in (real_utils, ours_utils))
        assert real.dtype == ours.dtype, path
        np.testing.assert_array_equal(ours, real)


def annotation(box_mode, **changes):
    return {
        "bbox": [3.5, 2, 20, 11],
        "bbox_mode": box_mode.XYWH_ABS,
        "category_id": 2,
        "iscrowd": 0,
        "segmentation": [[3.5, 2, 23.5, 2, 20.0, 13.0, 4.0, 12.0], [1, 1, 9, 1, 9, 9.5]],
    } | changes


def rle(size, seed=0):
    from pycocotools import mask as mask_util

    mask = np.random.RandomState(seed).rand(*size) > 0.6
    return mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_annotations_transform_and_collect_equally():
    size, out_size = (30, 40), (47, 55)
    cases = {
        "polygon": [{}, {"bbox": [-4, -4, 70, 80]}],
        "bitmask": [{}, {"segmentation": rle(size)}],
    }
    for mask_format, changes in cases.items():
        results = []
        for T, utils, BoxMode in (
            (real_T, real_utils, RealBoxMode),
            (ours_T, ours_utils, OursBoxMode),
        ):
            transforms = [T.HFlipTransform(40), T.ResizeTransform(*size, *out_size)]
            annos = [
                utils.transform_instance_annotations(annotation(BoxMode, **c), transforms, out_size)
                for c in changes
            ]
            instances = utils.annotations_to_instances(annos, out_size, mask_format)
            results.append((annos, instances, utils.filter_empty_instances(instances)))
        (real_annos, real, real_kept), (annos, ours, ours_kept) = results
        for expected, actual in zip(real_annos, annos, strict=True):
            assert expected["bbox_mode"] == actual["bbox_mode"]
            np.testing.assert_array_equal(actual["bbox"], expected["bbox"])
            for a, b in zip(actual["segmentation"], expected["segmentation"], strict=True):
                np.testing.assert_array_equal(a, b)
        assert_equal_instances(ours, real)
        assert_equal_instances(ours_kept, real_kept)


def assert_equal_instances(ours, real):
    assert ours.image_size == real.image_size
    assert set(ours.get_fields()) == set(real.get_fields())
    assert torch.equal(ours.gt_boxes.tensor, real.gt_boxes.tensor)
    assert torch.equal(ours.gt_classes, real.gt_classes)
    if not ours.has("gt_masks"):
        return
    if hasattr(real.gt_masks, "tensor"):
        assert torch.equal(ours.gt_masks.tensor, real.gt_masks.tensor)
    else:
        for a, b in zip(ours.gt_masks.polygons, real.gt_masks.polygons, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def mapper_record(tmp_path, BoxMode, masks):
    image, labels = scene((48, 70))
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "height": 48,
        "width": 70,
        "annotations": [
            annotation(BoxMode, **changes) | ({"segmentation": rle((48, 70))} if masks else {})
            for changes in ({}, {"category_id": 0, "bbox": [60, 40, 9, 7]}, {"iscrowd": 1})
        ],
    }


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("masks", [None, "polygon", "bitmask"])
def test_dataset_mappers_give_equal_outputs(tmp_path, is_train, crop, masks):
    if crop and is_train and masks == "polygon":
        pytest.importorskip("shapely")  # fvcore crops polygons with it
    for seed in range(4):
        outputs = []
        for get_cfg, data, BoxMode in (
            (real_cfg, real_data, RealBoxMode),
            (ours_cfg, ours_data, OursBoxMode),
        ):
            cfg = get_cfg()
            cfg.INPUT.MIN_SIZE_TRAIN = (40, 64)
            cfg.INPUT.MIN_SIZE_TEST = 50
            cfg.INPUT.CROP.ENABLED = crop
            cfg.INPUT.CROP.SIZE = [0.6, 0.5]
            cfg.MODEL.MASK_ON = masks is not None
            cfg.INPUT.MASK_FORMAT = masks or "polygon"
            np.random.seed(seed)
            mapper = data.DatasetMapper(cfg, is_train)
            outputs.append(mapper(mapper_record(tmp_path, BoxMode, masks == "bitmask")))
        real, ours = outputs
        assert set(real) == set(ours)
        assert torch.equal(real["image"], ours["image"])
        assert ours["sem_seg"].dtype == real["sem_seg"].dtype
        assert torch.equal(real["sem_seg"], ours["sem_seg"])
        if is_train:
            assert_equal_instances(ours["instances"], real["instances"])


def coco_json(path):
    content = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 4, "width": 5},
            {"id": 3, "file_name": "a.jpg", "height": 4, "width": 5},
        ],
        "categories": [{"id": 5, "name": "five"}, {"id": 2, "name": "two"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "iscrowd": 0, "bbox": [0, 0, 2, 2],
             "segmentation": [[0, 0, 1, 1, 2, 2], [1, 2]], "score": 0.5},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 2, 2],
             "segmentation": [[0, 0, 1]]},
            {"id": 3, "image_id": 3, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 1, 1],
             "segmentation": {"size": [4, 5], "counts": [3, 5, 12]}},
            {"id": 4, "image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1],
             "segmentation": {"size": [4, 5], "counts": "d01O"}},
            {"id": 6, "image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1], "segmentation": []},
            {"id": 8, "image_id": 99, "category_id": 2, "bbox": [0, 0, 1, 1]},
        ],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return str(path)


def test_coco_records_and_metadata_are_equal(tmp_path):
    path = coco_json(tmp_path / "coco.json")
    for name, extra in ((None, None), ("parity_coco", ["score"])):
        real, ours = (
            datasets.load_coco_json(path, "root", name, extra)
            for datasets in (real_datasets, ours_datasets)
        )
        assert ours == real
    with _unregistered("parity_ci"):
        for datasets in (real_datasets, ours_datasets):
            datasets.register_coco_instances("parity_ci", {"color": 3}, path, "root")
        ours, real = (data.DatasetCatalog.get("parity_ci") for data in (ours_data, real_data))
        assert ours == real
        _assert_equal_metadata("parity_ci")
    _assert_equal_metadata("parity_coco")


@contextlib.contextmanager
def _unregistered(*names):
    try:
        yield
    finally:
        for data, name in itertools.product((real_data, ours_data), names):
            data.DatasetCatalog.pop(name)
            data.MetadataCatalog.pop(name)


def _assert_equal_metadata(name):
    ours, real = (data.MetadataCatalog.get(name).as_dict() for data in (ours_data, real_data))
    assert ours == real


def test_label_map_records_are_equal(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, files in (
        (images, ["b.jpg", "a.jpg", "a-b.jpg", "aB.jpg", "c.txt", "d.png", "1.x.jpg"]),
        (labels, ["a.png", "b.png", "a-b.png", "aB.png", "1.x.png", "d.tif"]),
    ):
        folder.mkdir()
        for file in files:
            (folder / file).touch()
    roots = (str(labels), str(images))
    assert ours_datasets.load_sem_seg(*roots) == real_datasets.load_sem_seg(*roots)
    (labels / "zzz.png").touch()
    (labels / "a.png").unlink()
    assert ours_datasets.load_sem_seg(*roots) == real_datasets.load_sem_seg(*roots)
    (labels / "b.png").unlink()
    assert ours_datasets.load_sem_seg(*roots) == real_datasets.load_sem_seg(*roots)
    other = (*roots, "tif", "png")
    assert ours_datasets.load_sem_seg(*other) == real_datasets.load_sem_seg(*other)


def test_panoptic_records_and_metadata_are_equal(tmp_path):
    images, panoptic = tmp_path / "im", tmp_path / "pan"
    for folder, ext in ((images, "jpg"), (panoptic, "png")):
        folder.mkdir()
        for stem in "ab":
            (folder / f"{stem}.{ext}").touch()
    segments = [
        {"id": 1, "category_id": 5, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]},
        {"id": 2, "category_id": 9, "iscrowd": 1},
    ]
    annotations = [
        {"image_id": 7, "file_name": "b.png", "segments_info": segments},
        {"image_id": "3", "file_name": "a.png", "segments_info": []},
    ]
    panoptic_json = str(tmp_path / "panoptic.json")
    with open(panoptic_json, "w") as f:
        json.dump({"annotations": annotations}, f)
    ids = {
        "thing_dataset_id_to_contiguous_id": {2: 0, 5: 1},
        "stuff_dataset_id_to_contiguous_id": {9: 2},
        "thing_classes": ["two", "five"],
    }
    roots = (str(images), str(panoptic), panoptic_json)
    instances_json = coco_json(tmp_path / "coco.json")
    with _unregistered("parity_pan"):
        for datasets in (real_panoptic, ours_panoptic):
            datasets.register_coco_panoptic("parity_pan", dict(ids), *roots, instances_json)
        ours, real = (data.DatasetCatalog.get("parity_pan") for data in (ours_data, real_data))
        assert ours == real
        _assert_equal_metadata("parity_pan")


def test_dataset_dicts_and_cfg_loaders_are_equal():
    def records():
        def one(i, *crowds):
            annos = [
                {"iscrowd": c, "category_id": (i + k) % 2, "bbox": [0, 0, 1, 1]}
                for k, c in enumerate(crowds)
            ]
            return {"file_name": str(i), "width": i % 2, "height": 0, "annotations": annos}

        return [one(0, 0, 1), one(1, 1), one(2), one(3, 0), one(4, 0, 0), one(5, 0)]

    with _unregistered("parity_dicts"), warnings.catch_warnings():
        for data in (real_data, ours_data):
            data.DatasetCatalog.register("parity_dicts", records)
            data.MetadataCatalog.get("parity_dicts").thing_classes = ["a", "b"]
        for filter_empty in (True, False):
            real, ours = (
                build.get_detection_dataset_dicts(["parity_dicts"] * 2, filter_empty)
                for build in (real_build, ours_build)
            )
            assert ours == real
        for sampler, seed in itertools.product(
            ("TrainingSampler", "RepeatFactorTrainingSampler"), (-1, 4)
        ):
            batches = []
            for data, get_cfg in ((real_data, real_cfg), (ours_data, ours_cfg)):
                cfg = get_cfg()
                cfg.DATASETS.TRAIN = ("parity_dicts",)
                cfg.DATALOADER.NUM_WORKERS = 0
                cfg.DATALOADER.SAMPLER_TRAIN = sampler
                cfg.DATALOADER.REPEAT_THRESHOLD = 1.5
                cfg.SOLVER.IMS_PER_BATCH = 2
                cfg.SEED = seed
                loader = data.build_detection_train_loader(cfg, mapper=lambda record: record)
                test = data.build_detection_test_loader(cfg, "parity_dicts", mapper=lambda r: r)
                batches.append((list(itertools.islice(loader, 9)), list(test)))
            assert batches[0] == batches[1]
