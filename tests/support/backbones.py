"""What tests of several backbones share: golden inputs and weights, and what every one must do."""

import gzip
import json

import pytest
import torch
from support import golden, pixel_golden
from torch import Tensor

LEVELS = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}  # name -> stride
_ADAPTER = {
    "MODEL.VIT_ADAPTER.CONV_CHANNELS": 4,
    "MODEL.VIT_ADAPTER.HEADS": 2,
    "MODEL.VIT_ADAPTER.NORM": "BN",
}
SMALL = {  # config keys of small backbones
    "MiT": {
        "MODEL.BACKBONE.NAME": "MixTransformer",
        "MODEL.MIT.EMBED_DIMS": [8, 8, 16, 16],
        "MODEL.MIT.DEPTHS": [1, 1, 1, 1],
        "MODEL.MIT.NUM_HEADS": [1, 1, 2, 2],
        "MODEL.MIT.REDUCTIONS": [4, 2, 2, 1],
        "MODEL.MIT.DROP_PATH_RATE": 0.0,
    },
    "CSWin": {
        "MODEL.BACKBONE.NAME": "CSWinTransformer",
        "MODEL.CSWIN.EMBED_DIM": 8,
        "MODEL.CSWIN.DEPTHS": [1, 1, 1, 1],
        "MODEL.CSWIN.NUM_HEADS": [2, 2, 2, 2],
        "MODEL.CSWIN.STRIPE_WIDTHS": [1, 2, 3],
        "MODEL.CSWIN.DROP_PATH_RATE": 0.0,
    },
    "VOLO": {
        "MODEL.BACKBONE.NAME": "VOLO",
        "MODEL.VOLO.IMAGE_SIZE": 64,
        "MODEL.VOLO.EMBED_DIMS": [8, 16],
        "MODEL.VOLO.DEPTHS": [1, 1, 1, 1],
        "MODEL.VOLO.NUM_HEADS": [1, 2],
        "MODEL.VOLO.STEM_DIM": 8,
        "MODEL.VOLO.NORM": "BN",
        "MODEL.VOLO.DROP_PATH_RATE": 0.0,
    },
    "SeMask": {
        "MODEL.BACKBONE.NAME": "D2SeMaskSwinTransformer",
        "MODEL.SWIN.EMBED_DIM": 8,
        "MODEL.SWIN.DEPTHS": [1, 1, 1, 1],
        "MODEL.SWIN.NUM_HEADS": [1, 2, 2, 4],
        "MODEL.SWIN.WINDOW_SIZE": 4,
        "MODEL.SWIN.DROP_PATH_RATE": 0.0,
        "MODEL.SEMASK.WINDOW_SIZE": 5,
    },
    "ViT-Adapter": {
        "MODEL.BACKBONE.NAME": "ViTAdapter",
        "MODEL.VIT.EMBED_DIM": 16,
        "MODEL.VIT.DEPTH": 4,
        "MODEL.VIT.NUM_HEADS": 2,
        "MODEL.VIT.IMAGE_SIZE": 64,
        "MODEL.VIT.DROP_PATH_RATE": 0.0,
    }
    | _ADAPTER,
    "ViT-Adapter on BEiT": {
        "MODEL.BACKBONE.NAME": "BEiTAdapter",
        "MODEL.BEIT.EMBED_DIM": 16,
        "MODEL.BEIT.DEPTH": 4,
        "MODEL.BEIT.NUM_HEADS": 2,
        "MODEL.BEIT.IMG_SIZE": [96, 96],
        "MODEL.BEIT.DROP_PATH_RATE": 0.0,
    }
    | _ADAPTER,
}


def images_of(facts: dict) -> Tensor:
    """The normalised images of a golden case: (B, 3, H, W)."""
    images = torch.stack([pixel_golden.image(seed, *facts["hw"]) for seed in facts["image_seeds"]])
    mean, std = (torch.tensor(values)[:, None, None] for values in facts["mean_std"])
    return (images - mean) / std


def public_weights(file: str) -> dict[str, Tensor]:
    """Weights under the names of a public file, whose values follow from these."""
    path = golden.DATA / pixel_golden.FOLDER / "keys_volo_cswin.json.gz"
    keys = json.loads(gzip.decompress(path.read_bytes()))[file]
    weights = {name: pixel_golden.value_of(name, shape) for name, shape in keys}
    return {name: x.long() if "num_batches" in name else x for name, x in weights.items()}


def check_golden(found, model, outputs, facts, arrays) -> None:
    """Stages by name are the golden ones, and so are gradients of the outputs' projection."""
    for name, x in found.items():
        assert arrays[name].diff(x)[1] < 1e-4, name
    generator = torch.Generator().manual_seed(5)
    value = sum(
        (x * torch.randn(x.shape, generator=generator)).sum() / x.numel() ** 0.5 for x in outputs
    )
    value.backward()
    gradients = {name: x.grad for name, x in model.named_parameters() if x.grad is not None}
    sampled = [name for name in arrays if name.startswith("grad/")]
    assert len(sampled) >= 4
    for name in sampled:
        assert arrays[name].diff(gradients[name.removeprefix("grad/")])[1] < 1e-4, name
    assert set(gradients) == set(facts["grad_names"])
    norms = [gradients[name].norm().item() for name in facts["grad_names"]]
    assert norms == pytest.approx(arrays["grad_norm"].values, rel=1e-3)


def check_a_backbone(make) -> None:
    """Any size, rounded up; a batch is its images; checkpointing changes no gradient."""
    model = make().eval()
    assert model.any_size and model.size_divisibility == 32
    for size in ((1, 1), (3, 40), (33, 47), (64, 96)):
        batch = torch.randn(2, 3, *size)
        with torch.no_grad():
            features, alone = model(batch), [model(image[None]) for image in batch]
        assert list(features) == list(model.output_shape()) == list(LEVELS)
        for name, x in features.items():
            spec = model.output_shape()[name]
            sides = [-(-side // LEVELS[name]) for side in size]
            assert spec.stride == LEVELS[name] and x.shape[1:] == (spec.channels, *sides), name
            torch.testing.assert_close(x, torch.cat([one[name] for one in alone]), msg=name)
    with pytest.raises(ValueError, match=r"takes images \(B, C, H, W\), not \(3, 32, 32\)"):
        model(torch.zeros(3, 32, 32))
    images, found = torch.randn(2, 3, 64, 96), []
    for use_checkpoint in (False, True):
        model = make(use_checkpoint=use_checkpoint, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        sum((x * x.detach().cos()).sum() for x in model(images).values()).backward()
        found.append({name: x.grad for name, x in model.named_parameters()})
    assert all(x is not None for x in found[0].values())
    torch.testing.assert_close(*found)
