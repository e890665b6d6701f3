"""CondInst as a whole: losses, gradients, results, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from detectron2.modeling import build_model
from support.small import evaluate, image_sample, make_config, without_gradient

from rankseg_d2.modeling.meta_arch import CondInst

KEYS = {
    "MODEL.META_ARCHITECTURE": "CondInst",
    "MODEL.SEM_SEG_HEAD.NAME": "CondInstHead",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 1,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4"],
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 64,  # with 32, a group of a map of one pixel has one value
    "MODEL.CONDINST.NUM_CONVS": 1,
    "MODEL.CONDINST.MASK_WIDTH": 16,
    "MODEL.CONDINST.SIZES": [16, 32, 64, 128],
    "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": False,
    "MODEL.MASK_FORMER.TEST.ENTITY_ON": True,
}
LOSSES = {"loss_cls", "loss_box", "loss_center", "loss_mask", "loss_overlap"}


def make(**keys):
    torch.manual_seed(0)
    keys = {key.replace("__", "."): value for key, value in keys.items()}
    return build_model(make_config(KEYS, keys))


def sample(number=0, count=3, **more):
    return image_sample(number, [0] * count, **more)


def losses_of(model, samples):
    losses = model.train()(samples)
    model.zero_grad()
    sum(losses.values()).backward()
    return {name: value.item() for name, value in losses.items()}


def test_every_parameter_gets_a_gradient():
    model = make()
    assert isinstance(model, CondInst)
    losses = losses_of(model, [sample(0), sample(1, 2, size=(64, 64))])
    assert losses.keys() == LOSSES and all(value > 0 for value in losses.values())
    unused = {f"backbone.convs.4.{name}" for name in ("weight", "bias")}  # of res5
    assert set(without_gradient(model)) == unused


def test_losses_fall_and_the_objects_are_found():
    model = make()
    for module in model.modules():  # whose statistics would be wrong after so few steps
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    one = sample(count=2, size=(48, 64))
    masks = one["instances"].gt_masks
    masks[:] = False
    masks[0, 4:40, 4:26] = masks[1, 8:44, 34:60] = True
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    first = losses_of(model, [one])
    for _ in range(25):
        last = losses_of(model, [one])
        optimizer.step()
    assert all(last[name] < first[name] for name in LOSSES), (first, last)
    found = evaluate(model, [one])[0]["instances"].pred_masks
    for mask in masks:
        overlaps = (found & mask).flatten(1).sum(1) / (found | mask).flatten(1).sum(1)
        assert overlaps.max() > 0.5, overlaps


def test_one_image_of_32_pixels_trains():
    losses = losses_of(make(), [sample(count=1, size=(32, 32))])
    assert losses.keys() == LOSSES


def test_images_without_objects_have_losses_and_gradients():
    model = make()
    losses = losses_of(model, [sample(count=0), sample(1, count=0)])
    assert losses["loss_cls"] > 0
    assert {name for name, value in losses.items() if value} == {"loss_cls"}
    head = model.sem_seg_head.parameters()
    assert all(parameter.grad is not None for parameter in head)  # as other processes expect


def test_an_image_without_objects_beside_another_changes_only_the_classes():
    torch.manual_seed(0)
    model = make()
    model.train()
    for module in model.modules():  # whose statistics are of the batch
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    alone = {name: value.item() for name, value in model([sample()]).items()}
    both = {name: value.item() for name, value in model([sample(), sample(1, 0)]).items()}
    for name in LOSSES - {"loss_cls"}:
        assert both[name] == pytest.approx(alone[name], rel=1e-4), name
    assert both["loss_cls"] > alone["loss_cls"]


def test_masks_are_learnt_at_a_limited_number_of_locations():
    model = make(MODEL__CONDINST__MAX_PROPOSALS=2)
    counts = []
    draw = model.draw
    model.draw = lambda outputs, images, *more: counts.append(len(images)) or draw(
        outputs, images, *more
    )
    losses_of(model, [sample()])
    assert counts == [2]


@pytest.mark.parametrize("size", [(64, 96), (51, 77), (33, 40)])
def test_results_do_not_overlap_and_have_the_size_of_the_image(size):
    model = make(MODEL__CONDINST__SCORE_THRESHOLD=0.0, MODEL__CONDINST__NMS_THRESHOLD=0.9)
    found = evaluate(model, [sample(size=size, height=90, width=70)])[0]["instances"]
    assert found.image_size == (90, 70) and found.pred_masks.shape[1:] == (90, 70)
    assert len(found) <= 100 and found.pred_masks.sum(0).max() <= 1
    assert (found.scores[:-1] >= found.scores[1:]).all()
    assert (found.pred_classes == 0).all()
    boxes = found.pred_boxes.tensor
    assert ((boxes[:, 2:] - boxes[:, :2]) > 1).all()


def test_nothing_is_found_where_no_class_is_probable():
    model = make()
    found = evaluate(model, [sample(), sample(1)])
    assert [len(one["instances"]) for one in found] == [0, 0]  # the first probability is 0.01
    assert found[0]["instances"].pred_masks.shape == (0, 64, 96)


def test_rescoring_multiplies_by_the_mean_probability_of_the_mask():
    keys = {"MODEL__CONDINST__SCORE_THRESHOLD": 0.0}
    plain = evaluate(make(**keys), [sample()])[0]["instances"]
    keys["MODEL__MASK_FORMER__TEST__MASK_RESCORE"] = True
    rescored = evaluate(make(**keys), [sample()])[0]["instances"]
    assert len(rescored) == len(plain)
    assert (rescored.scores.sort().values < plain.scores.sort().values).all()
    assert (rescored.scores > plain.scores.min() * 0.5).all()  # all probabilities are above 0.5


def test_with_classes_it_gives_instances_that_may_overlap():
    model = make(**{
        "MODEL__SEM_SEG_HEAD__NUM_CLASSES": 3,
        "MODEL__MASK_FORMER__TEST__ENTITY_ON": False,
        "MODEL__MASK_FORMER__TEST__INSTANCE_ON": True,
        "MODEL__CONDINST__SCORE_THRESHOLD": 0.0,
    })
    assert losses_of(model, [image_sample(0, [0, 2])]).keys() == LOSSES
    found = evaluate(model, [sample()])[0]["instances"]
    assert set(found.pred_classes.tolist()) <= {0, 1, 2}
    assert found.pred_masks.sum(0).max() > 1
    model.result_options = replace(model.result_options, excluded=frozenset({0, 2}))
    assert set(evaluate(model, [sample()])[0]["instances"].pred_classes.tolist()) == {1}


def test_the_baseline_has_neither_bank_nor_the_loss_against_overlap():
    model = make(MODEL__CONDINST__DYNAMIC_BANK=False, MODEL__CONDINST__OVERLAP_WEIGHT=0.0)
    assert losses_of(model, [sample()]).keys() == LOSSES - {"loss_overlap"}
    assert not [name for name, _ in model.named_parameters() if "static" in name]


@pytest.mark.parametrize(("keys", "message"), [
    ({"MODEL__RANKSEG__FLAG": True, "MODEL__RANKSEG__TOPK": 1}, "CondInst ranks no categories"),
    ({"MODEL__MASK_FORMER__TEST__ENTITY_ON": False,
      "MODEL__MASK_FORMER__TEST__SEMANTIC_ON": True}, "CondInst gives objects alone"),
    ({"MODEL__MASK_FORMER__TEST__INSTANCE_ON": True}, "ENTITY_ON is for models of one class"),
    ({"MODEL__SEM_SEG_HEAD__IN_FEATURES": ["res3", "res5"]}, "3 features, each of twice"),
    ({"MODEL__SEM_SEG_HEAD__IN_FEATURES": ["res3", "res9"]}, "has res9, but the backbone gives"),
    ({"MODEL__SEM_SEG_HEAD__NAME": "MaskFormerHead"}, "needs CondInstHead"),
    ({"MODEL__CONDINST__SIZES": [64, 32, 128, 256]}, "SIZES must ascend"),
])  # fmt: skip
def test_what_cannot_work_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        make(**keys)


@pytest.mark.parametrize("name", ["VideoMaskFormer", "PixelClassifier"])
def test_models_without_entities_or_persons_say_so(name):
    keys = {"MODEL__META_ARCHITECTURE": name, "MODEL__SEM_SEG_HEAD__NAME": "MaskFormerHead"}
    with pytest.raises(ValueError, match=f"^{name} gives no entities; set .*ENTITY_ON False"):
        make(**keys)
    test = "MODEL__MASK_FORMER__TEST__"
    keys |= {f"{test}ENTITY_ON": False, f"{test}PARSING_ON": True}
    with pytest.raises(ValueError, match=f"^{name} gives no persons .*; set .*PARSING_ON False"):
        make(**keys)


def test_half_precision_has_nearly_the_same_losses():
    model = make().train()
    torch.manual_seed(0)
    expected = model([sample()])
    with torch.autocast("cpu", torch.bfloat16):
        found = model([sample()])
    for name in LOSSES:
        assert found[name].dtype == torch.float32
        assert found[name].item() == pytest.approx(expected[name].item(), rel=0.05), name


def test_other_models_refuse_its_head():
    keys = {"MODEL__META_ARCHITECTURE": "MaskFormer"}
    with pytest.raises(ValueError, match="NAME is CondInstHead, which does not classify masks"):
        make(**keys)
