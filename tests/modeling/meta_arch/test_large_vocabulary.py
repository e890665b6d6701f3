"""Ten thousand categories: nothing is quadratic in them, and no tensor has all of all pixels."""

import pytest
import torch
from support.sizes import Sizes
from support.small import (
    CLASSES,
    MASK2FORMER,
    RANKSEG,
    VIDEO,
    evaluate,
    image_sample,
    make_config,
    make_model,
    make_sample,
    train,
    without_gradient,
)
from torch import nn

from rankseg_d2 import build_model
from rankseg_d2.checkpoints import adapt

MANY, WIDTH = 10_000, 64
GROUP = {"MODEL.RANKSEG.HEAD": "group", "MODEL.RANKSEG.GROUPS": 3}
BALANCED = {"MODEL.RANKSEG.LOSS": "balanced_asymmetric"}


def classes(count):
    return {"MODEL.SEM_SEG_HEAD.NUM_CLASSES": count}


def make_large():
    automatic = {"MODEL.RANKSEG.GROUPS": 0, "MODEL.RANKSEG.KEEP_TRUE": True}
    return build_model(make_config(MASK2FORMER, RANKSEG, GROUP, automatic, classes(MANY)))


def samples():
    """Two images with a few of many categories, and one without any."""
    return [image_sample(i, labels) for i, labels in enumerate([(3, 9_999), (5_000, 7, 3), ()])]


def test_the_largest_tensor_of_a_step_is_the_heads_weight():
    model = make_large()
    with Sizes() as sizes:
        train(model, samples())
    assert sizes.largest["float"] == MANY * WIDTH  # copied once for its groups; the gradient
    assert sizes.largest["integer"] <= 3 * MANY * 3  # labels and sorted scores of the images


def test_prediction_makes_no_tensor_with_all_categories_of_all_pixels():
    model = make_large()
    with Sizes() as sizes:
        results = evaluate(model, [{"image": one["image"]} for one in samples()])
    assert sizes.largest["float"] == MANY * WIDTH < MANY * 64 * 96
    assert all(len(result["sem_seg_scores"]) == 4 for result in results)


@pytest.mark.parametrize("video", [{}, VIDEO], ids=["image", "video"])
@pytest.mark.parametrize("loss", ["asymmetric", "balanced_asymmetric", "ranking", "two_way"])
def test_every_parameter_gets_a_gradient(video, loss):
    model = make_model(MASK2FORMER, RANKSEG, GROUP, {"MODEL.RANKSEG.LOSS": loss}, video)
    labels = range(1, CLASSES), range(CLASSES - 1)  # a category is absent from each sample
    train(model, [make_sample(model, number, labels=some) for number, some in enumerate(labels)])
    assert without_gradient(model) == []
    assert model.no_weight_decay() == {"ml_head.group_emb"}


def test_the_counts_of_the_balanced_loss_are_a_part_of_the_model():
    model, other = (build_model(make_config(MASK2FORMER, RANKSEG, BALANCED)) for _ in range(2))
    train(model, [image_sample(0, (1, 3, 3)), image_sample(1, (3,))])
    assert model.state_dict()["ml_loss.images"].tolist() == [0, 1, 0, 2, 0, 0, 0]
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.ranker.loss.weights(), model.ranker.loss.weights())
    plain = build_model(make_config(MASK2FORMER, RANKSEG))
    assert not [name for name in plain.state_dict() if name.startswith("ml_loss")]


def test_a_model_for_other_classes_takes_over_the_scores_of_those_with_the_same_name():
    old, new = (
        build_model(make_config(MASK2FORMER, RANKSEG, GROUP, BALANCED, classes(count)))
        for count in (7, 5)
    )
    nn.init.normal_(old.ml_head.fc.W)
    old.ml_loss.images += torch.arange(7)
    names, own = list("abcdefg"), ["g", "x", "a", "e", "c"]
    found = adapt(old.state_dict(), new.state_dict(), names, own, new.checkpoint_rows())
    assert not found.refused
    new.load_state_dict(found.weights)
    assert new.ml_loss.images.tolist() == [6, 0, 0, 4, 2]
    before, after = (evaluate(model, [image_sample()])[0]["ranking"] for model in (old, new))
    for i, name in enumerate(own):
        if name in names:
            expected = before["scores"][names.index(name)]
            torch.testing.assert_close(after["scores"][i], expected)
