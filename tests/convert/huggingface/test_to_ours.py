"""`rankseg-d2 convert` of transformers' folders: configs, licences, and what differs."""

import re

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from support import huggingface
from support.huggingface import LABELS, NAMES

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import run
from rankseg_d2.convert.huggingface import config_of, find_folder
from rankseg_d2.convert.huggingface.classes import class_names
from rankseg_d2.predict import Predictor

SWIN, RESNET = "mask2former_swin", "maskformer_resnet"
CPU = ["MODEL.DEVICE", "cpu"]


def test_a_folder_becomes_a_file_to_predict_with(tmp_path, capsys):
    folder = huggingface.write(SWIN, tmp_path / "m2f-semantic", **LABELS)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\n# A model\n")
    output = tmp_path / "ours.safetensors"
    words = ["--set", "MODEL.DEVICE=cpu", "INPUT.MIN_SIZE_TEST=32"]
    assert cli.main(["convert", str(folder), str(output), *words]) == 0
    said = capsys.readouterr().out
    assert "model: Mask2Former, 7 classes, predicts semantic results" in said
    assert "licence of the weights: mit, as README.md states" in said
    predictor = Predictor.from_checkpoint(output, device="cpu")
    assert predictor.classes.names == tuple(NAMES)
    assert cli.main(["convert", str(output), str(tmp_path / "back"), "--to", "transformers"]) == 0
    assert "licence of the weights: mit, as README.md states" in capsys.readouterr().out
    assert class_names(find_folder(tmp_path / "back").config) == NAMES
    result = predictor(np.zeros((32, 48, 3), np.uint8))
    assert result.labels().shape == (32, 48)


def test_the_config_is_that_of_the_published_recipe(tmp_path):
    found = config_of(huggingface.folder_of("mask2former_swin_l"), CPU)[0]
    own = get_config("coco/panoptic/swin_l", CPU)
    for section in ("SWIN", "BACKBONE", "MASK_FORMER", "PIXEL_MEAN", "PIXEL_STD"):
        pair = [cfg.MODEL[section] for cfg in (found, own)]
        if section == "MASK_FORMER":
            for options in pair:
                del options["TEST"]
        assert pair[0] == pair[1], section
    assert found.INPUT.MIN_SIZE_TEST == own.INPUT.MIN_SIZE_TEST == 800


@pytest.fixture
def seven():
    """The name of a data set with seven classes."""
    name = "seven_classes"
    MetadataCatalog.get(name).set(stuff_classes=["kind 0", *"abcdef"])
    yield name
    MetadataCatalog.pop(name)


def test_with_a_config_it_says_what_differs(seven, tmp_path, capsys):
    folder = huggingface.write(SWIN, tmp_path / "theirs", **LABELS)
    cfg = config_of(huggingface.folder_of(SWIN), ["DATASETS.TRAIN", (seven,)])[0]
    cfg.defrost()
    cfg.MODEL.MASK_FORMER.NHEADS, cfg.INPUT.MIN_SIZE_TEST = 2, 640
    (tmp_path / "mine.yaml").write_text(cfg.dump())
    output = str(tmp_path / "ours.safetensors")
    with pytest.raises(ValueError, match="does not fit this config: .*attention_weights"):
        run(str(folder), output, str(tmp_path / "mine.yaml"), CPU, None)
    cfg.MODEL.MASK_FORMER.NHEADS = 4
    cfg.MODEL.MASK_FORMER.PRE_NORM = True
    (tmp_path / "mine.yaml").write_text(cfg.dump())
    words = ["--config", str(tmp_path / "mine.yaml"), "--set", "MODEL.DEVICE=cpu"]
    assert cli.main(["convert", str(folder), output, *words]) == 0
    said = capsys.readouterr().out
    assert "INPUT.MIN_SIZE_TEST is 640 in this config, 800 in" in said
    assert "MODEL.MASK_FORMER.PRE_NORM is True in this config, False in" in said
    assert "names of classes differ: 1 is 'a' here, 'kind 1' there" in said
    assert "; and 3 more" in said
    assert "PIXEL_MEAN" not in said and "licence of the weights: not stated" in said


