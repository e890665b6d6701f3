"""Dataset mappers: upstream's samples, made in fewer steps and packed."""

import logging
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances, polygons_to_bitmask
from PIL import Image
from pycocotools import mask as coco
from support.mapping import mapper_config
from support.odd_images import make_pipe, odd_files

from rankseg_d2.data.formats.label_images import read_label_map
from rankseg_d2.data.formats.polygons import draw_polygons
from rankseg_d2.data.mappers import (
    MAPPERS,
    MapperKind,
    TestMapper,
    TrainMapper,
    build_mapper,
    recipes,
)
from rankseg_d2.data.mappers.augmentations import PAD_VALUE, ColorAugSSD
from rankseg_d2.data.mappers.packed_masks import BitPackedMasks, IdMapMasks
from rankseg_d2.engine import build_test_loader, build_train_loader
from rankseg_d2.modeling.clips import clip_targets, image_targets
from rankseg_d2.modeling.oracle import present_labels

NAME = "mappers_test"
CLASSES, IGNORE = 12, 255
# those of records without persons
IMAGE_MAPPERS = [name for name in MAPPERS if not name.startswith(("video", "parsing"))]


@pytest.fixture
def metadata():
    metadata = MetadataCatalog.get(NAME)
    metadata.set(stuff_classes=[str(i) for i in range(CLASSES)], ignore_label=IGNORE)
    yield metadata
    MetadataCatalog.remove(NAME)


def config(mapper, *opts):
    """A config for small images; `opts` are keys and values."""
    small = {
        "INPUT.IMAGE_SIZE": 160,
        "INPUT.MIN_SIZE_TRAIN": (100, 150, 200),
        "INPUT.MIN_SIZE_TEST": 100,
    }
    return mapper_config(NAME, mapper, small, opts)


CROP = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [90, 80])


