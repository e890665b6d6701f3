"""Every shipped yaml repeats nothing of its bases, builds its model, and equals upstream's."""

import json

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.registry import Registry
from support.configs import leaves
from support.paths import GOLDEN

import rankseg_d2.modeling  # noqa: F401  (registers the models)
from rankseg_d2._yaml import set_keys, settable_keys
from rankseg_d2.config import add_rankseg_config, get_config
from rankseg_d2.config_files import is_part, read_sources, shipped_configs_dir, shipped_names
from rankseg_d2.engine import check_datasets, check_num_classes

NAMES = shipped_names()
WHOLE = [name for name in NAMES if not is_part(name)]
FOLDER = shipped_configs_dir()
FILES = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")}
# The others are a file and an overlay, of which a sample is built.
BUILT = [name for name in WHOLE if name in FILES] + [n for n in WHOLE if n not in FILES][::6]
UPSTREAM = json.loads((GOLDEN / "upstream_configs.json").read_text())
# Upstream's file names of weights are those of converted files; ours are where these came from.
WEIGHTS = {
    "R-101": "resnet101-63fe2227",
    "DeepLab/R-103": "R-103",
    "ImageNetPretrained/torchvision/R-50": "R-50",
}
# What upstream's files leave over from their bases, where nothing uses it.
UNUSED = {
    "ade20k/panoptic/maskformer_": {"TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE"},
    "coco/panoptic/maskformer_swin": {"MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS"},
    "ytvis_": {"INPUT.CROP.TYPE", "INPUT.CROP.SIZE"},
}
VSPW = [f"vspw/semantic/{backbone}" for backbone in ("r50", "r101", "swin_b", "swin_l")]
# RankSeg's, by data set: the number of categories, and the multiple of the head's rate
RANKSEG = {
    "ade20k": (150, 0.1),
    "coco": (133, 0.1),
    "vspw": (124, 5.0),
    "ytvis_2019": (40, 1.0),
    "ytvis_2021": (40, 1.0),
}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_yaml_repeats_nothing_of_its_bases_or_of_the_defaults(name):
    cfg = get_cfg()
    add_rankseg_config(cfg)
    *bases, (_, keys), _ = read_sources(name, ())
    for path, inherited in bases:
        set_keys(settable_keys(cfg), inherited, path)
    before = {key: settable.default for key, settable in settable_keys(cfg).items()}
    for key, value in leaves(keys):
        # A device that is absent here has become the CPU.
        assert value != plain(before[key]) or key == "MODEL.DEVICE", f"{key} repeats {value!r}"


def test_no_file_is_written_where_an_overlay_serves():
    for path in FOLDER.rglob("*_rankseg*.yaml"):
        own = yaml.safe_load(path.read_text())
        assert own.keys() - {"_BASE_", "OUTPUT_DIR"}, f"{path} is what the suffix gives"


def test_each_name_is_a_config_and_says_whether_it_ranks():
    for name in NAMES:
        cfg = get_config(name, ["MODEL.DEVICE", "cpu"])
        if name in WHOLE:
            assert name.endswith("_gt") is cfg.MODEL.RANKSEG.USE_GT, name
            assert name.endswith(("_rankseg", "_rankseg_gt")) is cfg.MODEL.RANKSEG.FLAG, name


@pytest.mark.parametrize("name", BUILT)
def test_a_yaml_builds_its_model(name):
    cfg = get_config(name, ["MODEL.DEVICE", "cpu"])
    assert isinstance(META_ARCH_REGISTRY, Registry)
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        assert name.startswith("toy/"), name  # the example registers its own
        return
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    oracle = cfg.MODEL.RANKSEG.USE_GT
    assert name.endswith("_gt") is oracle
    assert hasattr(model, "ml_head") is name.endswith("_rankseg")
    assert (getattr(model, "ranker", None) is not None) is (oracle or cfg.MODEL.RANKSEG.FLAG)
    if hasattr(model, "criterion"):
        assert model.num_classes == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES


