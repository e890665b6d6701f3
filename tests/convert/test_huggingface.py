"""`rankseg-d2 convert` of transformers' folders: configs, classes, images, licences, and back."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from support import huggingface
from support.small import outputs_of

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import run
from rankseg_d2.convert.huggingface import config_of, find_folder, write_folder
from rankseg_d2.convert.huggingface.classes import class_names, find_data
from rankseg_d2.convert.huggingface.images import read_images
from rankseg_d2.engine import Checkpointer
from rankseg_d2.predict import Predictor

SWIN, RESNET = "mask2former_swin", "maskformer_resnet"
CPU = ["MODEL.DEVICE", "cpu"]
NAMES = [f"kind {i}" for i in range(7)]
LABELS = {"id2label": {str(i): name for i, name in enumerate(NAMES)}}


def changed(case=SWIN, preprocessor=None, **config):
    """A folder that is not on the disk, with other fields in its files."""
    folder = huggingface.folder_of(case, **config)
    if preprocessor is not None:
        folder = dataclasses.replace(folder, preprocessor=preprocessor)
    return folder


def changed_backbone(**fields):
    section = huggingface.cases()[SWIN]["config"]["backbone_config"]
    return changed(backbone_config=section | fields)


# The command


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


# Classes and results


def classes_of(dataset, key="stuff_classes"):
    return list(MetadataCatalog.get(dataset).get(key))


@pytest.mark.parametrize(
    ("names_of", "said", "dataset", "tasks"),
    [
        ("ade20k_sem_seg_train", "", "ade20k_sem_seg_train", ("semantic",)),
        ("ade20k_sem_seg_train", "x-ade-panoptic", "ade20k_panoptic_train",
         ("semantic", "panoptic", "instance")),
        ("coco_2017_train_panoptic", "", "coco_2017_train_panoptic",
         ("semantic", "panoptic", "instance")),
        ("cityscapes_fine_panoptic_train", "cityscapes-semantic", "cityscapes_fine_sem_seg_train",
         ("semantic",)),
        ("cityscapes_fine_panoptic_train", "cityscapes-panoptic", "cityscapes_fine_panoptic_train",
         ("semantic", "panoptic", "instance")),
        ("coco_2017_train", "coco-instance", "coco_2017_train", ("instance",)),
        ("coco_2017_train", "", "coco_2017_train", ("instance",)),
    ],
)  # fmt: skip
def test_classes_are_those_of_a_known_data_set(names_of, said, dataset, tasks):
    key = "thing_classes" if tasks == ("instance",) else "stuff_classes"
    names = [f"{name} " for name in classes_of(names_of, key)]
    for number in range(0, len(names), 3):
        names[number] = "another synonym"
    found = find_data(names, said, is_video=False)
    assert (found.dataset, found.tasks) == (dataset, tasks)


def test_classes_of_videos_are_those_of_a_data_set_of_videos():
    found = find_data(classes_of("ytvis_2019_train", "thing_classes"), "", is_video=True)
    assert (found.dataset, found.tasks) == ("ytvis_2019_train", ("instance",))


@pytest.mark.parametrize(
    ("said", "tasks"),
    [("", ("semantic",)), ("my-instance", ("instance",)),
     ("my-panoptic", ("semantic", "panoptic", "instance"))],
)  # fmt: skip
def test_unknown_classes_are_predicted_as_the_name_says(said, tasks):
    assert find_data(NAMES, said, is_video=False).tasks == tasks


def test_a_panoptic_model_of_unknown_classes_has_things_only(tmp_path):
    folder = huggingface.write(SWIN, tmp_path / "mine-panoptic", **LABELS)
    opts = [*CPU, "INPUT.MIN_SIZE_TEST", 32]
    done = run(str(folder), str(tmp_path / "x.safetensors"), None, opts, None)
    assert any("every class is taken for a thing" in note for note in done.notes)
    predictor = Predictor.from_checkpoint(done.path, device="cpu")
    assert predictor.gives_panoptic and predictor.classes.things == frozenset(range(7))
    predictor(np.zeros((32, 48, 3), np.uint8))


def test_class_names_are_in_the_order_of_their_numbers():
    labels = {"10": "k", "2": "c", **{str(i): f"{i} " for i in range(10) if i != 2}}
    assert class_names({"id2label": labels})[:3] == ["0", "1", "c"]
    assert class_names({"num_labels": 3}) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with pytest.raises(ValueError, match="id2label must name the classes 0 to 1"):
        class_names({"id2label": {"0": "a", "2": "b"}})


def test_a_video_checkpoint_loads_into_the_model_of_videos(tmp_path):
    config = {"model_type": "video_mask2former"} | LABELS
    folder = huggingface.write(SWIN, tmp_path / "video-instance", **config)
    done = run(str(folder), str(tmp_path / "x.safetensors"), None, CPU, None)
    assert done.notes[0].startswith("model: video Mask2Former, 7 classes, predicts instance")
    assert type(Predictor.from_checkpoint(done.path, device="cpu").model).__name__ == (
        "VideoMaskFormer"
    )


# Images


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        ({}, {"INPUT.MIN_SIZE_TEST": 800, "INPUT.MAX_SIZE_TEST": 1333,
              "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
              "MODEL.PIXEL_STD": [58.395, 57.12, 57.375]}),
        ({"image_mean": [0.48500001430511475] * 3}, {"MODEL.PIXEL_MEAN": [123.675] * 3}),
        ({"do_rescale": False, "image_mean": [3] * 3}, {"MODEL.PIXEL_MEAN": [3.0] * 3}),
        ({"do_normalize": False}, {"MODEL.PIXEL_MEAN": [0.0] * 3, "MODEL.PIXEL_STD": [255.0] * 3}),
        ({"do_resize": False}, {"INPUT.MIN_SIZE_TEST": 0}),
        ({"size": 640, "max_size": 2560},
         {"INPUT.MIN_SIZE_TEST": 640, "INPUT.MAX_SIZE_TEST": 2560}),
        ({"size": {"shortest_edge": 512}},
         {"INPUT.MIN_SIZE_TEST": 512, "INPUT.MAX_SIZE_TEST": 100_000}),
        ({"size_divisor": 0}, {"MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 0}),
    ],
)  # fmt: skip
def test_preprocessing_becomes_keys(found, keys):
    assert read_images(found)[0].items() >= keys.items()


def test_what_preprocessing_does_otherwise_is_said():
    keys, notes = read_images({"size": {"height": 384, "width": 512}, "resample": 3})
    assert keys["INPUT.MIN_SIZE_TEST"] == 384
    assert "resample is 3" in notes[0] and "stretches images to 384 x 512" in notes[1]
    assert "no preprocessor_config.json" in read_images({})[1][0]
    with pytest.raises(ValueError, match="size is .* but should have shortest_edge"):
        read_images({"size": {"max_height": 3}})


# Models that are none of ours


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (lambda: changed(encoder_feedforward_dim=512),
         "config.json: encoder_feedforward_dim is 512, but models here have 1024 only"),
        (lambda: changed(activation_function="gelu"), "activation_function is 'gelu'"),
        (lambda: changed_backbone(layer_norm_eps=1e-6), "backbone_config: layer_norm_eps is"),
        (lambda: changed_backbone(model_type="focalnet"), "model_type is 'focalnet'; swin, resnet"),
        (lambda: changed(RESNET, backbone_config={"model_type": "resnet", "depths": [1, 1, 1, 1]}),
         r"this ResNet \(bottleneck, depths \[1, 1, 1, 1\]"),
        (lambda: changed(RESNET, backbone_config={"model_type": "resnet", "hidden_act": "gelu"}),
         "hidden_act is 'gelu'"),
        (lambda: changed(backbone_config=None, backbone="convnext_tiny"),
         "the backbone is 'convnext_tiny' of timm"),
        (lambda: changed("maskformer_swin", backbone_config={
            "model_type": "maskformer-swin", "use_absolute_embeddings": True}),
         "use_absolute_embeddings is true"),
    ],
)  # fmt: skip
def test_another_model_is_one_sentence(folder, message):
    with pytest.raises(ValueError, match=message):
        config_of(folder(), CPU)


def test_a_backbone_by_its_name_alone_is_timms():
    cfg = config_of(changed(backbone_config=None, backbone="resnet101"), CPU)[0]
    options = cfg.MODEL.RESNETS
    assert (options.DEPTH, options.RES2_OUT_CHANNELS, options.STRIDE_IN_1X1) == (101, 256, False)


# Back


@pytest.mark.parametrize("case", [SWIN, "maskformer_swin", "mask2former_resnet", RESNET])
def test_a_written_folder_describes_the_same_model(case, tmp_path):
    cfg = config_of(changed(case, **LABELS), [*CPU, "INPUT.MIN_SIZE_TEST", 96])[0]
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
    cfg = config_of(changed(), [*CPU, "INPUT.MIN_SIZE_TEST", 0])[0]
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
    cfg = config_of(changed(), [*CPU, *keys])[0]
    with pytest.raises(ValueError, match=message):
        write_folder(cfg, {}, NAMES, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_maskformers_pixel_decoder_with_an_encoder_is_not_there(tmp_path):
    cfg = get_config("coco/panoptic/maskformer_r50", CPU)
    with pytest.raises(ValueError, match=r"PIXEL_DECODER_NAME is 'TransformerEncoderPixelDecoder'"):
        write_folder(cfg, {}, NAMES, tmp_path / "hf")


def test_a_backbone_alone_and_a_file_in_the_way_are_named(tmp_path):
    cfg = config_of(changed(), CPU)[0]
    with pytest.raises(ValueError, match="a backbone's weights only"):
        write_folder(cfg, {"backbone.norm0.weight": torch.ones(16)}, NAMES, tmp_path / "hf")
    (tmp_path / "hf").write_text("")
    with pytest.raises(ValueError, match="is a file; name another one"):
        write_folder(cfg, build_model(cfg).state_dict(), NAMES, tmp_path / "hf")
    with pytest.raises(ValueError, match="no weight like other"):
        write_folder(cfg, {"other": torch.ones(1)}, NAMES, tmp_path / "hf2")