def make_record(folder, seed=0, ignore=IGNORE, classes=CLASSES, segments=14):
    """An image of strips and blocks with all kinds of labels; segment 0 is a crowd."""
    generator = np.random.RandomState(seed)
    h, w = generator.randint(100, 160, 2).tolist()
    ids = generator.randint(0, segments + 1, (h // 12 + 1, w // 12 + 1))  # the last is void
    ids = ids.repeat(12, 0).repeat(12, 1)[:h, :w]
    image = generator.randint(0, 256, (h, w, 3)).astype(np.uint8)
    category = np.append(generator.randint(0, classes, segments), ignore)
    color = np.append((np.arange(segments) + 1 + seed) * 1234577 % 2**24, 0)  # all different
    pixels = color[ids]
    label_type = np.uint8 if ignore < 256 else np.uint16
    files = {key: str(folder / f"{seed}_{key}.png") for key in ("image", "sem", "pan")}
    Image.fromarray(image).save(files["image"])
    Image.fromarray(category[ids].astype(label_type)).save(files["sem"])
    rgb = np.stack([pixels % 256, pixels // 256 % 256, pixels // 65536], -1)
    Image.fromarray(rgb.astype(np.uint8)).save(files["pan"])
    infos = [
        {"id": int(color[i]), "category_id": int(category[i]), "iscrowd": int(i == 0)}
        for i in range(segments)
    ]
    return {
        "file_name": files["image"], "height": h, "width": w, "image_id": seed,
        "sem_seg_file_name": files["sem"],
        "pan_seg_file_name": files["pan"], "segments_info": infos,
    }  # fmt: skip


def pixels(path):
    return np.asarray(Image.open(path))


def seeded(function, *args, seed):
    np.random.seed(seed)
    random.seed(seed)
    return function(*args)


def plain(record, augmentations):
    """The simple way: image, float labels and RGB segments by detectron2's transforms in turn."""
    labels = pixels(record["sem_seg_file_name"]).astype(float)
    aug_input = T.AugInput(pixels(record["file_name"]), sem_seg=labels)
    transforms = T.AugmentationList(augmentations)(aug_input)
    rgb = transforms.apply_segmentation(pixels(record["pan_seg_file_name"])).astype(int)
    return aug_input.image, aug_input.sem_seg.astype(int), rgb @ [1, 256, 65536]


def padded(array, size, value):
    result = np.full((*size, *array.shape[2:]), value, array.dtype)
    result[: len(array), : array.shape[1]] = array
    return result


def assert_sample(sample, image, classes, masks):
    assert sample["image"].dtype == torch.uint8 and sample["image"].is_contiguous()
    np.testing.assert_array_equal(sample["image"].numpy(), image.transpose(2, 0, 1))
    instances = sample["instances"]
    assert instances.image_size == image.shape[:2]
    assert instances.gt_classes.dtype == torch.int64
    assert instances.gt_classes.tolist() == list(classes)
    np.testing.assert_array_equal(instances.gt_masks.tensor.numpy(), masks)


# Training samples beside the simple way


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize(("ignore", "classes"), [(255, 12), (65535, 1284)])
@pytest.mark.parametrize("max_area", [1.0, 0.3])
def test_semantic_samples(tmp_path, metadata, image_format, ignore, classes, max_area):
    MetadataCatalog.remove(NAME)
    MetadataCatalog.get(NAME).set(
        stuff_classes=[str(i) for i in range(classes)], ignore_label=ignore
    )
    cfg = config("mask_former_semantic", *CROP, "INPUT.COLOR_AUG_SSD", True)
    cfg.INPUT.FORMAT = image_format
    cfg.INPUT.SIZE_DIVISIBILITY = 96
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = max_area
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = ignore
    mapper = build_mapper(cfg, True)
    augmentations = [
        T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, "choice"),
        T.RandomCrop_CategoryAreaConstraint("absolute", (90, 80), max_area, ignore),
        ColorAugSSD(),
        T.RandomFlip(),
    ]
    for seed in range(8):
        record = make_record(tmp_path, seed, ignore, classes)
        image, labels, _ = seeded(plain, record, augmentations, seed=seed)
        image, labels = padded(image, (96, 96), 128), padded(labels, (96, 96), ignore)
        image = image if image_format == "RGB" else image[..., ::-1]
        present = [value for value in np.unique(labels) if value != ignore]
        sample = seeded(mapper, record, seed=seed)
        assert_sample(sample, image, present, labels == np.reshape(present, (-1, 1, 1)))
        np.testing.assert_array_equal(sample["sem_seg"].numpy(), labels)
        assert sample["sem_seg"].dtype == (torch.uint8 if ignore == 255 else torch.int32)
        assert set(sample) == set(record) - {"sem_seg_file_name", "pan_seg_file_name"} | {
            "image", "sem_seg", "instances"}  # fmt: skip


PANOPTIC = {
    "mask_former_panoptic": lambda: [
        T.ResizeShortestEdge((100, 150, 200), 1333, "choice"),
        T.RandomCrop("absolute", (90, 80)),
        T.RandomFlip(),
    ],
    "coco_panoptic_lsj": lambda: [
        T.RandomFlip(),
        T.ResizeScale(0.1, 2.0, 160, 160),
        T.FixedSizeCrop((160, 160)),
    ],
    "detr_panoptic": lambda: [
        T.RandomFlip(),
        *(
            []
            if np.random.rand() > 0.5
            else [T.ResizeShortestEdge([400, 500, 600], 9999, "choice")]
            + [T.RandomCrop("absolute", (90, 80))]
        ),
        T.ResizeShortestEdge((100, 150, 200), 1333, "choice"),
    ],
}


@pytest.mark.parametrize("keep_empty", [False, True])
@pytest.mark.parametrize("name", PANOPTIC)
def test_panoptic_samples(tmp_path, metadata, name, keep_empty):
    mapper = build_mapper(config(name, *CROP, "INPUT.KEEP_EMPTY", keep_empty), True)
    for seed in range(8):
        record = make_record(tmp_path, seed)
        image, labels, ids = seeded(lambda r: plain(r, PANOPTIC[name]()), record, seed=seed)
        objects = [info for info in record["segments_info"] if not info["iscrowd"]]
        masks = np.stack([ids == info["id"] for info in objects])
        keep = masks.any((1, 2)) | keep_empty
        classes = np.array([info["category_id"] for info in objects])[keep]
        sample = seeded(mapper, record, seed=seed)
        assert_sample(sample, image, classes, masks[keep])
        assert isinstance(sample["instances"].gt_masks, IdMapMasks)
        assert ("sem_seg" in sample) == (name == "mask_former_panoptic")
        if "sem_seg" in sample:
            np.testing.assert_array_equal(sample["sem_seg"].numpy(), labels)


def test_more_than_255_segments_are_told_apart(tmp_path, metadata):
    record = make_record(tmp_path, seed=2)
    ids = np.arange(record["height"] * record["width"]).reshape(record["height"], -1) // 40 + 1
    rgb = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
    Image.fromarray(rgb).save(record["pan_seg_file_name"])
    record["segments_info"] = [
        {"id": i, "category_id": i % CLASSES, "iscrowd": 0} for i in range(1, ids.max() + 1)
    ]
    _, _, expected = seeded(plain, record, PANOPTIC["coco_panoptic_lsj"](), seed=1)
    sample = seeded(build_mapper(config("coco_panoptic_lsj"), True), record, seed=1)
    present = [i for i in np.unique(expected) if 0 < i <= ids.max()]
    assert len(present) > 255
    masks = sample["instances"].gt_masks.tensor.numpy()
    np.testing.assert_array_equal(masks, expected == np.reshape(present, (-1, 1, 1)))


def star(generator, h, w):
    """A polygon x0 y0 x1 y1 ... inside the image, often at its border."""
    angles = np.sort(generator.rand(generator.randint(3, 9))) * 2 * np.pi
    radius = generator.uniform(5, 50, len(angles))
    center = generator.rand(2) * (w, h)
    corners = center + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return corners.clip(0, (w, h)).ravel().tolist()


def make_annotations(record, count, kind, seed=0):
    """Objects of one or two stars; the first is a crowd."""
    generator = np.random.RandomState(seed)
    h, w = record["height"], record["width"]
    shapes = [[star(generator, h, w) for _ in range(1 + i % 2)] for i in range(count)]
    convert = {
        "polygon": lambda shape: shape,
        "rle": lambda shape: coco.merge(coco.frPyObjects(shape, h, w)),
        "array": lambda shape: polygons_to_bitmask(shape, h, w),
    }
    kinds = ["polygon", "rle", "array"] if kind == "mixed" else [kind]
    return [
        {
            "segmentation": convert[kinds[i % len(kinds)]](shape),
            "category_id": i % CLASSES,
            "iscrowd": int(i == 0),
        }
        for i, shape in enumerate(shapes)
    ]


def moved_mask(shape, transforms, record, kind):
    """What detectron2 makes of an annotation: polygons are drawn anew, other masks resized.

    A crop comes after the drawing, which needs no shapely.
    """
    h, w = record["height"], record["width"]
    if kind == "polygon":
        place = next(i for i, t in enumerate(transforms.transforms) if "Resize" in str(type(t)))
        resize = transforms.transforms[place]
        corners = [np.array(polygon).reshape(-1, 2) for polygon in shape]
        for transform in transforms.transforms[: place + 1]:
            corners = [transform.apply_coords(points) for points in corners]
        mask = polygons_to_bitmask([c.ravel() for c in corners], resize.new_h, resize.new_w)
        for transform in transforms.transforms[place + 1 :]:
            mask = transform.apply_segmentation(mask)
        return mask.astype(bool)
    if isinstance(shape, list):
        shape = coco.merge(coco.frPyObjects(shape, h, w))
    mask = coco.decode(shape) if isinstance(shape, dict) else shape.astype(np.uint8)
    return transforms.apply_segmentation(mask).astype(bool)


INSTANCE = {
    "mask_former_instance": lambda: [
        T.ResizeShortestEdge((100, 150, 200), 1333, "choice"),
        T.RandomCrop("absolute", (90, 80)),
    ],
    "coco_instance_lsj": lambda: [
        T.RandomFlip(),
        T.ResizeScale(0.1, 2.0, 160, 160),
        T.FixedSizeCrop((160, 160), seg_pad_value=0),
    ],
}


@pytest.mark.parametrize("count", [1, 5, 20])
@pytest.mark.parametrize("kind", ["polygon", "rle", "mixed"])
@pytest.mark.parametrize("name", INSTANCE)
def test_instance_samples(tmp_path, metadata, name, kind, count):
    opts = ("INPUT.RANDOM_FLIP", "none") if name == "mask_former_instance" else ()
    mapper = build_mapper(config(name, *CROP, *opts), True)
    for seed in range(5):
        record = make_record(tmp_path, seed)
        record["annotations"] = make_annotations(record, count, kind, seed)
        aug_input = T.AugInput(pixels(record["file_name"]))
        augmentations = T.AugmentationList(INSTANCE[name]())
        transforms = seeded(augmentations, aug_input, seed=seed)
        size = aug_input.image.shape[:2]
        objects = [entry for entry in record["annotations"] if not entry["iscrowd"]]
        masks = [moved_mask(x["segmentation"], transforms, record, kind) for x in objects]
        masks = np.stack(masks) if masks else np.zeros((0, *size), bool)
        keep = masks.any((1, 2))
        classes = np.array([entry["category_id"] for entry in objects], int)[keep]
        sample = seeded(mapper, record, seed=seed)
        assert_sample(sample, aug_input.image, classes, masks[keep])
        assert "annotations" not in sample


def test_objects_that_overlap_take_a_bit_per_pixel(tmp_path, metadata):
    record = make_record(tmp_path)
    record["annotations"] = make_annotations(record, 13, "polygon")
    masks = build_mapper(config("coco_instance_lsj"), True)(record)["instances"].gt_masks
    assert isinstance(masks, BitPackedMasks) and len(masks.packed) == 2
    record["annotations"] = [
        {"segmentation": [[x, 5, x + 8, 5, x + 8, 90, x, 90]], "category_id": 1}
        for x in range(0, 90, 9)
    ]
    masks = build_mapper(config("coco_instance_lsj"), True)(record)["instances"].gt_masks
    assert isinstance(masks, IdMapMasks)


def test_any_transform_of_detectron2_will_do(tmp_path, metadata):
    augmentations = [T.Resize((90, 120)), T.RandomFlip(1.0)]
    record = make_record(tmp_path)
    record["annotations"] = make_annotations(record, 20, "rle")
    sample = TrainMapper("instance", augmentations, "RGB", metadata)(record)
    resize = T.ResizeTransform(record["height"], record["width"], 90, 120)
    transforms = T.TransformList([resize, T.HFlipTransform(120)])
    masks = [moved_mask(x["segmentation"], transforms, record, "rle")
             for x in record["annotations"][1:]]  # fmt: skip
    np.testing.assert_array_equal(sample["instances"].gt_masks.tensor.numpy(), np.stack(masks))
    sample = TrainMapper("panoptic", augmentations, "RGB", metadata)(record)
    assert len(sample["instances"]) == 13


def test_polygons_in_a_window_are_those_of_the_large_canvas():
    generator = np.random.RandomState(0)
    for _ in range(200):
        polygons = [np.reshape(star(generator, 90, 110), (-1, 2)) for _ in range(2)]
        whole = polygons_to_bitmask([p.ravel() for p in polygons], 90, 110)
        y, x = generator.randint(0, 60, 2).tolist()
        top, left, part = draw_polygons([p - (x, y) for p in polygons], (30, 40))
        mask = np.zeros((30, 40), bool)
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        np.testing.assert_array_equal(mask, whole[y : y + 30, x : x + 40])
    assert draw_polygons([], (30, 40))[2].size == 0


# Images


def test_images_stand_upright_by_their_exif_data(tmp_path, metadata):
    record = make_record(tmp_path)
    upright = Image.open(record["file_name"])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    turned = upright.transpose(Image.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = seeded(build_mapper(config("mask_former_semantic"), True), record, seed=0)
    record["file_name"] = str(tmp_path / "turned.png")
    sample = seeded(build_mapper(config("mask_former_semantic"), True), record, seed=0)
    assert torch.equal(sample["image"], expected["image"])


def test_left_and_right_change_places_in_a_flip(tmp_path, metadata):
    metadata.set(flip_pairs=((2, 3), (5, 1)))
    swap = np.arange(256)
    swap[[2, 3, 5, 1]] = 3, 2, 1, 5
    for name in ("mask_former_semantic", "mask_former_panoptic"):
        flips = 0
        for seed in range(6):
            record = make_record(tmp_path, seed)
            cfg = config(name, "INPUT.MIN_SIZE_TRAIN", (0,))
            sample = seeded(build_mapper(cfg, True), record, seed=seed)
            image, labels = pixels(record["file_name"]), pixels(record["sem_seg_file_name"])
            if not np.array_equal(sample["image"].numpy(), image.transpose(2, 0, 1)):
                flips += 1
                labels = swap[labels[:, ::-1]]
            np.testing.assert_array_equal(sample["sem_seg"].numpy(), labels)
            for label, mask in zip(
                sample["instances"].gt_classes, sample["instances"].gt_masks, strict=True
            ):
                assert (labels[mask.numpy()] == label.item()).all()
        assert 0 < flips < 6


def test_sides_become_multiples_of_the_divisibility(tmp_path, metadata):
    record = make_record(tmp_path)
    cfg = config("mask_former_semantic", "INPUT.SIZE_DIVISIBILITY", 64)
    sample = build_mapper(cfg, True)(record)
    h, w = sample["image"].shape[1:]
    assert h % 64 == w % 64 == 0 and max(h, w) >= 128
    assert sample["sem_seg"].shape == (h, w) == sample["instances"].gt_masks.image_size


# What the model makes of a sample


def test_models_see_the_same_targets_as_with_bit_masks(tmp_path, metadata):
    record = make_record(tmp_path)
    record["annotations"] = make_annotations(record, 9, "polygon")
    for name in IMAGE_MAPPERS:
        sample = pickle.loads(pickle.dumps(build_mapper(config(name, *CROP), True)(record)))
        packed = sample["instances"]
        full = Instances(packed.image_size, gt_classes=packed.gt_classes)
        full.gt_masks = BitMasks(packed.gt_masks.tensor)
        ours, expected = (
            image_targets(sample | {"instances": some}, (256, 256), CLASSES, torch.device("cpu"))
            for some in (packed, full)
        )
        assert ours["masks"].shape == (len(packed), 1, 256, 256) and len(packed) > 0
        assert torch.equal(ours["masks"], expected["masks"])
        assert torch.equal(ours["labels"], expected["labels"])
        for frame in (packed, full):
            frame.gt_ids = torch.arange(len(frame))
        clip = {"image": [sample["image"]] * 2}
        clips = [
            clip_targets(clip | {"instances": [some] * 2}, (256, 256), CLASSES, torch.device("cpu"))
            for some in (packed, full)
        ]
        assert torch.equal(clips[0]["masks"], clips[1]["masks"])


# Samples of the test


def test_test_samples_have_the_image_and_what_evaluators_read(tmp_path, metadata):
    record = make_record(tmp_path) | {"annotations": []}
    for name in IMAGE_MAPPERS:
        cfg = config(name)
        sample = build_mapper(cfg, False, NAME)(record)
        assert torch.equal(sample["image"], DatasetMapper(cfg, False)(dict(record))["image"])
        del sample["image"]
        assert sample == {key: record[key] for key in record if key != "annotations"}


def test_the_oracle_is_told_what_is_there_at_native_size(tmp_path, metadata):
    metadata.set(label_table=np.append(np.arange(CLASSES)[::-1], [IGNORE] * (256 - CLASSES)))
    labels = np.full((300, 400), 255, np.uint8)
    labels[0, 0], labels[5, 5:] = 6, 2  # class 6 is one pixel
    record = make_record(tmp_path)
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    record["annotations"] = make_annotations(record, 4, "polygon")
    things = sorted({x["category_id"] for x in record["segments_info"] if not x["iscrowd"]})
    expected = {
        "mask_former_semantic": [CLASSES - 1 - 6, CLASSES - 1 - 2],
        "mask_former_panoptic": things,
        "mask_former_instance": [1, 2, 3],
    }
    for name, classes in expected.items():
        cfg = config(name, "MODEL.RANKSEG.USE_GT", True)
        sample = build_mapper(cfg, False)(record)
        assert present_labels(sample).tolist() == classes
    cfg = config("mask_former_panoptic", "MODEL.RANKSEG.USE_GT", True)
    only_labels = {k: v for k, v in record.items() if "seg" not in k or k.startswith("sem_seg")}
    present = build_mapper(cfg, False)(only_labels)["present_classes"]
    assert present.tolist() == expected["mask_former_semantic"]


def test_samples_without_labels_are_named_by_the_oracle(tmp_path, metadata):
    record = {"file_name": make_record(tmp_path)["file_name"]}
    cfg = config("mask_former_semantic", "MODEL.RANKSEG.USE_GT", True)
    sample = build_mapper(cfg, False)(record)
    assert "present_classes" not in sample and sample["height"] > 0
    with pytest.raises(RuntimeError, match=r"0_image\.png has no labels\. MODEL\.RANKSEG\.USE_GT"):
        present_labels(sample)
    with pytest.raises(RuntimeError, match=r"the clip a\.jpg to c\.jpg has no labels"):
        present_labels({"file_names": ["a.jpg", "b.jpg", "c.jpg"]})


# Loaders


@pytest.fixture
def registered(tmp_path, metadata):
    records = [make_record(tmp_path, seed) for seed in range(4)]
    DatasetCatalog.register(NAME, lambda: records)
    yield records
    DatasetCatalog.remove(NAME)


def test_loaders_take_the_mapper_of_the_config(registered):
    cfg = config("mask_former_semantic", *CROP, "SOLVER.IMS_PER_BATCH", 2)
    first, second = (next(build_train_loader(cfg).batches(seed=3)) for _ in range(2))
    assert [len(batch) for batch in (first, second)] == [2, 2]
    for one, other in zip(first, second, strict=True):
        assert one["image"].shape == (3, 90, 80)
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["sem_seg"], other["sem_seg"])
    batches = list(build_test_loader(cfg, NAME))
    assert [batch[0]["file_name"] for batch in batches] == [x["file_name"] for x in registered]
    assert "sem_seg" not in batches[0][0]


def test_a_picture_of_16_bits_is_refused_not_cut_off(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 9), 3000, np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits per pixel .*, and save"):
        TestMapper([], "RGB", {})({"file_name": str(path)})


def test_an_image_that_is_too_large_for_pillow_is_named(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ValueError, match=r"the image .*huge\.png cannot be read: Image size"):
        TestMapper([], "RGB", {})({"file_name": str(path)})
    with pytest.raises(ValueError, match=r"the label image .*huge\.png cannot be read: Image siz"):
        read_label_map(str(path), {})


def test_files_that_cannot_be_read_end_the_training_or_are_left_out(registered, caplog):
    with open(registered[1]["file_name"], "r+b") as file:
        file.truncate(60)
    with open(registered[2]["pan_seg_file_name"], "r+b") as file:
        file.truncate(60)
    registered[3]["file_name"] = registered[3]["file_name"].replace("3_", "none_")
    mapper = build_mapper(config("coco_panoptic_lsj"), True)
    with pytest.raises(ValueError, match=r"the image .*1_image\.png cannot be read"):
        mapper(registered[1])
    with pytest.raises(ValueError, match=r"the panoptic image .*2_pan\.png cannot be read"):
        mapper(registered[2])
    with pytest.raises(FileNotFoundError, match=r"none_image\.png"):
        mapper(registered[3])
    cfg = config("coco_panoptic_lsj", "INPUT.CORRUPT", "skip", "SOLVER.IMS_PER_BATCH", 4)
    with caplog.at_level(logging.WARNING):
        batches = build_train_loader(cfg).batches(seed=1)
        read = {x["image_id"] for _ in range(4) for x in next(batches)}
    assert read == {0}
    logged = [text for text in caplog.messages if text.startswith("skipped")]
    assert len(logged) == 3 and any("2_pan.png" in line for line in logged)
    with pytest.raises(FileNotFoundError):  # an evaluation must not miss an image
        build_mapper(cfg, False)(registered[3])


# Errors


def test_a_size_that_differs_names_both_files(tmp_path, metadata):
    for key, name in (("sem_seg_file_name", "mask_former_semantic"),
                      ("pan_seg_file_name", "coco_panoptic_lsj")):  # fmt: skip
        record = make_record(tmp_path)
        h, w = record["height"], record["width"]
        Image.open(record[key]).resize((w, h + 3), Image.NEAREST).save(record[key])
        message = rf"image\.png is {w} x {h} .*, but its label image .*\.png is {w} x {h + 3}"
        with pytest.raises(ValueError, match=message):
            build_mapper(config(name), True)(record)
    record = make_record(tmp_path)
    record["annotations"] = make_annotations(record, 3, "rle")
    record["annotations"][1]["segmentation"] = coco.encode(np.zeros((9, 8), np.uint8, order="F"))
    with pytest.raises(ValueError, match=r"image\.png: the mask of .* has the size \[9, 8\]"):
        build_mapper(config("coco_instance_lsj"), True)(record)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mask_former_semantic", "sem_seg_file_name"),
        ("coco_panoptic_lsj", "pan_seg_file_name"),
        ("coco_panoptic_lsj", "segments_info"),
        ("coco_instance_lsj", "annotations"),
    ],
)
def test_a_record_without_the_labels_of_the_task_is_named(tmp_path, metadata, name, missing):
    record = make_record(tmp_path)
    record.pop(missing, None)
    with pytest.raises(ValueError, match=rf"0_image\.png has no {missing}.*DATASET_MAPPER_NAME"):
        build_mapper(config(name), True)(record)


def test_segments_of_another_png_are_named(tmp_path, metadata):
    record, other = make_record(tmp_path), make_record(tmp_path, 40)
    record["segments_info"] = other["segments_info"]
    with pytest.raises(ValueError, match=r"none of the segments_info of .*0_image.*0_pan\.png"):
        build_mapper(config("coco_panoptic_lsj"), True)(record)


def test_boxes_are_not_enough(tmp_path, metadata):
    record = make_record(tmp_path) | {"annotations": [{"bbox": [0, 0, 5, 5], "category_id": 1}]}
    with pytest.raises(ValueError, match=r"0_image\.png has no `segmentation`"):
        build_mapper(config("coco_instance_lsj"), True)(record)


@pytest.mark.parametrize(
    ("opts", "error", "message"),
    [
        (("INPUT.DATASET_MAPPER_NAME", "coco_panoptic_ljs"), KeyError, "coco_panoptic_lsj"),
        (("INPUT.CORRUPT", "ignore"), ValueError, "raise or skip; got 'ignore'"),
        (("INPUT.FORMAT", "L"), ValueError, "RGB or BGR; got 'L'"),
        (("INPUT.RANDOM_FLIP", "both"), ValueError, "flip_by_clip; got 'both'"),
        (
            ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 254),
            ValueError,
            f"IGNORE_VALUE is 254, but the data set {NAME} uses 255",
        ),
    ],
)
def test_wrong_keys_are_named(metadata, opts, error, message):
    with pytest.raises(error, match=message):
        build_mapper(config("mask_former_semantic", *opts), True)


