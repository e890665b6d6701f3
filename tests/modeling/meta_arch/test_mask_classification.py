import copy
import pickle
import shutil

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from support.small import (
    BASE,
    CLASSES,
    KINDS,
    MASK2FORMER,
    MASKFORMER,
    RANKSEG,
    VIDEO,
    evaluate,
    image_sample,
    make_config,
    make_model,
    make_sample,
    picture,
    rectangles,
    scores_of,
    train,
    without_gradient,
)
from torch.nn import functional as F

from rankseg_d2.config import get_config
from rankseg_d2.modeling.clips import clip_targets, image_targets
from rankseg_d2.modeling.meta_arch.mask_classification import MaskFormer, VideoMaskFormer

BOTH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
META_ARCHITECTURES = {
    "MaskFormer": {},
    "VideoMaskFormer": VIDEO,
    "RankSegMaskFormer": RANKSEG,
    "RankSegVideoMaskFormer": VIDEO | RANKSEG,
}
ALL = pytest.mark.parametrize("options", META_ARCHITECTURES.values(), ids=META_ARCHITECTURES)
CPU = torch.device("cpu")


# One forward for images, clips and batches


@BOTH
@ALL
def test_batch_equals_batches_of_one(kind, options):
    # In double precision nothing but a real dependence makes a difference.
    model = make_model(kind, options).double()
    samples = [make_sample(model, number, height=70, width=90) for number in range(3)]
    together = evaluate(model, samples)
    alone = [evaluate(model, [sample])[0] for sample in samples]
    for one, other in zip(together, alone, strict=True):
        assert scores_of(one).shape[-2:] == (70, 90)
        assert scores_of(one).dtype == torch.float64
        close = 1e-9 * scores_of(other).std()
        torch.testing.assert_close(scores_of(one), scores_of(other), rtol=0, atol=close)
        if "ranking" in one:
            torch.testing.assert_close(one["ranking"], other["ranking"], rtol=0, atol=1e-9)
    assert not torch.allclose(scores_of(alone[0]), scores_of(alone[1]), atol=1e-2)


def test_the_cosine_classifier_without_rankseg_is_warned_of(caplog):
    key = {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True}
    make_model(MASK2FORMER, RANKSEG | key)
    assert "USE_LAYERNORM" not in caplog.text
    make_model(MASK2FORMER, key)
    assert "set MODEL.RANKSEG.FLAG True as well" in caplog.text


@BOTH
@pytest.mark.parametrize("rankseg", [{}, RANKSEG], ids=["plain", "rankseg"])
def test_one_frame_clip_equals_image(kind, rankseg):
    models = [make_model(kind, rankseg, video) for video in ({}, VIDEO)]
    models[1].load_state_dict(models[0].state_dict())
    samples = [make_sample(model, **({"frames": 1} if i else {})) for i, model in enumerate(models)]
    image, clip = (evaluate(m, [s])[0] for m, s in zip(models, samples, strict=True))
    torch.testing.assert_close(scores_of(clip).squeeze(-3), scores_of(image), rtol=0, atol=1e-6)
    assert clip["sem_seg_labels"].shape == (1, *image["sem_seg_labels"].shape)
    image, clip = (train(m, [s]) for m, s in zip(models, samples, strict=True))
    torch.testing.assert_close(clip, image, rtol=1e-5, atol=1e-5)


def test_images_of_other_sizes_are_padded_together():
    model = make_model(MASK2FORMER)
    results = evaluate(model, [image_sample(0), image_sample(1, size=(40, 60))])
    assert [scores_of(result).shape for result in results] == [(CLASSES, 64, 96), (CLASSES, 40, 60)]
    assert train(model, [image_sample(0), image_sample(1, size=(40, 60))])["loss_ce"] > 0


@BOTH
@ALL
@pytest.mark.parametrize("size", [(1, 1), (1, 100)])
def test_images_smaller_than_a_stride_work(kind, options, size):
    # A group of GroupNorm's 32 must have two values in a map of one cell.
    model = make_model(kind, options, {"MODEL.SEM_SEG_HEAD.CONVS_DIM": 64})
    sample = make_sample(model, labels=[2], size=size)
    for divisibility in (32, 0):
        model.size_divisibility = divisibility
        result = evaluate(model, [sample])[0]
        assert result["sem_seg_labels"].shape[-2:] == size
        assert scores_of(result).isfinite().all()
        assert all(loss.isfinite() for loss in train(model, [sample]).values())