@pytest.mark.parametrize("row", UPSTREAM["rows"])
def test_hyper_parameters_are_those_that_upstream_publishes(row):
    cfg = get_config(row)
    ours = dict(leaves(cfg))
    unused = next((keys for rows, keys in UNUSED.items() if row.startswith(rows)), set())
    for key, value in published(row).items():
        if key == "MODEL.WEIGHTS":
            value, ours[key] = stem(value), stem(ours[key])
        if key == "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME":
            value = value.removeprefix("Video")  # one decoder serves images and clips
        if value == "SemanticSegmentor":
            value = "PixelClassifier"
        # Upstream's Swin configs have a ResNet's for their base.
        of_a_resnet = key.startswith("MODEL.RESNETS.") and "Swin" in cfg.MODEL.BACKBONE.NAME
        if key not in unused and not of_a_resnet:
            assert plain(ours[key]) == value, key


def published(row):
    """{key: value} of everything that upstream's yaml and its bases set."""
    number = list(UPSTREAM["rows"]).index(row)
    some = {
        key: value
        for key, values in UPSTREAM["some"].items()
        for value, numbers in values
        if number in numbers
    }
    return UPSTREAM["all"] | some


def stem(weights):
    name = weights.removeprefix("detectron2://").removesuffix(".pkl").removesuffix(".pth")
    return WEIGHTS.get(name, name.rpartition("/")[2])


@pytest.mark.parametrize("row", VSPW)
def test_vspw_is_trained_as_youtube_vis_is_but_for_its_size_and_task(row):
    other = dict(leaves(get_config(row.replace("vspw/semantic", "ytvis_2019/instance"))))
    changed = {key: value for key, value in leaves(get_config(row)) if value != other[key]}
    size = {"INPUT.MIN_SIZE_TEST": 480} if "swin" not in row else {}
    assert changed == size | {
        "DATASETS.TRAIN": ("vspw_train",),
        "DATASETS.TEST": ("vspw_val",),
        "INPUT.DATASET_MAPPER_NAME": "video_semantic",
        "INPUT.MIN_SIZE_TRAIN": (480,),
        "MODEL.MASK_FORMER.TEST.INSTANCE_ON": False,
        "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": True,
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 124,
        "TEST.VIDEO.OVERLAP": 0,
        "TEST.VIDEO.WINDOW": 20,
    }
    assert other["INPUT.MIN_SIZE_TEST"] == 480 or size


@pytest.mark.parametrize("row", [*UPSTREAM["rows"], *VSPW])
def test_every_published_row_has_a_rankseg_and_an_oracle_config(row):
    if "per_pixel" in row:
        return
    without = dict(leaves(get_config(row)))
    with_rankseg = dict(leaves(get_config(f"{row}_rankseg")))
    oracle = dict(leaves(get_config(f"{row}_rankseg_gt")))
    classes, head_rate = RANKSEG[row.partition("/")[0]]
    published = {
        "MODEL.RANKSEG.FLAG": True,
        "MODEL.RANKSEG.TOPK": classes,
        "MODEL.RANKSEG.LOSS_WEIGHT": 10,
        "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True,
        "SOLVER.MLHEAD_MULTIPLIER": head_rate,
    }
    assert {key: with_rankseg[key] for key in published} == published
    assert {key for key, value in with_rankseg.items() if without[key] != value} <= set(published)
    changed = {key for key, value in oracle.items() if with_rankseg[key] != value}
    # The oracle reads labels, which YouTube-VIS' val has not.
    other_data = {"DATASETS.TRAIN", "DATASETS.TEST"} if row.startswith("ytvis") else set()
    assert changed == {"MODEL.RANKSEG.USE_GT"} | other_data


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("vspw", "ytvis"))])
def test_video_configs_name_known_data_sets_with_as_many_classes(name):
    cfg = get_config(name)
    check_datasets(cfg)
    check_num_classes(cfg)
    assert cfg.DATASETS.TEST[0].endswith("_held_out") is (
        cfg.MODEL.RANKSEG.USE_GT and name.startswith("ytvis")
    )