def test_data_sets_with_other_labels_do_not_go_together(metadata):
    MetadataCatalog.get("mappers_other").set(label_table=[0, 1, 2], ignore_label=IGNORE)
    cfg = config("mask_former_semantic", "DATASETS.TRAIN", (NAME, "mappers_other"))
    try:
        with pytest.raises(ValueError, match=f"{NAME} and mappers_other .* in label_table"):
            build_mapper(cfg, True)
        assert build_mapper(cfg, True, "mappers_other").metadata.label_table == [0, 1, 2]
    finally:
        MetadataCatalog.remove("mappers_other")


# Padding, thin images, flip pairs, damaged files


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_large_scale_jitter_pads_labels_with_ignore_and_masks_with_nothing(
    tmp_path, metadata, monkeypatch, task
):
    kind = MapperKind(task, recipes.large_scale_jitter, reads_labels=True)
    monkeypatch.setitem(MAPPERS, "jitter_with_labels", kind)
    cfg = config("jitter_with_labels", "INPUT.MIN_SCALE", 0.2, "INPUT.MAX_SCALE", 0.3)
    sample = seeded(build_mapper(cfg, True), make_record(tmp_path), seed=0)
    image, labels = sample["image"], sample["sem_seg"]
    is_padding = (image == PAD_VALUE).all(0)
    is_padding[:60, :60] = False  # only the image itself
    assert is_padding.sum() > 1000 and (labels[is_padding] == IGNORE).all()
    assert not (labels[:20, :20] == IGNORE).all()
    masks = sample["instances"].gt_masks.tensor
    assert masks.any() and not masks[:, is_padding].any()


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (3, 2000), (1, 1)])
@pytest.mark.parametrize(
    "mapper", ["mask_former_semantic", "coco_panoptic_lsj", "detr_panoptic", "coco_instance_lsj"]
)
def test_thin_images_are_mapped(tmp_path, metadata, mapper, size):
    height, width = size
    record = {
        "file_name": str(tmp_path / "image.png"), "height": height, "width": width, "image_id": 1,
        "sem_seg_file_name": str(tmp_path / "sem.png"),
        "pan_seg_file_name": str(tmp_path / "pan.png"),
        "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}],
        "annotations": [
            {"category_id": 1, "segmentation": coco.encode(np.ones(size, np.uint8, order="F"))}
        ],
    }  # fmt: skip
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(record["file_name"])
    Image.fromarray(np.ones(size, np.uint8)).save(record["sem_seg_file_name"])
    Image.fromarray(np.full((*size, 3), (1, 0, 0), np.uint8)).save(record["pan_seg_file_name"])
    cfg = config(mapper, *CROP)
    for seed in range(3):
        sample = seeded(build_mapper(cfg, True), dict(record), seed=seed)
        assert min(sample["image"].shape) >= 1
    assert min(build_mapper(cfg, False)(dict(record))["image"].shape[1:]) >= 1


