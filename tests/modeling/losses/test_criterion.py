
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from support.paths import GOLDEN as FILES
from support.plain_losses import WEIGHTS, plain_losses
from support.small import count_copies

from rankseg_d2.modeling.losses import criterion as module
from rankseg_d2.modeling.losses.criterion import (
    SetCriterion,
    dice_loss,
    sigmoid_ce_loss,
    sigmoid_focal_loss,
)
from rankseg_d2.modeling.losses.matcher import HungarianMatcher
from rankseg_d2.modeling.losses.points import grid_points
from rankseg_d2.modeling.outputs import MaskPredictions

GOLDEN = {
    name: torch.from_numpy(array)
    for name, array in np.load(FILES / "set_loss_units.npz").items()
}
CLASSES = 6


def make_criterion(num_points=64, **options):
    matcher = HungarianMatcher(*WEIGHTS.values(), num_points=num_points)
    return SetCriterion(CLASSES, matcher, WEIGHTS, num_points=num_points, **options)


def make_batch(counts=(3, 0, 5), layers=3, queries=8, frames=2, dtype=torch.float32, seed=0):
    """Outputs with gradients, and targets; masks of 24 x 36 for predictions of 6 x 9."""
    random = torch.Generator().manual_seed(seed)
    batch = len(counts)
    outputs = [
        {
            "pred_logits": torch.randn(
                batch, queries, CLASSES + 1, generator=random, dtype=dtype
            ).requires_grad_(),
            "pred_masks": torch.randn(
                batch, queries, frames, 6, 9, generator=random, dtype=dtype
            ).requires_grad_(),
        }
        for _ in range(layers)
    ]
    targets = [
        {
            "labels": torch.randint(CLASSES, (n,), generator=random),
            "masks": torch.rand(n, frames, 24, 36, generator=random) > 0.5,
        }
        for n in counts
    ]
    return {**outputs[0], "aux_outputs": outputs[1:]}, targets


def predictions(outputs):
    """What a decoder gives: the last layer is the last."""
    layers = [*outputs["aux_outputs"], outputs]
    logits = torch.stack([layer["pred_logits"] for layer in layers])
    return MaskPredictions(torch.empty(0), [x["pred_masks"] for x in layers], [], logits)


def leaves(outputs):
    layers = [outputs, *outputs["aux_outputs"]]
    return [layer[name] for layer in layers for name in ("pred_logits", "pred_masks")]


def gradients(losses, outputs):
    return torch.autograd.grad(sum(losses.values()), leaves(outputs))


