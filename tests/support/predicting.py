"""Small predictors with named classes, and pictures for them."""

from dataclasses import replace

import numpy as np
import torch
from detectron2.modeling import build_model
from support import pixel_families
from support.golden import fill
from support.small import MASK2FORMER, MASKFORMER, RANKSEG, make_config, make_model, picture

from rankseg_d2.predict import Predictor
from rankseg_d2.predict.classes import Classes

NAMES = ["road", "sky", "car", "bus", "tree", "dog", "cat"]
THINGS = frozenset({2, 3, 5, 6})
ROWS = [{"name": name, "isthing": i in THINGS, "id": 10 + i} for i, name in enumerate(NAMES)]
SIZE = (32, 48)
INPUT = {  # not the size of the pictures
    "INPUT.MIN_SIZE_TEST": 40,
    "INPUT.MAX_SIZE_TEST": 80,
    "INPUT.FORMAT": "RGB",
}
TEST = "MODEL.MASK_FORMER.TEST."
ALL = {f"{TEST}{task}_ON": True for task in ("SEMANTIC", "PANOPTIC", "INSTANCE")}
PIXELS = MASKFORMER | {
    "MODEL.META_ARCHITECTURE": "PixelClassifier",
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
}


@torch.no_grad()
def make_predictor(*options, kind=MASK2FORMER, rows=ROWS, **more):
    """A predictor whose pictures have several categories."""
    cfg = make_config(kind, INPUT, *options)
    if kind is PIXELS:
        model = build_model(cfg)
        fill(model)
    else:
        model = make_model(kind, INPUT, *options)
        predictor = model.sem_seg_head.predictor
        predictor.class_embed.weight *= 4
        predictor.mask_embed.layers[-1].weight *= 4
    if hasattr(model, "ml_norm"):
        model.ml_norm.weight *= 4
    model.result_options = replace(model.result_options, thing_ids=THINGS)
    return Predictor(model, cfg, Classes.of(rows), **more)


def make_family_predictor(*options):
    """A predictor of a family of pixel classifiers (support.pixel_families)."""
    cfg = make_config(INPUT, *options)
    model = pixel_families.make_model(INPUT, *options)
    if hasattr(model, "ml_norm"):
        with torch.no_grad():
            model.ml_norm.bias += torch.linspace(-0.5, 0.5, len(model.ml_norm.bias))
    return Predictor(model, cfg, Classes.of(ROWS))


def ranking_predictor(*options, **more):
    return make_predictor(RANKSEG, *options, **more)


def pixels(number=0, size=SIZE):
    """RGB (H, W, 3) uint8."""
    return picture(number, size).permute(1, 2, 0).round().byte().numpy()


@torch.no_grad()
def by_hand(predictor, image):
    """The model's output for one image, with scores, prepared without the predictor."""
    from detectron2.data import transforms as T

    model = predictor.model
    own = getattr(model, "innermost", model)
    own.result_options = replace(own.result_options, semantic_scores=True)
    height, width = image.shape[:2]
    keys = predictor.cfg.INPUT
    resized = T.ResizeShortestEdge(keys.MIN_SIZE_TEST, keys.MAX_SIZE_TEST).get_transform(image)
    tensor = torch.from_numpy(np.array(resized.apply_image(image))).permute(2, 0, 1)
    return model([{"image": tensor, "height": height, "width": width}])[0]
