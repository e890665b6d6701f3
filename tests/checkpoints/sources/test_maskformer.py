"""HuggingFace's Mask2Former and MaskFormer: names, shapes, and the numbers of its models."""

import pytest
import torch
from detectron2.modeling import build_model
from support import golden, huggingface
from support.small import outputs_of

from rankseg_d2.checkpoints import METADATA
from rankseg_d2.checkpoints.sources import find_table, maskformer
from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import run
from rankseg_d2.convert.huggingface import config_of
from rankseg_d2.convert.huggingface.to_theirs import file_weights
from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.checks import build_on_meta
from rankseg_d2.engine.packing import description
from rankseg_d2.predict import Predictor

CPU = ["MODEL.DEVICE", "cpu"]
CONFIGS = {  # of a shipped config with the same network
    "mask2former_swin_t": "ade20k/semantic/swin_t",
    "mask2former_swin_l": "coco/panoptic/swin_l",
    "maskformer_swin_b": "ade20k/semantic/maskformer_swin_b",
    "maskformer_r50": "ade20k/semantic/maskformer_r50",
}


def shapes(weights):
    return {name: tuple(x.shape) for name, x in weights.items()}


def without_buffers(weights):
    ends = "relative_position_index", "num_batches_tracked"
    return {name: x for name, x in weights.items() if not name.endswith(ends)}


@pytest.mark.parametrize("case", [*huggingface.PUBLIC, *huggingface.SMALL])
def test_a_file_has_exactly_the_weights_of_the_model_that_its_config_describes(case):
    theirs = huggingface.weights_of(case, "meta")
    table = find_table(theirs)
    assert table in maskformer.TABLES
    cfg = config_of(huggingface.folder_of(case), CPU)[0]
    own = build_on_meta(cfg).state_dict()
    found = without_buffers(table.to_ours(theirs))
    assert shapes(found) == shapes(without_buffers(own))
    assert find_table(own) is None
    kind = case.partition("_")[0]
    if "timm" not in case:  # these are written as transformers' own ResNet
        assert shapes(file_weights(cfg, kind, own)) == shapes(theirs)


@pytest.mark.parametrize("case", CONFIGS)
def test_public_models_are_those_of_shipped_configs(case):
    own = build_on_meta(get_config(CONFIGS[case], CPU)).state_dict()
    theirs = huggingface.weights_of(case, "meta")
    found = without_buffers(find_table(theirs).to_ours(theirs))
    assert shapes(found) == shapes(without_buffers(own))


@pytest.mark.parametrize("case", huggingface.SMALL)
def test_a_folder_is_loaded_as_it_is_and_gives_transformers_numbers(case, tmp_path, caplog):
    """Golden numbers of transformers 5.24, with weights by their names."""
    folder, arrays = huggingface.write(case, tmp_path), golden.load(huggingface.NUMBERS)
    model = build_model(config_of(huggingface.folder_of(case), CPU)[0]).eval()
    checkpointer = Checkpointer(model)
    with caplog.at_level("INFO"):
        checkpointer.load(str(folder))
    assert "0 adapted" in caplog.text and "0 unused" in caplog.text
    assert all(name.endswith("relative_position_index") for name in checkpointer.fresh)
    outputs = outputs_of(model, huggingface.image())
    assert arrays[f"{case}/classes"].diff(outputs.logits[-1])[1] < 1e-4
    assert arrays[f"{case}/masks"].diff(outputs.masks[-1][:, :, 0])[1] < 1e-4


@torch.no_grad()
def randomise(model):
    torch.manual_seed(0)
    for name, x in model.state_dict().items():
        if not x.is_floating_point() or name == "criterion.empty_weight":
            continue
        if "running_var" in name:
            x.uniform_(0.5, 1.5)
        elif x.dim() > 1:
            x.normal_(std=(x.shape[0] / x.numel()) ** 0.5)
        else:
            x.normal_(float(name.endswith("weight")), 0.2)


def largest_error(found, expected):
    """Over the standard deviation."""
    assert expected.isfinite().all() and expected.std() > 0
    return (found - expected).abs().max() / expected.std()


@pytest.mark.parametrize("case", huggingface.SMALL)
@torch.no_grad()
def test_both_libraries_give_the_same_outputs_there_and_back(case, tmp_path):
    theirs = huggingface.make(case)
    randomise(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = str(tmp_path / "ours.safetensors")
    run(str(tmp_path / "theirs"), ours, None, CPU, None)
    model = Predictor.from_checkpoint(ours, device="cpu").model
    images = torch.randn(2, 3, 70, 100)
    expected, outputs = theirs(pixel_values=images), outputs_of(model, images)
    names = "class_queries_logits", "masks_queries_logits"
    own = dict(zip(names, (outputs.logits[-1], outputs.masks[-1][:, :, 0]), strict=True))
    assert all(largest_error(own[name], expected[name]) < 1e-4 for name in names)
    run(ours, str(tmp_path / "back"), None, [], "transformers")
    back, told = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(told.values())
    found = back.eval()(pixel_values=images)
    assert all(largest_error(found[name], own[name]) < 1e-4 for name in names)


@torch.no_grad()
def test_a_model_trained_here_gives_the_same_outputs_there(tmp_path):
    library = huggingface.transformers()
    cfg = config_of(huggingface.folder_of("mask2former_swin", pre_norm=True), CPU)[0]
    model = build_model(cfg).eval()
    randomise(model)
    said = description(cfg, [{"name": f"kind {i}"} for i in range(7)])
    torch.save({"model": model.state_dict(), METADATA: said}, tmp_path / "own.pth")
    run(str(tmp_path / "own.pth"), str(tmp_path / "hf"), None, CPU, "transformers")
    there = library.Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path / "hf").eval()
    images = torch.randn(1, 3, 64, 64)
    expected, outputs = there(pixel_values=images), outputs_of(model, images)
    assert largest_error(outputs.logits[-1], expected.class_queries_logits) < 1e-4
    assert largest_error(outputs.masks[-1][:, :, 0], expected.masks_queries_logits) < 1e-4
    assert there.config.id2label[6] == "kind 6"
    processor = library.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert type(processor).__name__.startswith("Mask2FormerImageProcessor")
