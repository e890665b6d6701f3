"""Folders for transformers: they describe the same model, and what it does not have is said."""

import json

import pytest
import torch
from detectron2.modeling import build_model
from support import huggingface
from support.huggingface import LABELS, NAMES
from support.small import outputs_of

from rankseg_d2.config import get_config
from rankseg_d2.convert.huggingface import config_of, find_folder, write_folder
from rankseg_d2.convert.huggingface.classes import class_names
from rankseg_d2.engine import Checkpointer

SWIN, RESNET = "mask2former_swin", "maskformer_resnet"
CPU = ["MODEL.DEVICE", "cpu"]


@pytest.mark.parametrize("case", [SWIN, "maskformer_swin", "mask2former_resnet", RESNET])
def test_a_written_folder_describes_the_same_model(case, tmp_path):
    cfg = config_of(huggingface.folder_of(case, **LABELS), [*CPU, "INPUT.MIN_SIZE_TEST", 96])[0]
    model = build_model(cfg).eval()
    write_folder(cfg, model.state_dict(), NAMES, tmp_path / "hf")
    names = {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert {file.name for file in (tmp_path / "hf").iterdir()} == names
    folder = find_folder(tmp_path / "hf")
    assert class_names(folder.config) == NAMES
    found = config_of(folder, CPU)[0]
    found.defrost()
    found.MODEL.PIXEL_MEAN, found.MODEL.PIXEL_STD = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    found.INPUT.MAX_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST
    assert found.dump() == cfg.dump()
    other = build_model(found).eval()
    Checkpointer(other).load(str(tmp_path / "hf"))
    images = torch.randn(1, 3, 40, 64)
    one, two = (outputs_of(x, images) for x in (model, other))
    assert one.masks[-1].equal(two.masks[-1]) and one.logits[-1].equal(two.logits[-1])


def test_images_of_their_own_size_stay_so(tmp_path):
    cfg = config_of(huggingface.folder_of(SWIN), [*CPU, "INPUT.MIN_SIZE_TEST", 0])[0]
    write_folder(cfg, build_model(cfg).state_dict(), NAMES, tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["do_resize"] is False


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["MODEL.RANKSEG.FLAG", True], "transformers has no model with a ranking of categories"),
        (["MODEL.META_ARCHITECTURE", "VideoMaskFormer"], "for images only"),
        (["MODEL.BACKBONE.NAME", "TimmBackbone"], "MODEL.BACKBONE.NAME is TimmBackbone"),
        (["INPUT.FORMAT", "BGR"], "INPUT.FORMAT is 'BGR', but transformers' Mask2Former has RGB"),
        (["MODEL.SWIN.PATCH_NORM", False], "MODEL.SWIN.PATCH_NORM is False"),
    ],
)
def test_what_transformers_does_not_have_is_one_sentence(keys, message, tmp_path):
    cfg = config_of(huggingface.folder_of(SWIN), [*CPU, *keys])[0]
    with pytest.raises(ValueError, match=message):
        write_folder(cfg, {}, NAMES, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_maskformers_pixel_decoder_with_an_encoder_is_not_there(tmp_path):
    cfg = get_config("coco/panoptic/maskformer_r50", CPU)
    with pytest.raises(ValueError, match=r"PIXEL_DECODER_NAME is 'TransformerEncoderPixelDecoder'"):
        write_folder(cfg, {}, NAMES, tmp_path / "hf")


def test_a_backbone_alone_and_a_file_in_the_way_are_named(tmp_path):
    cfg = config_of(huggingface.folder_of(SWIN), CPU)[0]
    with pytest.raises(ValueError, match="a backbone's weights only"):
        write_folder(cfg, {"backbone.norm0.weight": torch.ones(16)}, NAMES, tmp_path / "hf")
    (tmp_path / "hf").write_text("")
    with pytest.raises(ValueError, match="is a file; name another one"):
        write_folder(cfg, build_model(cfg).state_dict(), NAMES, tmp_path / "hf")
    with pytest.raises(ValueError, match="no weight like other"):
        write_folder(cfg, {"other": torch.ones(1)}, NAMES, tmp_path / "hf2")
