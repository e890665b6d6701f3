
import numpy as np
import pytest
import torch
from support.paths import GOLDEN as DATA

from rankseg_d2.ranking import (
    LOSSES,
    BalancedAsymmetricLoss,
    asymmetric_loss,
    binary_cross_entropy,
    build_loss,
    class_ap,
    label_ranking_ap,
    multi_hot,
    precision_at_k,
    rank,
    rank_from_labels,
    rank_histogram,
    ranking_loss,
    recall_at_k,
    two_way_loss,
)
from rankseg_d2.ranking.ranking import Ranking


@pytest.fixture(scope="module")
def golden():
    return {k: torch.from_numpy(v) for k, v in np.load(DATA / "ranking_units.npz").items()}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(5, 9, generator=generator, dtype=torch.float64)
    return logits, torch.rand(5, 9, generator=generator) < 0.3


@pytest.mark.parametrize(("gamma_neg", "gamma_pos"), [(2, 0), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_asymmetric_loss_and_its_gradient_equal_golden(golden, gamma_neg, gamma_pos, dtype):
    prefix, suffix = f"asl/{gamma_neg}_{gamma_pos}/", "_f64" if dtype == torch.float64 else ""
    logits = golden["asl/x"].to(dtype, copy=True).requires_grad_()
    loss = asymmetric_loss(logits, golden["asl/y"], gamma_neg, gamma_pos)
    rtol = 1e-12 if suffix else 1e-6
    torch.testing.assert_close(loss, golden[f"{prefix}loss{suffix}"], rtol=rtol, atol=0)
    loss.backward()
    expected = golden[f"{prefix}grad_x{suffix}"]
    torch.testing.assert_close(logits.grad, expected, rtol=rtol, atol=rtol * expected.abs().max())


def test_asymmetric_loss_of_the_whole_model_equals_golden():
    golden = np.load(DATA / "ranking_restrict.npz")
    logits, target, value = (
        torch.from_numpy(golden[f"video_rankseg_r50_vspw/asl/{k}"])
        for k in ("input", "target", "output")
    )
    torch.testing.assert_close(asymmetric_loss(logits, target), value, rtol=1e-6, atol=0)


def test_shifted_bce_is_bce_of_absent_categories_that_are_less_probable_by_the_shift(batch):
    logits, targets = batch
    prob = logits.sigmoid()
    likelihood = torch.where(targets, prob, (1 - prob + 0.05).clamp(max=1))
    torch.testing.assert_close(LOSSES["shifted_bce"](logits, targets), -likelihood.log().mean())


def test_bce_equals_its_definition(batch):
    logits, targets = batch
    prob = logits.sigmoid()
    expected = -torch.where(targets, prob, 1 - prob).log().mean()
    torch.testing.assert_close(binary_cross_entropy(logits, targets), expected)


def two_way_by_loops(logits, targets):
    """The definition, row by row and column by column."""
    total = 0
    for table, present in ((logits, targets), (logits.T, targets.T)):
        terms = []
        for row, own in zip(table, present, strict=True):
            if own.any():
                absent = row[~own].exp().sum().log() if (~own).any() else torch.tensor(-torch.inf)
                low = 4 * (-row[own] / 4).exp().sum().log()
                terms.append((1 + (absent + low).exp()).log())
        total = total + (torch.stack(terms).mean() if terms else 0)
    return total


@pytest.mark.parametrize("case", ["usual", "image without", "category without", "all present"])
def test_two_way_loss_equals_loops(batch, case):
    logits, targets = batch
    if case == "image without":
        targets[1] = False
    if case == "category without":
        targets[:, 4] = False
    if case == "all present":
        targets[2] = targets[:, 3] = True
    torch.testing.assert_close(two_way_loss(logits, targets), two_way_by_loops(logits, targets))


def test_two_way_loss_knows_only_differences_and_ranking_loss_knows_zero(batch):
    logits, targets = batch
    torch.testing.assert_close(two_way_loss(logits + 2, targets), two_way_loss(logits, targets))
    assert (ranking_loss(logits + 2, targets) - ranking_loss(logits, targets)).abs() > 0.1


@pytest.mark.parametrize("without", [False, True])
def test_ranking_loss_equals_its_definition(batch, without):
    logits, targets = batch
    if without:
        targets[1] = False
    absent = torch.log(1 + (logits.exp() * ~targets).sum(1))
    present = torch.log(1 + ((-logits).exp() * targets).sum(1))
    torch.testing.assert_close(ranking_loss(logits, targets), (absent + present).mean())


@pytest.mark.parametrize("name", ["ranking", "two_way"])
def test_the_worst_scores_get_the_gradient(name):
    logits = torch.tensor([[9.0, 1.0, -2.0, 5.0, -7.0]], requires_grad=True)
    LOSSES[name](logits, torch.tensor([[0, 0, 0, 1, 1]])).backward()
    assert logits.grad[0, :3].argmax() == 0 and (logits.grad[0, :3] > 0).all()
    assert logits.grad[0, 4] < logits.grad[0, 3] < 0


def test_balanced_loss_weighs_what_is_present_by_the_root_of_its_frequency(batch):
    logits, targets = batch
    loss = BalancedAsymmetricLoss(9).eval()
    torch.testing.assert_close(loss(logits, targets), asymmetric_loss(logits, targets))
    loss.images.copy_(torch.tensor([0, 3, 8, 15, 24, 35, 48, 63, 80]))
    roots = np.arange(1, 10)  # of one more than the images
    weights = 1 / roots * (roots**2).sum() / roots.sum()
    close = dict(rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.weights().double(), torch.from_numpy(weights), **close)
    prob = logits.sigmoid()
    not_prob = (1.05 - prob).clamp(max=1)
    expected = torch.where(
        targets, torch.from_numpy(weights) * prob.log(), (1 - not_prob) ** 2 * not_prob.log()
    )
    torch.testing.assert_close(loss(logits, targets), -expected.mean(), **close)


def test_no_weight_of_the_balanced_loss_is_above_10():
    loss = BalancedAsymmetricLoss(50)
    loss.images[:25] = 10**6
    assert loss.weights().max() == 10 and loss.weights().min() > 0.9


def test_balanced_loss_counts_images_in_training_only_and_saves_them(batch):
    logits, targets = batch
    loss = BalancedAsymmetricLoss(9)
    loss(logits, targets), loss(logits[:2], targets[:2])
    expected = targets.sum(0) + targets[:2].sum(0)
    assert torch.equal(loss.images, expected)
    other = BalancedAsymmetricLoss(9)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(logits, targets), loss(logits, targets))
    before = loss.images.clone()
    loss.eval()(logits, targets)
    assert torch.equal(loss.images, before)


def count_in_a_process(rank, file, found):
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    loss = BalancedAsymmetricLoss(3)
    loss(torch.zeros(2, 3), torch.tensor([[1, 0, rank], [1, 0, 0]]))
    found[rank] = loss.images.tolist()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_balanced_loss_counts_the_images_of_all_processes(tmp_path):
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        found = manager.dict()
        torch.multiprocessing.spawn(count_in_a_process, (tmp_path / "store", found), 2)
        assert dict(found) == {0: [4, 0, 1], 1: [4, 0, 1]}


def make_loss(name, categories=9):
    """A loss that does not go on counting."""
    loss = build_loss(name, categories)
    return loss.eval() if isinstance(loss, torch.nn.Module) else loss


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(batch, name):
    logits, targets = batch
    loss = make_loss(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [-1e4, -20.0, 0.0, 20.0, 1e4])
@pytest.mark.parametrize("targets", [[[1, 0, 1], [0, 0, 0]], [[0] * 3] * 2, [[1] * 3] * 2])
def test_extreme_logits_give_finite_losses_and_gradients(name, value, targets):
    logits = torch.full((2, 3), value, requires_grad=True)
    loss = make_loss(name, 3)(logits, torch.tensor(targets))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_computed_in_float32(name, batch):
    logits, targets = batch[0].bfloat16(), batch[1]
    with torch.autocast("cpu", torch.bfloat16):
        loss = make_loss(name)(logits, targets)
    assert loss.dtype == torch.float32
    expected = make_loss(name)(logits.float(), targets)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_batch_costs_nothing(name):
    assert make_loss(name)(torch.zeros(0, 9), torch.zeros(0, 9)) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_targets_of_another_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"\(2, 9\) and \(2, 8\); is NUM_CLASSES"):
        make_loss(name)(torch.zeros(2, 9), torch.zeros(2, 8))