def test_golden_mask_losses():
    logits, targets = GOLDEN["mask_loss/logits"], GOLDEN["mask_loss/target"].float()

    def close(loss, name):
        ours = loss(logits, targets).sum() / 3  # the golden values are for 3 masks
        torch.testing.assert_close(ours, GOLDEN[f"mask_loss/{name}"], rtol=1e-6, atol=0)

    close(sigmoid_ce_loss, "sigmoid_ce_loss")
    close(dice_loss, "dice_loss")
    close(dice_loss, "v1_dice_loss")
    close(sigmoid_focal_loss, "v1_sigmoid_focal_loss")


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("chunk", [1, 2**21])
def test_equals_the_loop_over_layers_and_images(frames, chunk, monkeypatch):
    monkeypatch.setattr(module, "chunk_size", lambda tensor: chunk)
    criterion = make_criterion()
    outputs, targets = make_batch(frames=frames)
    points = grid_points(8)
    ours = criterion(predictions(outputs), targets, points)
    plain = plain_losses(outputs, targets, criterion.empty_weight, 64, points)
    assert list(ours) == [f"loss_{n}{s}" for s in ("", "_0", "_1") for n in ("ce", "mask", "dice")]
    for name, loss in plain.items():
        torch.testing.assert_close(ours[name], loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients(ours, outputs), gradients(plain, outputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_random_points_give_the_loop_s_losses_on_average():
    criterion = make_criterion(num_points=400)
    outputs, targets = make_batch(layers=2)
    torch.manual_seed(0)
    with torch.no_grad():
        ours = [sum(criterion(predictions(outputs), targets).values()).item() for _ in range(40)]
        plain = [
            sum(plain_losses(outputs, targets, criterion.empty_weight, 400).values()).item()
            for _ in range(40)
        ]
    error = np.hypot(np.std(ours), np.std(plain)) / np.sqrt(40)
    assert abs(np.mean(ours) - np.mean(plain)) < 4 * error < 0.02 * np.mean(plain)


def test_dense_masks_equal_focal_and_dice_over_all_pixels():
    criterion = make_criterion(num_points=None)
    outputs, targets = make_batch(counts=(4,), layers=1, queries=4, frames=1)
    losses = criterion(predictions(outputs), targets)
    [(queries, objects)] = criterion.matcher(
        outputs["pred_logits"][None], [outputs["pred_masks"]], targets
    )[0]
    masks = F.interpolate(outputs["pred_masks"][0, queries], (24, 36), mode="bilinear").flatten(1)
    true = targets[0]["masks"][objects].float().flatten(1)
    right = torch.where(true == 1, masks.sigmoid(), 1 - masks.sigmoid())
    balance = torch.where(true == 1, 0.25, 0.75)
    focal = (-balance * (1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(losses["loss_mask"], 5 * focal)
    dice = 1 - (2 * (masks.sigmoid() * true).sum(1) + 1) / (
        masks.sigmoid().sum(1) + true.sum(1) + 1
    )
    torch.testing.assert_close(losses["loss_dice"], 5 * dice.mean())


@pytest.mark.parametrize("num_points", [64, None])
def test_equal_frames_count_as_often_as_they_are(num_points):
    criterion = make_criterion(num_points)
    outputs, targets = make_batch(frames=1)
    clip = {
        **{k: v.repeat(1, 1, 3, 1, 1) if k == "pred_masks" else v for k, v in outputs.items()},
        "aux_outputs": [
            layer | {"pred_masks": layer["pred_masks"].repeat(1, 1, 3, 1, 1)}
            for layer in outputs["aux_outputs"]
        ],
    }
    clip_targets = [target | {"masks": target["masks"].repeat(1, 3, 1, 1)} for target in targets]
    points = None if num_points is None else grid_points(8)
    image = criterion(predictions(outputs), targets, points)
    video = criterion(predictions(clip), clip_targets, points)
    for name, loss in image.items():
        # Each frame has a loss of its own: their sum, as in the public reference.
        times = 1 if name.startswith("loss_ce") else 3
        torch.testing.assert_close(video[name], times * loss, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("num_points", [64, None])
def test_a_batch_without_any_object_trains_the_classes_only(num_points):
    criterion = make_criterion(num_points)
    outputs, targets = make_batch(counts=(0, 0))
    losses = criterion(predictions(outputs), targets)
    grads = gradients(losses, outputs)
    for name, loss in losses.items():
        assert loss.isfinite() and loss.requires_grad
        assert (loss == 0) == (not name.startswith("loss_ce")), name
    for logits, masks in zip(grads[::2], grads[1::2], strict=True):
        assert logits.abs().sum() > 0
        assert masks.abs().sum() == 0


@pytest.mark.parametrize("num_points", [64, None])
def test_targets_of_different_sizes_are_padded(num_points):
    criterion = make_criterion(num_points)
    outputs, targets = make_batch(counts=(2, 3))
    targets[0]["masks"] = targets[0]["masks"][..., :20, :30]
    points = None if num_points is None else grid_points(8)
    losses = criterion(predictions(outputs), targets, points)
    targets[0]["masks"] = F.pad(targets[0]["masks"], (0, 6, 0, 4))
    for name, loss in criterion(predictions(outputs), targets, points).items():
        torch.testing.assert_close(losses[name], loss)


@pytest.mark.parametrize("num_points", [64, None])
def test_autocast_and_half_outputs_are_computed_in_float32(num_points):
    criterion = make_criterion(num_points)
    outputs, targets = make_batch(dtype=torch.bfloat16)
    points = None if num_points is None else grid_points(8)
    with torch.autocast("cpu", torch.bfloat16):
        losses = criterion(predictions(outputs), targets, points)
    single = {
        **{k: v.float() for k, v in outputs.items() if k != "aux_outputs"},
        "aux_outputs": [{k: v.float() for k, v in o.items()} for o in outputs["aux_outputs"]],
    }
    for name, loss in criterion(predictions(single), targets, points).items():
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], loss)
    assert all(grad.isfinite().all() for grad in gradients(losses, outputs))


@pytest.mark.parametrize("num_points", [64, None])
def test_gradcheck(num_points):
    criterion = make_criterion(num_points)
    outputs, targets = make_batch((2, 1), layers=2, queries=3, frames=1, dtype=torch.float64)
    names = ("pred_logits", "pred_masks")

    def total(*tensors):
        layers = [dict(zip(names, tensors[i : i + 2], strict=True)) for i in (0, 2)]
        outputs = predictions({**layers[0], "aux_outputs": layers[1:]})
        losses = criterion(outputs, targets, grid_points(8))
        return sum(losses.values())

    assert torch.autograd.gradcheck(total, leaves(outputs))


def test_class_loss_is_the_weighted_mean_over_all_queries():
    criterion = make_criterion(no_object_weight=0.3)
    outputs, targets = make_batch(counts=(2, 0), layers=1)
    logits = outputs["pred_logits"]
    [(queries, objects), _] = criterion.matcher(
        logits[None], [outputs["pred_masks"]], targets, grid_points(8)
    )[0]
    loss = criterion(predictions(outputs), targets, grid_points(8))["loss_ce"]
    classes = torch.full(logits.shape[:2], CLASSES)
    classes[0, queries] = targets[0]["labels"][objects]
    weights = torch.tensor([1.0] * CLASSES + [0.3])
    torch.testing.assert_close(loss, 2 * F.cross_entropy(logits.mT, classes, weights))


def test_ranked_logits_with_fewer_columns_end_with_no_object():
    """Three ranks of six classes: as if the criterion knew three classes only."""
    outputs, targets = make_batch()
    for layer in (outputs, *outputs["aux_outputs"]):
        layer["pred_logits"] = layer["pred_logits"][..., -4:]
    for target in targets:
        target["labels"] = target["labels"] % 3
    small = SetCriterion(3, make_criterion().matcher, WEIGHTS, num_points=64)
    expected = small(predictions(outputs), targets, grid_points(8))
    for name, loss in make_criterion()(predictions(outputs), targets, grid_points(8)).items():
        torch.testing.assert_close(loss, expected[name])


def test_the_buffer_is_named_as_in_public_checkpoints():
    state = make_criterion(no_object_weight=0.1).state_dict()
    assert list(state) == ["empty_weight"]
    assert state["empty_weight"].tolist() == pytest.approx([1] * CLASSES + [0.1])


def test_without_deep_supervision_only_the_last_layer_has_losses():
    outputs, targets = make_batch()
    criterion = make_criterion(deep_supervision=False)
    assert set(criterion(predictions(outputs), targets)) == {"loss_ce", "loss_mask", "loss_dice"}


def test_masks_are_averaged_over_ranks(monkeypatch):
    """This rank has 8 objects, the other none: each divides by 4."""
    criterion = make_criterion()
    outputs, targets = make_batch()
    alone = criterion(predictions(outputs), targets, grid_points(8))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    both = criterion(predictions(outputs), targets, grid_points(8))
    torch.testing.assert_close(both["loss_ce"], alone["loss_ce"])
    torch.testing.assert_close(both["loss_mask_1"], 2 * alone["loss_mask_1"])
    torch.testing.assert_close(both["loss_dice"], 2 * alone["loss_dice"])


def test_ratios_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="OVERSAMPLE_RATIO must be at least 1 .* 0.5 and 0.75"):
        make_criterion(oversample_ratio=0.5)
    with pytest.raises(ValueError, match=r"IMPORTANCE_SAMPLE_RATIO within \[0, 1\]"):
        make_criterion(importance_ratio=1.5)


@pytest.mark.parametrize("num_points", [64, None])
def test_one_copy_to_the_host_for_all_layers_and_images(num_points, monkeypatch):
    outputs, targets = make_batch()
    criterion = make_criterion(num_points)
    copies = count_copies(monkeypatch)
    sum(criterion(predictions(outputs), targets).values()).backward()
    assert len(copies) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("num_points", [64, None])
def test_gpu_waits_once_and_equals_cpu(num_points):
    criterion = make_criterion(num_points)
    outputs, targets = make_batch()
    points = None if num_points is None else grid_points(8)
    expected = criterion(predictions(outputs), targets, points)

    def to_gpu(layer):
        return {k: v.cuda() for k, v in layer.items() if k != "aux_outputs"}

    on_gpu = to_gpu(outputs) | {"aux_outputs": [to_gpu(o) for o in outputs["aux_outputs"]]}
    targets = [to_gpu(target) for target in targets]
    points = None if points is None else points.cuda()
    criterion.cuda()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as warnings:
            losses = criterion(predictions(on_gpu), targets, points)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in warnings) <= 2
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name].cpu(), loss, rtol=1e-4, atol=1e-5)
