"""Pixel classifiers of every family: a batch of B images equals B batches of one."""

import pytest
import torch
from detectron2.modeling import build_model
from support.small import picture
from torch import nn

from rankseg_d2.config import get_config

SIZE, COUNT = (96, 112), 3
SEGMENTER = "shapes/semantic/segmenter_vit"
# Config, keys
MODELS = {
    "segmenter": (SEGMENTER, []),
    "segmenter, linear": (SEGMENTER, ["MODEL.SEM_SEG_HEAD.NAME=SegmenterLinearHead"]),
    "segmenter, oce": (SEGMENTER, ["MODEL.VIT.CLASS_EMBEDDING=True"]),
    "essnet": (
        SEGMENTER,
        ["MODEL.SEM_SEG_HEAD.NAME=SegmenterESSNetHead", "MODEL.SEM_SEG_HEAD.ESSNET.NEIGHBOURS=9"],
    ),
    "deeplab": ("shapes/semantic/deeplab_r50c", []),
    "upernet": ("shapes/semantic/upernet_swin", []),
    "segformer": ("shapes/semantic/segformer_b0", []),
}
for name in ("segmenter", "segmenter, oce", "deeplab", "upernet", "segformer"):
    config, keys = MODELS[name]
    MODELS[f"{name}, rankseg"] = (f"{config}_rankseg", [*keys, "MODEL.RANKSEG.TOPK=9"])
keys = ["MODEL.SEM_SEG_HEAD.NAME=SegmenterLinearHead", "MODEL.RANKSEG.HEAD=encoder"]
MODELS["segmenter, linear, rankseg"] = (f"{SEGMENTER}_rankseg", [*keys, "MODEL.RANKSEG.TOPK=9"])
for head in ("encoder", "separable", "query2label", "conv_pooling"):
    keys = [f"MODEL.RANKSEG.HEAD={head}", "MODEL.RANKSEG.TOPK=9", "MODEL.RANKSEG.POOL=4"]
    MODELS[f"segmenter, rankseg by {head}"] = (f"{SEGMENTER}_rankseg", keys)


def samples():
    random = torch.Generator().manual_seed(1)
    for number in range(COUNT):
        classes = torch.randperm(100, generator=random)[:12]
        labels = classes[torch.randint(12, SIZE, generator=random)]
        labels[: 10 * number] = 255
        yield {"image": picture(number, SIZE), "sem_seg": labels}


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    config, keys = MODELS[request.param]
    torch.manual_seed(0)
    model = build_model(get_config(config, ["MODEL.DEVICE=cpu", *keys]))
    model.double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.2 * torch.randn(weight.shape)
        if model.ranks:  # with a mean of 0 for each score, images have different rankings
            scores = torch.stack([one["ranking"]["scores"] for one in model(list(samples()))])
            classifier = model.ml_head.fc
            bias = classifier.bias if isinstance(classifier, nn.Linear) else classifier.b
            bias -= scores.mean(0)
    return model


def test_results_of_a_batch_are_those_of_each_image(model):
    batch = list(samples())
    with torch.no_grad():
        together = model(batch)
        alone = [model([one])[0] for one in batch]
    for found, expected in zip(together, alone, strict=True):
        assert found["sem_seg_labels"].equal(expected["sem_seg_labels"])
        names = {"sem_seg", "sem_seg_scores", "sem_seg_classes"} & found.keys()
        assert names == {"sem_seg"} or names == {"sem_seg_scores", "sem_seg_classes"}
        for name in names:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-8)
    if model.ranks:
        orders = {tuple(found["ranking"]["classes"].tolist()) for found in together}
        assert len(orders) == COUNT


def test_losses_and_gradients_of_a_batch_are_the_mean_of_each_image(model):
    """Without dropout, and with stored statistics, by which images do not depend on each other."""
    batch = list(samples())
    model.training = True  # but no part of it
    together, gradients = losses_and_gradients(model, batch)
    parts = [losses_and_gradients(model, [one]) for one in batch]
    model.training = False
    for name, loss in together.items():
        expected = sum(losses[name] for losses, _ in parts) / COUNT
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        expected = sum(found[name] for _, found in parts) / COUNT
        error = torch.linalg.vector_norm(gradient - expected)
        assert error <= 1e-5 * torch.linalg.vector_norm(expected) + 1e-9, name


def losses_and_gradients(model, batch):
    model.zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return losses, found
