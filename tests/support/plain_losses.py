"""The set loss the simple way: a loop over layers and images."""

import torch
import torch.nn.functional as F

OVERSAMPLE, IMPORTANCE = 3.0, 0.75
WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}


def plain_losses(outputs, targets, class_weights, num_points, points=None):
    """Losses by name, the simple way: each layer and each image on its own."""
    num_masks = max(sum(len(target["labels"]) for target in targets), 1)
    layers = [outputs, *outputs.get("aux_outputs", ())]
    losses = {}
    for i, layer in enumerate(layers):
        suffix = f"_{i - 1}" if i else ""
        pairs = [
            plain_match(logits, masks, target, num_points, points)
            for logits, masks, target in zip(
                layer["pred_logits"], layer["pred_masks"], targets, strict=True
            )
        ]
        loss_ce = plain_class_loss(layer["pred_logits"], targets, pairs, class_weights)
        loss_mask, loss_dice = plain_mask_losses(
            layer["pred_masks"], targets, pairs, num_points, points
        )
        losses["loss_ce" + suffix] = WEIGHTS["loss_ce"] * loss_ce
        losses["loss_mask" + suffix] = WEIGHTS["loss_mask"] * loss_mask / num_masks
        losses["loss_dice" + suffix] = WEIGHTS["loss_dice"] * loss_dice / num_masks
    return losses


@torch.no_grad()
def plain_match(logits, masks, target, num_points, points):
    """(query, object) of one image in one layer."""
    from scipy.optimize import linear_sum_assignment

    if points is None:
        points = torch.rand(num_points, 2, device=logits.device)
    predicted = sample(masks, points.expand(len(masks), -1, -1)).flatten(1)
    true_masks = target["masks"].to(masks)
    true = sample(true_masks, points.expand(len(true_masks), -1, -1)).flatten(1)

    class_cost = -logits.softmax(-1)[:, target["labels"]]
    if_one = F.binary_cross_entropy_with_logits(
        predicted, torch.ones_like(predicted), reduction="none"
    )
    if_zero = F.binary_cross_entropy_with_logits(
        predicted, torch.zeros_like(predicted), reduction="none"
    )
    mask_cost = (if_one @ true.T + if_zero @ (1 - true).T) / predicted.shape[1]
    probability = predicted.sigmoid()
    dice_cost = 1 - (2 * probability @ true.T + 1) / (
        probability.sum(1)[:, None] + true.sum(1)[None] + 1
    )
    cost = (
        WEIGHTS["loss_ce"] * class_cost
        + WEIGHTS["loss_mask"] * mask_cost
        + WEIGHTS["loss_dice"] * dice_cost
    )
    return linear_sum_assignment(cost.cpu().numpy())


def plain_class_loss(logits, targets, pairs, class_weights):
    classes = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
    for image, (target, (queries, objects)) in enumerate(zip(targets, pairs, strict=True)):
        classes[image, queries] = target["labels"][objects]
    return F.cross_entropy(logits.transpose(1, 2), classes, class_weights)


def plain_mask_losses(masks, targets, pairs, num_points, points):
    """Mask and dice loss of one layer, summed over its pairs and frames."""
    queries = torch.cat([torch.from_numpy(queries) for queries, _ in pairs])
    images = torch.tensor([len(queries) for queries, _ in pairs])
    images = torch.arange(len(pairs)).repeat_interleave(images)
    matched = masks[images.to(masks.device), queries.to(masks.device)]
    true = torch.cat(
        [target["masks"][objects] for target, (_, objects) in zip(targets, pairs, strict=True)]
    )
    matched, true = matched.flatten(0, 1)[:, None], true.flatten(0, 1)[:, None].to(masks)
    with torch.no_grad():
        if points is None:
            points = uncertain_points(matched, num_points)
        else:
            points = points.expand(len(matched), -1, -1)
        true = sample(true, points).squeeze(1)
    matched = sample(matched, points).squeeze(1)
    loss_mask = F.binary_cross_entropy_with_logits(matched, true, reduction="none").mean(1).sum()
    probability = matched.sigmoid()
    overlap = 2 * (probability * true).sum(1)
    loss_dice = 1 - (overlap + 1) / (probability.sum(1) + true.sum(1) + 1)
    return loss_mask, loss_dice.sum()


def uncertain_points(masks, num_points):
    """Points that each mask draws for itself: (N, 1, h, w) -> (N, P, 2)."""
    candidates = torch.rand(len(masks), int(OVERSAMPLE * num_points), 2, device=masks.device)
    certainty = sample(masks, candidates)[:, 0].abs()
    num_uncertain = int(IMPORTANCE * num_points)
    chosen = (-certainty).topk(num_uncertain, dim=1).indices
    points = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    others = torch.rand(len(masks), num_points - num_uncertain, 2, device=masks.device)
    return torch.cat([points, others], dim=1)


def sample(masks, points):
    return F.grid_sample(masks, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)
