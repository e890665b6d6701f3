"""Mask2Former and MaskFormer of transformers: small ones, and what its files of models hold.

`huggingface.json.gz` has config.json, preprocessor_config.json and the names and shapes of the
weights of each case, as transformers 5.24 writes them.
"""

import functools
import gzip
import json
from pathlib import Path

import pytest
import torch
from support import golden, pixel_golden

from rankseg_d2.convert.huggingface import Folder

FILE, NUMBERS = "huggingface.json.gz", "huggingface.npz"
SMALL = ("mask2former_swin", "mask2former_resnet", "mask2former_timm", "maskformer_swin",
         "maskformer_resnet")  # fmt: skip
PUBLIC = ("mask2former_swin_t", "mask2former_swin_l", "mask2former_r50", "maskformer_swin_b",
          "maskformer_r50")  # fmt: skip
NAMES = [f"kind {i}" for i in range(7)]  # of the classes of the small ones, where LABELS are given
LABELS = {"id2label": {str(i): name for i, name in enumerate(NAMES)}}
_STAGES = [f"stage{i}" for i in range(1, 5)]
_SWIN = {
    "embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "window_size": 7,
    "out_features": _STAGES,
}  # fmt: skip
_RESNET = {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "out_features": _STAGES}
_MASK2FORMER = {
    "hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "encoder_layers": 2,
    "decoder_layers": 4, "num_attention_heads": 4, "dim_feedforward": 64, "num_queries": 10,
    "num_labels": 7,
}  # fmt: skip
_DETR = {
    "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4, "num_queries": 10,
}  # fmt: skip


@functools.cache
def cases() -> dict[str, dict]:
    return json.loads(gzip.decompress((golden.DATA / FILE).read_bytes()))


def folder_of(case: str, **config) -> Folder:
    """The folder of a case, which is not on the disk; `config` replaces fields of config.json."""
    found = cases()[case]
    path = Path(case)
    return Folder(
        path, path / "model.safetensors", found["config"] | config, found["preprocessor"], "MIT"
    )


def weights_of(case: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Weights of a case by their names; on "meta" their shapes alone."""
    keys = cases()[case]["keys"]
    if device == "meta":
        return {name: torch.empty(shape, device="meta") for name, shape in keys}
    return {name: value_of(name, shape) for name, shape in keys}


def value_of(name: str, shape) -> torch.Tensor:
    if name.endswith("relative_position_index"):
        from rankseg_d2.modeling.backbone.swin import relative_position_index

        return relative_position_index(round(shape[0] ** 0.5))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name == "criterion.empty_weight":
        return torch.tensor([1.0] * (shape[0] - 1) + [0.1])
    return pixel_golden.value_of(name, shape) * (4 if "queries" in name else 1)


def write(case: str, path: Path, **config) -> Path:
    """The folder of a small case on the disk."""
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    found = cases()[case]
    save_file(weights_of(case), path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(found["config"] | config))
    (path / "preprocessor_config.json").write_text(json.dumps(found["preprocessor"]))
    return path


def transformers():
    return pytest.importorskip(
        "transformers", reason="compares with transformers, which is not installed"
    )


def make(case: str, library=None):
    """A small model of transformers with its default weights."""
    library = library or transformers()
    family, _, backbone = case.partition("_")
    backbones = {
        "swin": lambda: library.SwinConfig(**_SWIN),
        "resnet": lambda: library.ResNetConfig(**_RESNET),
        "timm": lambda: library.TimmBackboneConfig(backbone="resnet18", out_indices=[1, 2, 3, 4]),
    }
    config = backbones[backbone]()
    if family == "mask2former":
        config = library.Mask2FormerConfig(backbone_config=config, **_MASK2FORMER)
        return library.Mask2FormerForUniversalSegmentation(config).eval()
    config = library.MaskFormerConfig(
        backbone_config=config.to_dict(), decoder_config=library.DetrConfig(**_DETR).to_dict(),
        fpn_feature_size=32, mask_feature_size=32, num_labels=7,
    )  # fmt: skip
    return library.MaskFormerForInstanceSegmentation(config).eval()


def image() -> torch.Tensor:
    """(1, 3, 64, 96), normalised."""
    return golden.inputs()["image_A"][None, :, :64, :96].float() / 64 - 2