# Training


@BOTH
@pytest.mark.parametrize("options", [{}, VIDEO], ids=["image", "video"])
def test_losses_have_upstreams_names(kind, options):
    layers = 3 if kind is MASKFORMER else 4
    names = {
        f"loss_{part}{suffix}"
        for part in ("ce", "mask", "dice")
        for suffix in ["", *(f"_{i}" for i in range(layers - 1))]
    }
    model = make_model(kind, options)
    assert train(model, [make_sample(model)]).keys() == names
    alone = make_model(kind, options, {"MODEL.MASK_FORMER.DEEP_SUPERVISION": False})
    assert train(alone, [make_sample(model)]).keys() == {"loss_ce", "loss_mask", "loss_dice"}


TRAINED = {
    "maskformer": MASKFORMER,
    "maskformer pre-norm": MASKFORMER | {"MODEL.MASK_FORMER.PRE_NORM": True},
    "maskformer with encoders": MASKFORMER
    | {
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 2,
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
        "MODEL.MASK_FORMER.ENC_LAYERS": 1,
    },
    "maskformer on pixels": MASKFORMER
    | {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "pixel_embedding"},
    "mask2former": MASK2FORMER,
    "mask2former pre-norm": MASK2FORMER | {"MODEL.MASK_FORMER.PRE_NORM": True},
    "mask2former, projected": MASK2FORMER | {"MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": True},
    "mask2former, other widths": MASK2FORMER
    | {"MODEL.SEM_SEG_HEAD.CONVS_DIM": 64, "MODEL.SEM_SEG_HEAD.MASK_DIM": 16},
    "mask2former on a pyramid": MASK2FORMER
    | {"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder"},
    "mask2former, last layer only": MASK2FORMER | {"MODEL.MASK_FORMER.DEEP_SUPERVISION": False},
}


