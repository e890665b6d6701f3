"""The features that a head is trained on: those of the frozen model, kept in files."""

import numpy as np
import pytest
import torch
from support.small import CLASSES, KINDS, RANKSEG, VIDEO, clip_sample, image_sample, make_model

from rankseg_d2.config import get_config
from rankseg_d2.engine import attaching, features
from rankseg_d2.engine.features import Features, cached_features, scored_by

SIZE = 21  # images of the data set
PLAIN = {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False, "MODEL.RANKSEG.NORM": False}


class Stream:
    """A loader of samples that can start anywhere, and counts those that are read."""

    dataset = range(SIZE)

    def __init__(self, make):
        self.make, self.read = make, 0

    def batches(self, seed, start=0):
        for i in range(start, 1000):
            self.read += features._BATCH
            yield [self.sample(features._BATCH * i + j) for j in range(features._BATCH)]

    def sample(self, number):
        return self.make(number, labels=(number % CLASSES, 2))


@pytest.fixture
def setting(monkeypatch, tmp_path):
    """A model, its stream of samples, and `collect(count, ...)` of their features."""
    monkeypatch.setattr(features, "PART", 8)
    model = make_model(KINDS["maskformer"], RANKSEG, PLAIN).eval()
    stream = Stream(image_sample)
    monkeypatch.setattr(features, "build_train_loader", lambda cfg: stream)
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"weights")

    def collect(count, most_bytes=1e9, cfg=get_config("shapes/panoptic/r10t")):  # noqa: B008
        return cached_features(cfg, model, str(weights), tmp_path / "kept", count, most_bytes)

    return model, stream, collect


@torch.no_grad()
def direct(model, sample):
    """What the head reads of this sample alone, the sample's categories, and scores by masks."""
    seen = []
    handle = model.ml_head.register_forward_pre_hook(lambda head, args: seen.append(args[0]))
    model([{"image": sample["image"]}])
    handle.remove()
    with scored_by(model, (0.0, 1.0)):
        (result,) = model([{"image": sample["image"]}])
    labels = set(sample["instances"].gt_classes.tolist())
    return seen[0][0], labels, result["ranking"]["scores"]


def test_they_are_what_the_head_reads(setting):
    model, stream, collect = setting
    found = collect(11)
    assert found.values.dtype == torch.float16 and found.values.shape[0] == 11
    for number in (0, 7, 8, 10):
        values, present, by_masks = direct(model, stream.sample(number))
        torch.testing.assert_close(found.values[number].float(), values, atol=2e-3, rtol=2e-3)
        assert set(found.present[number].nonzero().flatten().tolist()) == present
        torch.testing.assert_close(found.by_masks[number].float(), by_masks, atol=0.02, rtol=2e-3)


def test_a_second_run_reads_no_image(setting):
    _, stream, collect = setting
    first, stream.read = collect(11), 0
    second = collect(11)
    assert stream.read == 0
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_run_that_was_killed_goes_on_to_the_same_features(setting, tmp_path, monkeypatch):
    _, stream, collect = setting
    whole = collect(SIZE)
    *_, last = sorted((tmp_path / "kept").rglob("*.npz"))
    last.write_bytes(last.read_bytes()[:1000])  # damaged, though files are replaced whole
    stream.read = 0
    again = collect(SIZE)
    assert stream.read == 8  # the samples 16 to 20
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))


def test_more_or_fewer_images_use_the_same_files(setting):
    _, stream, collect = setting
    few = collect(5)
    many = collect(10**6)
    assert len(many.present) == SIZE  # each image once
    stream.read = 0
    torch.testing.assert_close(few.values, many.values[:5], atol=2e-3, rtol=2e-3)
    assert torch.equal(collect(6).values, many.values[:6]) and stream.read == 0


def test_the_memory_limits_the_number(setting):
    *_, collect = setting
    each = collect(8).bytes_each
    assert len(collect(SIZE, most_bytes=12.5 * each).present) == 12
    assert len(collect(SIZE, most_bytes=1).present) == 8  # one part, at least


def test_other_weights_and_configs_have_features_of_their_own(setting, tmp_path):
    _, stream, collect = setting
    collect(8)
    for change in (
        lambda: collect(8, cfg=get_config("shapes/panoptic/r10t", ["MODEL.RANKSEG.LAYER=2"])),
        lambda: (tmp_path / "model.pth").write_bytes(b"other") and collect(8),
    ):
        stream.read = 0
        change()
        assert stream.read == 8
    stream.read = 0
    collect(8, cfg=get_config("shapes/panoptic/r10t", ["SOLVER.MAX_ITER=7", "OUTPUT_DIR=x"]))
    assert stream.read == 0


