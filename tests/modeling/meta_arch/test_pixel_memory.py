"""A training step with a ranking makes no tensor with all classes of all pixels."""

import pytest
import torch
from detectron2.modeling import build_model
from support.sizes import Sizes
from support.small import picture

from rankseg_d2.config import get_config

CLASSES, KAPPA, SIZE = 250, 30, (128, 160)
CONFIGS = [f"shapes/semantic/{name}" for name in ("segmenter_vit", "segformer_b0")]
PIXELS = SIZE[0] * SIZE[1]


def largest_of_a_step(config, batch):
    keys = ["MODEL.DEVICE=cpu", f"MODEL.SEM_SEG_HEAD.NUM_CLASSES={CLASSES}"]
    torch.manual_seed(0)
    model = build_model(get_config(config, [*keys, f"MODEL.RANKSEG.TOPK={KAPPA}"])).train()
    labels = torch.randint(CLASSES, (batch, *SIZE))
    samples = [{"image": picture(i, SIZE), "sem_seg": x} for i, x in enumerate(labels)]
    with Sizes() as sizes:
        sum(model(samples).values()).backward()
    return sizes.largest


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_largest_tensor_has_only_the_ranked_classes(config, batch):
    largest = largest_of_a_step(f"{config}_rankseg", batch)
    assert largest["float"] == batch * KAPPA * PIXELS
    assert largest["integer"] == batch * PIXELS


@pytest.mark.parametrize("config", CONFIGS)
def test_the_baselines_largest_tensor_has_all_classes(config):
    assert largest_of_a_step(config, 1)["float"] == CLASSES * PIXELS