def test_a_file_without_a_config_beside_it_needs_one(tmp_path):
    torch.save({"model": {}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not say what model it is of; name its config"):
        run(str(tmp_path / "a.pth"), str(tmp_path / "b.safetensors"), None, [], None)
    assert find_folder(tmp_path) is find_folder(tmp_path / "none") is None
    (tmp_path / "config.json").write_text('{"model_type": "segformer"}')
    assert find_folder(tmp_path) is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        find_folder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json holds \[\], not an object"):
        find_folder(tmp_path)


def test_a_file_to_write_ends_in_safetensors(tmp_path):
    folder = huggingface.write(SWIN, tmp_path / "theirs")
    with pytest.raises(ValueError, match=r"ours\.pth, must end in \.safetensors"):
        run(str(folder), str(tmp_path / "ours.pth"), None, CPU, None)


@pytest.mark.parametrize(
    ("card", "source", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "", "apache-2.0, as README.md states"),
        ("---\nlicense: other\n---\n", "", r"other \(Mask2Former's .* CC BY-NC 4.0\), as"),
        ("---\nlicense: other\nlicense_name: mine\n---\n", "", r"other \(mine\), as"),
        ("# none", "owner/model", r"not stated: see https://huggingface\.co/owner/model"),
        ("---\n: [\n---\n", "../up", "not stated: see where theirs comes from"),
        (None, "", "not stated: see where theirs comes from"),
    ],
)
def test_the_licence_is_that_of_the_model_card(card, source, licence, tmp_path):
    folder = huggingface.write(SWIN, tmp_path / "theirs", _name_or_path=source)
    if card is not None:
        (folder / "README.md").write_text(card)
    assert re.match(licence, find_folder(folder / "model.safetensors").licence)


def test_a_panoptic_model_of_unknown_classes_has_things_only(tmp_path):
    folder = huggingface.write(SWIN, tmp_path / "mine-panoptic", **LABELS)
    opts = [*CPU, "INPUT.MIN_SIZE_TEST", 32]
    done = run(str(folder), str(tmp_path / "x.safetensors"), None, opts, None)
    assert any("every class is taken for a thing" in note for note in done.notes)
    predictor = Predictor.from_checkpoint(done.path, device="cpu")
    assert predictor.gives_panoptic and predictor.classes.things == frozenset(range(7))
    predictor(np.zeros((32, 48, 3), np.uint8))


def test_a_video_checkpoint_loads_into_the_model_of_videos(tmp_path):
    config = {"model_type": "video_mask2former"} | LABELS
    folder = huggingface.write(SWIN, tmp_path / "video-instance", **config)
    done = run(str(folder), str(tmp_path / "x.safetensors"), None, CPU, None)
    assert done.notes[0].startswith("model: video Mask2Former, 7 classes, predicts instance")
    assert type(Predictor.from_checkpoint(done.path, device="cpu").model).__name__ == (
        "VideoMaskFormer"
    )


# Models that are none of ours


def swin_with(**fields):
    return {"backbone_config": huggingface.cases()[SWIN]["config"]["backbone_config"] | fields}


def resnet_with(**fields):
    return {"backbone_config": {"model_type": "resnet"} | fields}


@pytest.mark.parametrize(
    ("case", "config", "message"),
    [
        (SWIN, {"encoder_feedforward_dim": 512},
         "config.json: encoder_feedforward_dim is 512, but models here have 1024 only"),
        (SWIN, {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        (RESNET, {"decoder_config": "detr"}, "decoder_config should be an object, but is 'detr'"),
        (SWIN, {"backbone_config": None, "backbone": "convnext_tiny"},
         "the backbone is 'convnext_tiny' of timm"),
        (SWIN, lambda: swin_with(layer_norm_eps=1e-6), "backbone_config: layer_norm_eps is"),
        (SWIN, lambda: swin_with(model_type="focalnet"), "model_type is 'focalnet'; swin, resnet"),
        ("maskformer_swin", lambda: swin_with(
            model_type="maskformer-swin", use_absolute_embeddings=True
        ), "use_absolute_embeddings is true"),
        (RESNET, resnet_with(depths=[1, 1, 1, 1]), r"this ResNet \(bottleneck, depths \[1, 1, 1"),
        (RESNET, resnet_with(hidden_act="gelu"), "hidden_act is 'gelu'"),
    ],
)  # fmt: skip
def test_another_model_is_one_sentence(case, config, message):
    fields = config() if callable(config) else config
    with pytest.raises(ValueError, match=message):
        config_of(huggingface.folder_of(case, **fields), CPU)


def test_a_backbone_by_its_name_alone_is_timms():
    cfg = config_of(huggingface.folder_of(SWIN, backbone_config=None, backbone="resnet101"), CPU)[0]
    options = cfg.MODEL.RESNETS
    assert (options.DEPTH, options.RES2_OUT_CHANNELS, options.STRIDE_IN_1X1) == (101, 256, False)