def test_features_of_clips(setting, monkeypatch, tmp_path):
    model = make_model(KINDS["mask2former"], RANKSEG, PLAIN, VIDEO).eval()
    monkeypatch.setattr(features, "build_train_loader", lambda cfg: Stream(clip_sample))
    cfg = get_config("shapes/video_semantic/r10t")
    found = cached_features(cfg, model, str(tmp_path / "model.pth"), tmp_path, 3, 1e9)
    assert found.values.shape[:1] == (3,)
    assert found.present.nonzero().tolist() == [[0, 0], [0, 2], [1, 1], [1, 2], [2, 2]]


def test_features_of_several_sizes_or_not_finite_are_told():
    part = Features(torch.zeros(2, 4, 3), torch.zeros(2, 5).bool(), torch.zeros(2, 5))
    other = part._replace(values=torch.zeros(2, 6, 3))
    with pytest.raises(ValueError, match="maps of several sizes.*RANKSEG.POOL"):
        features._check([part, other])
    with pytest.raises(FloatingPointError, match="not finite.*check --weights"):
        features._check([part._replace(values=torch.full((2, 4, 3), np.inf))])


def test_the_weights_of_the_scores_come_back_after_an_error(setting):
    model, *_ = setting
    before = model.score_weights
    with pytest.raises(RuntimeError), scored_by(model, (0.0, 1.0)):
        assert model.score_weights == (0.0, 1.0)
        raise RuntimeError
    assert model.score_weights == before


def data_of(count, noise=0.1):
    """Samples whose categories can be read from the channels of their features."""
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(count, CLASSES, generator=generator) < 0.3
    values = torch.rand(count, 4, 16, generator=generator) * noise
    values[:, :, :CLASSES] += present[:, None]
    return Features(values.half(), present, torch.rand(count, CLASSES, generator=generator))


def make_head():
    from rankseg_d2.ranking import PoolingHead

    torch.manual_seed(0)
    return PoolingHead(16, CLASSES, 32)


def test_a_head_learns_from_features():
    from rankseg_d2.ranking import asymmetric_loss

    cfg, data, head = get_config("shapes/panoptic/r10t"), data_of(200), make_head()
    new = data_of(400)
    new = Features(*(tensor[200:] for tensor in new))

    def loss():
        with torch.no_grad():
            return asymmetric_loss(head.eval()(new.values.float()), new.present).item()

    before, map_before = loss(), attaching.mean_ap(head, new)
    found = attaching.train_head(cfg, head, asymmetric_loss, *attaching.split(data), 150, 0.01)
    assert loss() < 0.5 * before
    assert attaching.mean_ap(head, new) > max(95, map_before)
    assert found == pytest.approx(
        attaching.mean_ap(head, Features(*(tensor[-20:] for tensor in data))), abs=1e-4
    )


def test_the_head_keeps_its_best_state():
    def worse_and_worse(scores, present):  # the first check is the best one
        return -torch.nn.functional.binary_cross_entropy_with_logits(scores, present.float())

    cfg, data, head = get_config("shapes/panoptic/r10t"), data_of(40), make_head()
    maps = []
    mean_ap = attaching.mean_ap
    try:
        attaching.mean_ap = lambda *args: maps.append(mean_ap(*args)) or maps[-1]
        best = attaching.train_head(cfg, head, worse_and_worse, *attaching.split(data), 50, 0.01)
    finally:
        attaching.mean_ap = mean_ap
    assert len(maps) == 10 and best == max(maps) > maps[-1]
    assert mean_ap(head, Features(*(tensor[-4:] for tensor in data))) == best


def test_a_tenth_is_held_out():
    parts = attaching.split(data_of(25))
    assert [len(part.present) for part in parts] == [23, 2]
    assert torch.equal(torch.cat([part.values for part in parts]), data_of(25).values)
    with pytest.raises(ValueError, match="one training image is not enough for a head"):
        attaching.split(data_of(1))


def test_the_list_with_the_higher_recall_is_chosen():
    data, head = data_of(20), make_head()
    right = data._replace(by_masks=100 * data.present.half())
    wrong = data._replace(by_masks=-100 * data.present.half())
    assert attaching.better_scores(head, right, 2, (1.0, 1.0)) == "both"
    assert attaching.better_scores(head, wrong, 2, (1.0, 1.0)) == "head"
