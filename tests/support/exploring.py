"""Predictors whose results can be explored, and the page's arithmetic again, in NumPy."""

import base64
import json
import re
import zlib

import numpy as np
import torch
from support import predicting
from support.predicting import PIXELS
from support.small import MASK2FORMER, MASKFORMER, RANKSEG

FIRST = {"MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": True}
BY_BOTH, GATE = {"MODEL.RANKSEG.SCORES": "both"}, {"MODEL.RANKSEG.GATE": 2.0}
RANKING = {  # kind, and more options
    "Mask2Former": (MASK2FORMER, RANKSEG),
    "Mask2Former, resized first": (MASK2FORMER, RANKSEG, FIRST),
    "MaskFormer without cosine": (MASKFORMER, RANKSEG, {"MODEL.SEM_SEG_HEAD.USE_LAYERNORM": False}),
    "pixels": (PIXELS, RANKSEG),
    "Mask2Former with a gate": (MASK2FORMER, RANKSEG, BY_BOTH, GATE),
    "pixels with a gate": (PIXELS, RANKSEG, BY_BOTH, GATE, {"MODEL.RANKSEG.NORM": False}),
}
PLAIN = {
    "plain Mask2Former": (MASK2FORMER,),
    "plain Mask2Former, resized first": (MASK2FORMER, FIRST),
    "plain pixels": (PIXELS,),
}
SIZE = (50, 78)


@torch.no_grad()
def make_predictor(kind, *options):
    """A predictor whose ranks have different biases."""
    predictor = predicting.make_predictor(*options, kind=kind)
    if hasattr(predictor.model, "ml_norm"):
        bias = predictor.model.ml_norm.bias
        bias += torch.linspace(-0.5, 0.5, len(bias))
    return predictor


def pixels(number=0, size=SIZE):
    """RGB (H, W, 3) uint8."""
    return predicting.pixels(number, size)


def agreement(labels, result):
    """The share of the pixels that have the result's labels."""
    return (labels == result.semantic).mean()


def wishes_for(result):
    """(topk, threshold, denied) of several kinds, for a result of a model that ranks 4."""
    best = [one.number for one in result.categories]
    chances = [one.probability for one in result.categories]
    second, fourth = (sum(chances[i : i + 2]) / 2 for i in (1, 3))  # between two ranks
    some = [(4, 0, ()), (1, 0, ()), (2, 0, ()), (4, second, ()), (3, 0, best[:2])]
    return [*some, (4, fourth, best[1:3]), (2, 0.999999, best[:1])]


def content_of(path):
    """What the page has stored."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'type="application/json">(.*?)</script>', text)[1])


def labels_of(content, topk=None, threshold=0, denied=()):
    """The class number of each pixel by what is stored: (H, W)."""
    columns = _ranked(content, topk, threshold, denied)
    classes = np.array(content["categories"])[columns]
    maps = _maps(content["maps"])
    if content["regions"]:
        logits = _unpack(content["logits"])[:, [*columns, -1]].astype(float)
        logits = _norm(logits, content["norm"])
        logits[:, :-1] += _gates(content, classes)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        scores = np.einsum("qk,qhw->khw", weights[:, :-1], _enlarged(maps, content, True))
    else:
        logits = _norm(maps[columns].transpose(1, 2, 0), content["norm"])
        logits = logits + _gates(content, classes)
        scores = _enlarged(logits.transpose(2, 0, 1), content, False)
    return classes[scores.argmax(0)]


def _ranked(content, topk, threshold, denied):
    columns = [n for n, c in enumerate(content["categories"]) if c not in denied]
    if content["trained"]["topk"] is None:
        return sorted(columns, key=lambda n: content["categories"][n])
    score = {n: content["classes"][content["categories"][n]]["score"] for n in columns}
    columns = sorted(columns, key=lambda n: -score[n])[:topk]
    least = np.log(threshold / (1 - threshold)) if threshold else -np.inf
    return columns[:1] + [n for n in columns[1:] if score[n] > least]


def _gates(content, classes):
    scores = np.array([content["classes"][c]["score"] for c in classes])
    return -content["gate"] * np.logaddexp(0, -scores)


def _norm(logits, norm):
    if norm is None:
        return logits
    count, end = logits.shape[-1], len(norm["weight"]) - 1
    columns = [*range(count - 1), end] if norm["no_object"] else [*range(count)]
    weight, bias = (np.array(norm[name])[columns] for name in ("weight", "bias"))
    deviation = np.sqrt(logits.var(-1, keepdims=True) + norm["eps"])
    return (logits - logits.mean(-1, keepdims=True)) / deviation * weight + bias


def _unpack(packed):
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(data, np.dtype(packed["type"])).reshape(packed["shape"])


def _maps(stored):
    low, step = (np.array(stored[name])[:, None, None] for name in ("low", "step"))
    values = low + step * _unpack(stored["codes"])
    return values if stored["bend"] is None else stored["bend"] * np.sinh(values)


def _enlarged(maps, content, as_probability):
    sizes, first = content["sizes"], content["resizeFirst"]
    maps = _resized(maps, sizes["padded"])
    if as_probability and not first:
        maps = 1 / (1 + np.exp(-maps))
    height, width = sizes["image"]
    maps = _resized(maps[:, :height, :width], sizes["output"])
    return 1 / (1 + np.exp(-maps)) if as_probability and first else maps


def _resized(maps, size):
    down, across = (_weights(n, m) for n, m in zip(maps.shape[1:], size, strict=True))
    return down @ maps @ across.T


def _weights(size, wanted):
    """Bilinear interpolation as a matrix (wanted, size): a tent around each sample."""
    at = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
    return np.clip(1 - np.abs(at[:, None] - np.arange(size)), 0, None)