def test_multi_hot_of_labels():
    labels = [torch.tensor([3, 0, 3]), torch.zeros(0, dtype=torch.long), torch.tensor([4])]
    expected = [[1, 0, 0, 1, 0], [0] * 5, [0, 0, 0, 0, 1]]
    assert multi_hot(labels, 5).int().tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "ignore"), [(torch.uint8, 255), (torch.int32, 65535), (torch.int64, -1)]
)
def test_multi_hot_of_label_maps_keeps_a_single_pixel_and_passes_over_ignore(dtype, ignore):
    large = torch.full((40, 50), ignore, dtype=dtype)
    large[17, 31] = 2
    small = torch.tensor([[1, ignore]], dtype=dtype)
    assert multi_hot([large, small], 4).int().tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]


def test_multi_hot_of_no_image():
    assert multi_hot([], 5).shape == (0, 5)


@pytest.mark.parametrize("name", ["hist", "hist_row3_empty"])
def test_metrics_equal_golden_where_there_is_ground_truth(golden, name):
    scores, present = golden["metric/img_pred"], golden[f"metric/{name}"] > 0
    # the reference's kept categories are its own input, with and without a mask (by category)
    index = golden["metric/topk_label"].long()
    ranking = Ranking(scores, index)
    masked = Ranking(scores, index, golden["metric/mask"].bool().gather(1, index))
    recall, ap = recall_at_k(ranking, present), label_ranking_ap(scores, present)
    masked_precision = precision_at_k(masked, present)
    for i in range(6):
        value = {m: golden[f"value/img_{m}/{name}/row{i}"] for m in ("recall", "average_precision")}
        value["precision"] = golden[f"value/img_precision/{name}/mask/row{i}"]
        assert masked_precision[i].item() == pytest.approx(value["precision"].item(), abs=1e-6)
        if present[i].any():
            assert recall[i].item() == pytest.approx(value["recall"].item(), abs=1e-6)
            assert ap[i].item() == pytest.approx(value["average_precision"].item(), abs=1e-6)
        else:
            assert recall[i].isnan()
            assert ap[i].isnan()
    close = dict(abs=1e-6)
    precision = precision_at_k(ranking, present).mean().item()
    assert precision == pytest.approx(golden[f"value/img_precision/{name}"].item(), **close)
    expected = golden[f"value/img_average_precision/{name}"].item()
    assert ap.nanmean().item() == pytest.approx(expected, **close)
    masked_recall = recall_at_k(masked, present).nanmean().item()
    assert masked_recall == pytest.approx(golden[f"value/img_recall/{name}/mask"].item(), **close)


