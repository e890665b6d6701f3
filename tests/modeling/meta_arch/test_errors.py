"""Models and samples that cannot be are refused with a sentence."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image
from support.small import (
    CLASSES,
    MASK2FORMER,
    MASKFORMER,
    QUERIES,
    VIDEO,
    clip_sample,
    image_sample,
    make_config,
    make_model,
    picture,
    rectangles,
)


def builds(*options):
    return build_model(make_config(*options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "MultiScaleMaskdDecoder"},
            r"MODEL\.MASK_FORMER\.TRANSFORMER_DECODER_NAME: 'MultiScaleMaskdDecoder' is not known; "
            "the nearest names are MultiScaleMaskedTransformerDecoder",
        ),
        (
            {"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformPixelDecoder"},
            r"MODEL\.SEM_SEG_HEAD\.PIXEL_DECODER_NAME: 'MSDeformPixelDecoder' is not known; the "
            "nearest names are .*MSDeformAttnPixelDecoder",
        ),
        (
            {"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MaskFormerHead"},
            r"MODEL\.SEM_SEG_HEAD\.PIXEL_DECODER_NAME: 'MaskFormerHead' is not known; the nearest "
            "names are .*Decoder",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_bakbone"},
            r"MODEL\.BACKBONE\.NAME: 'build_resnet_bakbone' is not known; the nearest names are "
            "build_resnet_backbone",
        ),
        (
            {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res6"},
            r"TRANSFORMER_IN_FEATURE: 'res6' is not known; the nearest names are res2, ",
        ),
        (
            {"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res3", "res4", "res5", "res6"]},
            r"MODEL\.SEM_SEG_HEAD\.IN_FEATURES: 'res6' is not known; the nearest names are res",
        ),
        (
            {"MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res5"]},
            "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES: 'res4' is not known; the nearest names",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_ones(options, message):
    with pytest.raises(KeyError, match=message):
        builds(MASK2FORMER, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            MASK2FORMER
            | {"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder"},
            "TRANSFORMER_IN_FEATURE multi_scale_pixel_decoder is three maps, but "
            "StandardTransformerDecoder reads one; name one of the backbone's features",
        ),
        (
            MASK2FORMER
            | {
                "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
                "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res5"],
            },
            r"multi_scale_pixel_decoder needs three or more MODEL\.SEM_SEG_HEAD\.IN_FEATURES, but "
            r"they are \['res2', 'res5'\]",
        ),
        (
            MASK2FORMER | {"MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead"},
            "NAME is PerPixelBaselineHead, which does not classify masks, as MaskFormer does; "
            r"set it to MaskFormerHead, or MODEL\.META_ARCHITECTURE to PixelClassifier",
        ),
        (
            VIDEO | MASK2FORMER | {"MODEL.SEM_SEG_HEAD.NAME": "MSDeformAttnPixelDecoder"},
            "NAME is MSDeformAttnPixelDecoder, which does not classify masks, as VideoMaskFormer",
        ),
        (
            MASKFORMER | {"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder"},
            "transformer_encoder needs a pixel decoder with an encoder.* Set "
            r"MODEL\.SEM_SEG_HEAD\.PIXEL_DECODER_NAME to TransformerEncoderPixelDecoder",
        ),
        (
            MASKFORMER | {"MODEL.MASK_FORMER.DEC_LAYERS": 0},
            r"MODEL\.MASK_FORMER\.DEC_LAYERS must be at least 1, but is 0",
        ),
        (
            MASK2FORMER | {"MODEL.MASK_FORMER.NHEADS": 5},
            r"CONVS_DIM, 32, must be a multiple of MODEL\.MASK_FORMER\.NHEADS, which is 5",
        ),
        (
            MASK2FORMER | {"MODEL.MASK_FORMER.NHEADS": 8, "MODEL.MASK_FORMER.HIDDEN_DIM": 36},
            r"HIDDEN_DIM, 36, must be a multiple of MODEL\.MASK_FORMER\.NHEADS, which is 8",
        ),
        (
            MASK2FORMER | {"MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 0},
            r"MODEL\.MASK_FORMER\.TRAIN_NUM_POINTS must be at least 1, but is 0",
        ),
        (
            MASK2FORMER | {"MODEL.MASK_FORMER.MASK_LOSS": "pixels"},
            r"MODEL\.MASK_FORMER\.MASK_LOSS must be auto, points or dense, not 'pixels'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        builds(options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"instances": None, "file_name": "street/7.jpg"},
            r"street/7\.jpg has no `instances`, the ground truth of training",
        ),
        (
            {"instances": rectangles([1, CLASSES]), "file_name": "street/7.jpg"},
            r"street/7\.jpg has an object of class 7, but MODEL\.SEM_SEG_HEAD\.NUM_CLASSES is 7, "
            "which allows 0 to 6",
        ),
        (
            {"image": torch.zeros(1, 64, 96)},
            r"`image` must be \(3, height, width\) and hold a pixel, .* but one is \(1, 64, 96\)",
        ),
        ({"image": torch.zeros(3, 0, 96)}, r"hold a pixel, .* but one is \(3, 0, 96\)"),
    ],
)
def test_training_samples_that_cannot_be_used_are_refused(change, message):
    sample = image_sample() | change
    sample = {name: value for name, value in sample.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        make_model(MASK2FORMER).train()([image_sample(), sample])


PIXELS = np.zeros((64, 96, 3), np.uint8)
CALL = r"call it as model\(\[{.image.: image}\]\), with image = torch\.from_numpy\(pixels\)"


@pytest.mark.parametrize(
    "given, what",
    [
        (PIXELS, "a model takes a list of dicts, not a numpy.ndarray"),
        (torch.zeros(2, 3, 64, 96), "a model takes a list of dicts, not a torch.Tensor"),
        ({"image": torch.zeros(3, 64, 96)}, "a model takes a list of dicts, not a dict"),
        ("photo.jpg", "a model takes a list of dicts, not a str"),
        ([PIXELS], "a model takes dicts with `image`, not a numpy.ndarray"),
        ([{"img": PIXELS}], r"a model takes dicts with `image`, not \['img'\]"),
        ([{"image": PIXELS}], "`image` must be a tensor, not a numpy.ndarray"),
        ([{"image": Image.fromarray(PIXELS)}], "`image` must be a tensor, not a PIL.Image.Image"),
        ([{"image": "photo.jpg"}], "`image` must be a tensor, not a str"),
        ([{"image": None}], "`image` must be a tensor, not a NoneType"),
        ([{"image": torch.from_numpy(PIXELS)}], r"channels last, \(64, 96, 3\); give image\.perm"),
        ([{"image": torch.zeros(64, 96)}], r"`image` must be \(3, height, width\)"),
        ([{"image": torch.rand(3, 64, 96)}], "values of `image` are from 0 to 1; multiply by 255"),
    ],
)
def test_callers_of_a_model_read_how_to_call_it(given, what):
    with pytest.raises(ValueError, match=f"{what}.*{CALL}"):
        make_model(MASKFORMER).eval()(given)


@pytest.mark.parametrize("frames", [PIXELS[None], [PIXELS], Image.fromarray(PIXELS), "clip.mp4"])
def test_callers_of_a_video_model_read_how_to_call_it(frames):
    with pytest.raises(ValueError, match=f"`image` must be a tensor, not a .*{CALL}"):
        make_model(MASKFORMER, VIDEO).eval()([{"image": frames}])


def test_dark_images_are_no_images_of_0_to_1():
    model = make_model(MASKFORMER).eval()
    for image in (torch.zeros(3, 64, 96), torch.eye(64, 96).expand(3, -1, -1)):
        assert model([{"image": image}])[0]["sem_seg"].shape[-2:] == (64, 96)


def test_clip_without_instances_is_refused_by_the_name_of_its_first_file():
    sample = {"image": [picture()], "file_names": ["clip/1.jpg", "clip/2.jpg"]}
    with pytest.raises(ValueError, match=r"clip/1\.jpg has no `instances`"):
        make_model(MASK2FORMER, VIDEO).train()([sample])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [((1, 3), "have 1 and 3 frames"), ((0,), "have 0 frames"), ((), "have no frames")],
)
def test_clips_of_different_lengths_or_none_are_refused(lengths, message):
    model = make_model(MASK2FORMER, VIDEO).eval()
    message = rf"the clips of one batch {message}; give .* one length .*FRAME_NUM.*VIDEO.WINDOW"
    with pytest.raises(ValueError, match=message):
        model([clip_sample(frames=length) for length in lengths])


def test_frames_of_different_sizes_are_refused():
    frames = [picture(0), picture(1, (32, 96)), picture(2)]
    message = r"one size \(height, width\), but one clip has \(32, 96\) and \(64, 96\); resize"
    with pytest.raises(ValueError, match=message):
        make_model(MASK2FORMER, VIDEO).eval()([{"image": frames}])


@pytest.mark.parametrize(
    ("labels", "counts"), [([[1, 3], [1]], r"\[2, 1\]"), ([[1, 3]], r"\[2\]"), ([], r"\[\]")]
)
def test_clips_whose_frames_list_other_objects_are_refused(labels, counts):
    sample = clip_sample(file_names=["clip/1.jpg", "clip/2.jpg"])
    sample["instances"] = [rectangles(some) for some in labels]
    message = rf"clip/1\.jpg has 2 frames, and `instances` with {counts} objects; every frame must"
    with pytest.raises(ValueError, match=message):
        make_model(MASK2FORMER, VIDEO).train()([sample])


def test_image_given_to_a_video_model_is_refused():
    with pytest.raises(ValueError, match=r"for a clip a list of such frames, but one is \(64, 96"):
        make_model(MASK2FORMER, VIDEO).eval()([image_sample()])


def test_predictions_of_every_layer_have_one_shape():
    model = make_model(MASK2FORMER).train()
    outputs = model.decide(model.network(torch.randn(4, 3, 64, 96), num_frames=2))
    assert outputs.queries.shape[:3] == (4, 2, QUERIES)
    assert [masks.shape for masks in outputs.masks] == [(2, QUERIES, 2, 16, 24)] * 4
    assert len(outputs.layers) == 3
    assert outputs.logits.shape == (4, 2, QUERIES, CLASSES + 1)