@pytest.mark.parametrize("pairs", [[(0, 1), (1, 2)], [(3, 3)], [(0, 1), (1, 0)]])
def test_flip_pairs_that_share_a_class_are_refused(metadata, pairs):
    metadata.flip_pairs = pairs
    with pytest.raises(ValueError, match="flip_pairs of .* have a class twice"):
        build_mapper(config("mask_former_semantic"), True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name", "pan_seg_file_name"])
@pytest.mark.parametrize("name", [*odd_files(np.zeros((9, 9, 3), np.uint8)), "pipe", "folder"])
def test_odd_files_are_errors_or_skipped(tmp_path, metadata, key, name):
    mapper = "mask_former_semantic" if key == "sem_seg_file_name" else "coco_panoptic_lsj"
    record = make_record(tmp_path)
    path = Path(record[key])
    path.unlink()
    if name == "pipe":
        make_pipe(path)
    elif name == "folder":
        path.mkdir()
    else:
        path.write_bytes(odd_files(np.zeros((9, 9, 3), np.uint8))[name])
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read"):
        build_mapper(config(mapper), True)(dict(record))
    assert build_mapper(config(mapper, "INPUT.CORRUPT", "skip"), True)(dict(record)) is None


@pytest.mark.parametrize(
    "shape",
    [
        [[1e9, 0, 0, 1e9, -1e9, -1e9]],
        [[3e7, 0, 0, 5, 9, 9]],
        [[float("nan")] * 6],
        {"size": [1, 1], "counts": "zz"},
        {"counts": 5},
        "text",
    ],
)
def test_a_damaged_mask_of_a_record_is_an_error_or_skipped(tmp_path, metadata, shape):
    record = make_record(tmp_path)
    record["annotations"] = make_annotations(record, 3, "polygon")
    record["annotations"][1] |= {"segmentation": shape, "id": 77}
    with pytest.raises(ValueError, match=r"image\.png: the mask of annotation 77 "):
        build_mapper(config("coco_instance_lsj"), True)(dict(record))
    skipping = build_mapper(config("coco_instance_lsj", "INPUT.CORRUPT", "skip"), True)
    assert skipping(dict(record)) is None