@pytest.mark.parametrize("kind", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("video", [{}, VIDEO], ids=["image", "video"])
def test_every_parameter_gets_a_gradient(kind, video):
    model = make_model(kind, video)
    train(model, [make_sample(model, 0), make_sample(model, 1, labels=[0])])
    of_zeros = []  # what scales the queries that the decoder starts from
    if kind is TRAINED["maskformer pre-norm"]:
        of_zeros = ["sem_seg_head.predictor.transformer.decoder.layers.0.norm1.weight"]
    assert without_gradient(model) == of_zeros


@BOTH
@ALL
def test_samples_without_objects_train(kind, options):
    model = make_model(kind, options)
    losses = train(model, [make_sample(model, number, labels=[]) for number in range(2)])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    # None would stop DistributedDataParallel
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_image_without_objects_needs_no_masks():
    empty = Instances((64, 96), gt_classes=torch.zeros(0, dtype=torch.long))
    model = make_model(MASK2FORMER)
    losses = train(model, [image_sample() | {"instances": empty}, image_sample(1)])
    assert all(loss.isfinite() for loss in losses.values())


def test_bit_masks_are_masks():
    sample = image_sample()
    packed = copy.deepcopy(sample)
    packed["instances"].gt_masks = BitMasks(packed["instances"].gt_masks)
    model = make_model(MASK2FORMER)
    torch.testing.assert_close(train(model, [packed]), train(model, [sample]))


def test_objects_absent_from_the_last_frame_keep_their_class():
    present = rectangles([4, 2])
    absent = rectangles([0, 2], ids=[-1, 1])  # whatever the class says where the object is not
    sample = {"image": [picture(0), picture(1)], "instances": [present, absent]}
    targets = clip_targets(sample, (64, 96), CLASSES, CPU)
    assert targets["labels"].tolist() == [4, 2]
    assert targets["masks"].flatten(2).any(2).tolist() == [[True, False], [True, True]]
    sample["instances"] = [absent, present]
    assert clip_targets(sample, (64, 96), CLASSES, CPU)["labels"].tolist() == [4, 2]


def test_objects_in_no_frame_are_no_targets():
    frames = [rectangles([4, 2], ids=[-1, 1]) for _ in range(2)]
    sample = {"image": [picture(0), picture(1)], "instances": frames}
    targets = clip_targets(sample, (64, 96), CLASSES, CPU)
    assert targets["labels"].tolist() == [2]
    assert targets["masks"].shape == (1, 2, 64, 96)


def test_targets_are_padded_with_nothing():
    target = image_targets(image_sample(size=(60, 90)), (64, 96), CLASSES, CPU)
    assert target["masks"].shape == (3, 1, 64, 96)
    assert not target["masks"][..., 60:, :].any()
    assert not target["masks"][..., 90:].any()


@BOTH
@ALL
def test_bfloat16_trains_with_losses_in_float32(kind, options):
    model = make_model(kind, options)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()([make_sample(model)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert without_gradient(model) == []


# Results


@BOTH
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("options", [{}, RANKSEG], ids=["plain", "rankseg"])
def test_sem_seg_postprocessing_before_inference_is_obeyed(kind, before, options):
    key = "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE"
    model = make_model(kind, options, {key: before})
    sample = image_sample(size=(60, 90), height=75, width=50)
    result = evaluate(model, [sample])[0]
    with torch.no_grad():
        clips = model.preprocess([sample])
        outputs = model.decide(model.run_network(clips))
    masks = F.interpolate(outputs.masks[-1][:, :, 0], (64, 96), mode="bilinear")[..., :60, :90]
    weights = outputs.logits[-1, 0].softmax(-1)[:, :-1]
    if before:
        masks = F.interpolate(masks, (75, 50), mode="bilinear")[0].sigmoid()
        expected = torch.einsum("qk,qhw->khw", weights, masks)
    else:
        expected = torch.einsum("qk,qhw->khw", weights, masks[0].sigmoid())
        expected = F.interpolate(expected[None], (75, 50), mode="bilinear")[0]
    torch.testing.assert_close(scores_of(result), expected, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.parametrize("options", [{}, RANKSEG], ids=["plain", "rankseg"])
def test_compiled_forward_equals_eager_without_a_graph_break(kind, options):
    model = make_model(kind, options).eval()
    samples = [make_sample(model, number) for number in range(2)]
    eager = evaluate(model, samples)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model.compile(fullgraph=True, backend=backend)
    compiled = evaluate(model, samples)
    assert len(graphs) == 1
    for one, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(one, other)
    evaluate(model, samples)
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_inductor_gives_the_same_results():
    small = {"MODEL.MASK_FORMER.DEC_LAYERS": 2, "MODEL.RANKSEG.LAYER": 1}
    model = make_model(MASK2FORMER, RANKSEG, small).eval()
    eager = evaluate(model, [image_sample()])[0]
    torch._dynamo.reset()
    model.compile(fullgraph=True)
    compiled = evaluate(model, [image_sample()])[0]
    close = 1e-3 * scores_of(eager).std()
    torch.testing.assert_close(scores_of(compiled), scores_of(eager), rtol=0, atol=close)


# Building and copying


def test_yaml_that_names_maskformer_and_sets_the_flag_gives_the_rankseg_class(tmp_path):
    path = tmp_path / "mine.yaml"
    text = "MODEL:\n  META_ARCHITECTURE: {}\n  RANKSEG: {{FLAG: {}, TOPK: 4, LOSS_WEIGHT: 10}}\n"
    keys = {key: value for key, value in BASE.items() if "META_ARCHITECTURE" not in key}
    words = [word for item in (keys | MASK2FORMER).items() for word in item]
    for name in ("MaskFormer", "VideoMaskFormer"):
        path.write_text(text.format(name, True))
        ranked = build_model(get_config(path, words))
        assert type(ranked).__name__ == f"RankSeg{name}"
        assert ranked.ranker.topk == 4
        path.write_text(text.format(name, False))
        assert type(build_model(get_config(path, words))).__name__ == name


def test_explicit_arguments_build_the_class_that_is_called():
    parts = MaskFormer.from_config(make_config(MASK2FORMER))
    assert type(MaskFormer(**parts)) is MaskFormer
    assert type(VideoMaskFormer(**parts)) is VideoMaskFormer


@ALL
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_models_of_their_own(options, copied):
    model = make_model(MASK2FORMER, options).eval()
    sample = make_sample(model)
    expected = evaluate(model, [sample])[0]
    model.compile(backend="eager")
    twin = copied(model)
    assert type(twin) is type(model)
    assert model._compiled_network is not None and twin._compiled_network is None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(scores_of(evaluate(twin, [sample])[0]), scores_of(expected))