def brute_force_ap(scores, present):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    hits, precisions = 0, []
    for count, i in enumerate(order, 1):
        if present[i]:
            hits += 1
            precisions.append(hits / count)
    return sum(precisions) / len(precisions) if precisions else float("nan")


@pytest.mark.parametrize("ties", [False, True])
def test_average_precisions_equal_a_loop(ties):
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(7, 12, generator=generator)
    scores = scores.round() if ties else scores
    present = torch.rand(7, 12, generator=generator) < 0.2
    present[:, 4] = present[2] = False
    per_image = [brute_force_ap(scores[i].tolist(), present[i]) for i in range(7)]
    per_class = [brute_force_ap(scores[:, c].tolist(), present[:, c]) for c in range(12)]
    close = dict(rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(label_ranking_ap(scores, present), torch.tensor(per_image), **close)
    torch.testing.assert_close(class_ap(scores, present), torch.tensor(per_class), **close)


def test_perfect_scores_give_perfect_metrics():
    present = torch.rand(6, 20, generator=torch.Generator().manual_seed(0)) < 0.2
    present[:, 0] = True
    ranking = rank_from_labels(present, 20)
    assert (recall_at_k(ranking, present) == 1).all()
    assert (precision_at_k(ranking, present) == 1).all()
    assert (label_ranking_ap(ranking.scores, present) == 1).all()


def test_rank_histogram_gives_the_recall_at_every_k(batch):
    scores, present = batch
    histogram = rank_histogram(scores, present)
    assert histogram.sum() == present.sum()
    for k in range(1, 10):
        kept = present.gather(1, rank(scores, k).index).sum()
        assert histogram[:k].sum() == kept


def test_an_image_without_ground_truth_has_precision_0_and_nothing_else():
    scores, present = torch.randn(1, 9), torch.zeros(1, 9, dtype=torch.bool)
    ranking = rank(scores, 3)
    assert precision_at_k(ranking, present) == 0
    assert recall_at_k(ranking, present).isnan()
    assert label_ranking_ap(scores, present).isnan()


def test_precision_counts_only_valid_ranks():
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.0]])
    present = torch.tensor([[1, 0, 1, 0]])
    assert precision_at_k(rank(scores, 3), present).item() == pytest.approx(2 / 3)
    assert precision_at_k(rank(scores, 3, threshold=0.5), present) == 0.5
    assert recall_at_k(rank(scores, 3, threshold=0.5), present) == 0.5
