"""`rankseg-d2 convert` for every family of pixel classifiers: to other libraries and back."""

import pytest
import torch
from detectron2.modeling import build_model
from support.pixel_families import fill, sample
from support.small import evaluate

from rankseg_d2 import cli
from rankseg_d2.config import get_config
from rankseg_d2.convert.converting import export
from rankseg_d2.engine import Checkpointer
from rankseg_d2.predict import Predictor

LIBRARIES = {  # config of shapes -> libraries that have such a model
    "segmenter_vit": ("mmsegmentation", "segmenter"),
    "segmenter_vit_rankseg": ("rankseg",),
    "deeplab_r50c": ("mmsegmentation",),
    "deeplab_r50c_rankseg": ("rankseg",),
    "upernet_swin": ("mmsegmentation",),
    "upernet_swin_rankseg": ("rankseg",),
    "segformer_b0": ("transformers", "nvlabs"),
}


@pytest.mark.parametrize(
    ("name", "library"), [(name, one) for name, some in LIBRARIES.items() for one in some]
)
def test_a_model_comes_back_as_it_was_and_predicts(name, library, tmp_path, capsys):
    cfg = get_config(f"shapes/semantic/{name}")
    torch.manual_seed(0)
    model = build_model(cfg)
    fill(model)
    Checkpointer(model, str(tmp_path)).save("own")
    own, theirs, ours = (str(tmp_path / x) for x in ("own.pth", "theirs.pth", "ours.safetensors"))
    words = ["--config", f"shapes/semantic/{name}"]
    assert cli.main(["convert", own, theirs, *words, "--to", library]) == 0
    assert torch.load(theirs)["state_dict"].keys() != model.state_dict().keys()
    assert cli.main(["convert", theirs, ours, *words]) == 0
    predictor = Predictor.from_checkpoint(ours, device="cpu")
    weights = predictor.model.state_dict()
    assert all(weights[key].equal(value) for key, value in model.state_dict().items())
    one, other = (evaluate(x, [sample()])[0] for x in (model, predictor.model))
    assert one["sem_seg_labels"].equal(other["sem_seg_labels"])


def test_a_library_without_such_a_model_and_an_unknown_one_are_named(tmp_path):
    cfg = get_config("shapes/semantic/upernet_swin")
    Checkpointer(build_model(cfg), str(tmp_path)).save("own")
    with pytest.raises(ValueError, match="segmenter has no model of this kind"):
        export(cfg, tmp_path / "own.pth", tmp_path / "theirs.pth", "segmenter")
    with pytest.raises(KeyError, match=r"--to: 'mmseg' is not known; .* mmsegmentation"):
        export(cfg, tmp_path / "own.pth", tmp_path / "theirs.pth", "mmseg")