SEGFORMER = [
    f"{data}/semantic/segformer_b{size}"
    for data in ("ade20k", "cityscapes", "coco_stuff")
    for size in range(6)
]


@pytest.mark.parametrize("row", SEGFORMER)
def test_segformer_is_trained_by_the_published_recipe(row):
    data, size = row.partition("/")[0], int(row[-1])
    is_cityscapes = data == "cityscapes"
    crop = 1024 if is_cityscapes else 640 if (data, size) == ("ade20k", 5) else 512
    published = {
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.BASE_LR": 6e-4,
        "SOLVER.BACKBONE_MULTIPLIER": 0.1,
        "SOLVER.WEIGHT_DECAY": 0.01,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0,
        "SOLVER.WARMUP_ITERS": 1500,
        "SOLVER.WARMUP_FACTOR": 1e-6,
        "SOLVER.POLY_LR_POWER": 1.0,
        "SOLVER.IMS_PER_BATCH": 8 if is_cityscapes else 16,
        "SOLVER.MAX_ITER": 80000 if data == "coco_stuff" else 160000,
        "SOLVER.CLIP_GRADIENTS.ENABLED": False,
        "INPUT.CROP.SIZE": [crop, crop],
        "INPUT.SIZE_DIVISIBILITY": crop,
        "INPUT.MIN_SIZE_TRAIN": [crop // 2, 2 * crop],
        "INPUT.MIN_SIZE_TEST": crop,
        "TEST.SLIDING_WINDOW.ENABLED": is_cityscapes,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256 if size < 2 else 768,
    }
    if is_cityscapes:
        windows = {"SIZE": [1024, 1024], "STRIDE": [768, 768]}
        published |= {f"TEST.SLIDING_WINDOW.{key}": value for key, value in windows.items()}
    found = dict(leaves(get_config(row)))
    assert {key: plain(found[key]) for key in published} == published
    assert f"/mit_b{size}_" in found["MODEL.WEIGHTS"]
    ranking = dict(leaves(get_config(f"{row}_rankseg")))
    kept = 15 if is_cityscapes else 50
    assert ranking["MODEL.RANKSEG.TOPK"] == kept
    assert ranking["MODEL.SEM_SEG_HEAD.USE_LAYERNORM"] is False


@pytest.mark.parametrize("size", "tsbl")
def test_semask_is_trained_as_the_swin_it_is_made_of(size):
    other = dict(leaves(get_config(f"ade20k/semantic/swin_{size}")))
    found = leaves(get_config(f"ade20k/semantic/semask_swin_{size}"))
    changed = {key: value for key, value in found if value != other[key]}
    window = {"MODEL.SEMASK.WINDOW_SIZE": 12} if size in "bl" else {}
    assert changed == {"MODEL.BACKBONE.NAME": "D2SeMaskSwinTransformer"} | window
    assert other["MODEL.SWIN.WINDOW_SIZE"] == window.get("MODEL.SEMASK.WINDOW_SIZE", 7)


@pytest.mark.parametrize(
    ("row", "crop", "rate", "decay", "drop_path", "iterations", "width"),
    [
        ("ade20k/semantic/vit_adapter_beit_l", 640, 2e-5, 0.9, 0.3, 160000, 1024),
        ("coco_stuff/semantic/vit_adapter_beit_b", 512, 3e-5, 0.95, 0.2, 40000, 256),
    ],
)
def test_vit_adapter_is_trained_by_the_published_recipe(
    row, crop, rate, decay, drop_path, iterations, width
):
    published = {
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.BASE_LR": rate,
        "SOLVER.LAYER_DECAY": decay,
        "SOLVER.BACKBONE_MULTIPLIER": 1.0,
        "SOLVER.WEIGHT_DECAY": 0.05,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0,
        "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
        "SOLVER.WARMUP_ITERS": 1500,
        "SOLVER.WARMUP_FACTOR": 1e-6,
        "SOLVER.POLY_LR_POWER": 1.0,
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.CLIP_GRADIENTS.ENABLED": False,
        "MODEL.BEIT.DROP_PATH_RATE": drop_path,
        "MODEL.BEIT.IMG_SIZE": [crop, crop],
        "MODEL.MASK_FORMER.HIDDEN_DIM": width,
        "MODEL.MASK_FORMER.NHEADS": width // 32,
        "MODEL.MASK_FORMER.DEC_LAYERS": 10,
        "INPUT.CROP.SIZE": [crop, crop],
        "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.75,
        "INPUT.MIN_SIZE_TRAIN": [crop // 2, 2 * crop],
        "INPUT.MAX_SIZE_TRAIN": 4096,
        "INPUT.MIN_SIZE_TEST": crop,
        "INPUT.MAX_SIZE_TEST": 2048,
        "TEST.SLIDING_WINDOW.ENABLED": True,
        "TEST.SLIDING_WINDOW.SIZE": [crop, crop],
        "TEST.SLIDING_WINDOW.STRIDE": [2 * crop // 3, 2 * crop // 3],
    }
    found = dict(leaves(get_config(row)))
    assert {key: plain(found[key]) for key in published} == published
    ranking = dict(leaves(get_config(f"{row}_rankseg")))
    assert ranking["MODEL.RANKSEG.TOPK"] == found["MODEL.SEM_SEG_HEAD.NUM_CLASSES"]


def test_vit_adapter_at_896_differs_from_640_as_published():
    other = dict(leaves(get_config("ade20k/semantic/vit_adapter_beit_l")))
    found = leaves(get_config("ade20k/semantic/vit_adapter_beit_l_896"))
    assert {key: plain(value) for key, value in found if value != other[key]} == {
        "MODEL.BEIT.IMG_SIZE": [896, 896],
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 200,
        "INPUT.CROP.SIZE": [896, 896],
        "INPUT.SIZE_DIVISIBILITY": 896,
        "INPUT.MIN_SIZE_TRAIN": [448, 1792],
        "INPUT.MAX_SIZE_TRAIN": 2 * 3584,
        "INPUT.MIN_SIZE_TEST": 896,
        "INPUT.MAX_SIZE_TEST": 3584,
        "SOLVER.MAX_ITER": 80000,
        "TEST.EVAL_PERIOD": 8000,
        "TEST.SLIDING_WINDOW.SIZE": [896, 896],
        "TEST.SLIDING_WINDOW.STRIDE": [512, 512],
        "TEST.AUG.MIN_SIZES": [448, 672, 896, 1120, 1344, 1568],
        "TEST.AUG.MAX_SIZE": 6272,
    }


def test_upernet_on_vit_adapter_l_is_trained_by_the_published_recipe():
    published = {
        "SOLVER.OPTIMIZER": "ADAMW",
        "SOLVER.BASE_LR": 2e-5,
        "SOLVER.LAYER_DECAY": 0.95,
        "SOLVER.BACKBONE_MULTIPLIER": 1.0,
        "SOLVER.WEIGHT_DECAY": 0.05,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0,
        "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
        "SOLVER.WARMUP_ITERS": 1500,
        "SOLVER.WARMUP_FACTOR": 1e-6,
        "SOLVER.POLY_LR_POWER": 1.0,
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.MAX_ITER": 160000,
        "MODEL.PIXEL_MEAN": [127.5, 127.5, 127.5],
        "MODEL.PIXEL_STD": [127.5, 127.5, 127.5],
        "MODEL.VIT.IMAGE_SIZE": 384,
        "MODEL.VIT.EMBED_DIM": 1024,
        "MODEL.VIT.DROP_PATH_RATE": 0.4,
        "MODEL.VIT_ADAPTER.HEADS": 16,
        "MODEL.VIT_ADAPTER.VALUE_RATIO": 0.5,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 512,
        "INPUT.CROP.SIZE": [512, 512],
        "INPUT.MIN_SIZE_TRAIN": [256, 1024],
        "TEST.SLIDING_WINDOW.ENABLED": True,
        "TEST.SLIDING_WINDOW.SIZE": [512, 512],
        "TEST.SLIDING_WINDOW.STRIDE": [341, 341],
    }
    found = dict(leaves(get_config("ade20k/semantic/upernet_vit_adapter_l")))
    assert {key: plain(found[key]) for key in published} == published


@pytest.mark.parametrize(
    "part", ["beit_adapter_b", "beit_adapter_l", "vit_adapter_b", "vit_adapter_l"]
)
def test_parts_of_vit_adapter_serve_any_head(part, tmp_path):
    for head in ("segformer_b0", "maskformer_r50"):
        path = tmp_path / f"{head}.yaml"
        path.write_text(f"_BASE_: [ade20k/semantic/{head}, parts/backbones/{part}]\n")
        cfg = get_config(path, ["MODEL.DEVICE", "cpu"])
        with torch.device("meta"):
            model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
        assert type(model.backbone).__name__ == {"b": "BEiTAdapter", "v": "ViTAdapter"}[part[0]]


@pytest.mark.parametrize("head", ["segformer_b0", "upernet_swin_t", "r50"])
def test_nothing_looks_frozen_where_nothing_is(head):
    assert get_config(f"ade20k/semantic/{head}").MODEL.BACKBONE.FREEZE_AT == 0


CONDINST = [f"coco/entity/condinst_{name}" for name in
            ("r50", "r101", "mit_b0", "mit_b2", "mit_b3", "mit_b5")]  # fmt: skip


@pytest.mark.parametrize("row", CONDINST)
def test_condinst_is_trained_by_the_published_recipe(row):
    is_mit, is_largest = "mit" in row, row.endswith("b5")
    published = {
        "SOLVER.OPTIMIZER": "ADAMW" if is_mit else "SGD",
        "SOLVER.BASE_LR": 1e-4 if is_mit else 0.01,
        "SOLVER.BACKBONE_MULTIPLIER": 1.0,
        "SOLVER.WEIGHT_DECAY": 0.05 if is_mit else 1e-4,
        "SOLVER.IMS_PER_BATCH": 8 if is_largest else 16,
        "SOLVER.MAX_ITER": 180000 if is_largest else 90000,
        "SOLVER.STEPS": [120000, 160000] if is_largest else [60000, 80000],
        "MODEL.CONDINST.MAX_PROPOSALS": 80 if is_largest else 500,
        "MODEL.CONDINST.SIZES": [64, 128, 256, 512],
        "MODEL.CONDINST.NMS_THRESHOLD": 0.6,
        "MODEL.CONDINST.OVERLAP_WEIGHT": 0.5,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
        "MODEL.SEM_SEG_HEAD.NORM": "GN",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 1,
        "MODEL.MASK_FORMER.TEST.MASK_RESCORE": is_mit,
        "TEST.DETECTIONS_PER_IMAGE": 100,
        "INPUT.CROP.ENABLED": False,
    }
    found = dict(leaves(get_config(row)))
    assert {key: plain(found[key]) for key in published} == published
    assert (min(found["INPUT.MIN_SIZE_TRAIN"]), max(found["INPUT.MIN_SIZE_TRAIN"])) == (640, 800)
    model = "/mit_b" + row[-1] if is_mit else {"50": "R-50", "01": "resnet101"}[row[-2:]]
    assert model in found["MODEL.WEIGHTS"]
