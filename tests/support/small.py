"""Small models of every kind, with a tiny backbone, and samples for them."""

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.structures import Instances
from support.golden import fill
from torch import nn

import rankseg_d2.modeling  # noqa: F401  (registers the models)
from rankseg_d2.config import add_rankseg_config
from rankseg_d2.modeling.clips import Clips

CLASSES, QUERIES, WIDTH = 7, 10, 32
CHANNELS = {"res2": 8, "res3": 16, "res4": 24, "res5": 32}

BASE = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.BACKBONE.NAME": "SmallBackbone",
    "MODEL.PIXEL_MEAN": [120.0] * 3,
    "MODEL.PIXEL_STD": [60.0] * 3,
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": list(CHANNELS),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": CLASSES,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": WIDTH,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": WIDTH,
    "MODEL.MASK_FORMER.HIDDEN_DIM": WIDTH,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 64,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": QUERIES,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 64,
    "MODEL.RANKSEG.HIDDEN_DIM": 64,
}
MASKFORMER = {"MODEL.MASK_FORMER.DEC_LAYERS": 3}
MASK2FORMER = {
    "MODEL.MASK_FORMER.DEC_LAYERS": 4,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 1,
}
KINDS = {"maskformer": MASKFORMER, "mask2former": MASK2FORMER}
VIDEO = {"MODEL.META_ARCHITECTURE": "VideoMaskFormer"}
RANKSEG = {
    "MODEL.RANKSEG.FLAG": True,
    "MODEL.RANKSEG.TOPK": 4,
    "MODEL.RANKSEG.LOSS_WEIGHT": 10,
    "MODEL.SEM_SEG_HEAD.USE_LAYERNORM": True,
}


@BACKBONE_REGISTRY.register()
class SmallBackbone(Backbone):
    """Features of strides 4 to 32 by a few convolutions."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        widths = [input_shape.channels, 8, *CHANNELS.values()]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1)
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x):
        maps = []
        for conv in self.convs:
            x = conv(x).relu()
            maps.append(x)
        return dict(zip(CHANNELS, maps[1:], strict=True))

    def output_shape(self):
        return {
            name: ShapeSpec(channels=width, stride=4 * 2**i)
            for i, (name, width) in enumerate(CHANNELS.items())
        }


def make_config(*options):
    """The config of dicts of keys, later ones over earlier ones."""
    cfg = get_cfg()
    add_rankseg_config(cfg)
    keys = dict(BASE)
    for some in options:
        keys |= some
    cfg.merge_from_list([word for item in keys.items() for word in item])
    return cfg


def make_model(*options):
    """The model of these keys, with weights that make its queries differ."""
    torch.manual_seed(0)
    model = build_model(make_config(*options))
    constants = model.criterion.empty_weight.clone()
    fill(model)
    model.criterion.empty_weight.copy_(constants)
    return model


def picture(number=0, size=(64, 96)):
    generator = torch.Generator().manual_seed(number)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    return nn.functional.interpolate(coarse, size, mode="bilinear")[0] * 255


def rectangles(labels, size=(64, 96), ids=None):
    """Instances, one rectangle per label; `ids` is -1 where an object is absent."""
    masks = torch.zeros(len(labels), *size, dtype=torch.bool)
    for i, mask in enumerate(masks):
        if ids is None or ids[i] >= 0:
            mask[5 * i : 5 * i + 30, 8 * i : 8 * i + 40] = True
    objects = Instances(size, gt_classes=torch.tensor(labels, dtype=torch.long), gt_masks=masks)
    objects.gt_ids = torch.arange(len(labels)) if ids is None else torch.tensor(ids)
    return objects


def image_sample(number=0, labels=(1, 3, 3), size=(64, 96), **more):
    return {"image": picture(number, size), "instances": rectangles(labels, size), **more}


def clip_sample(number=0, labels=(1, 3, 3), frames=2, size=(64, 96), **more):
    return {
        "image": [picture(10 * number + i, size) for i in range(frames)],
        "instances": [rectangles(labels, size) for _ in range(frames)],
        **more,
    }


def make_sample(model, *args, **more):
    """An image or a clip, as the model needs it."""
    is_video = "Video" in type(model).__name__
    return (clip_sample if is_video else image_sample)(*args, **more)


@torch.no_grad()
def outputs_of(model, frames, num_frames=1):
    """Network and decision for frames that are preprocessed already."""
    clips = Clips(frames, [tuple(frames.shape[-2:])] * (len(frames) // num_frames), num_frames)
    return model.decide(model.run_network(clips))


def rank_by(monkeypatch, model, make):
    """Let the model's ranker rank by make(scores)."""
    monkeypatch.setattr(type(model.ranker), "rank", lambda self, scores, keep=None: make(scores))


def scores_of(result):
    return result.get("sem_seg", result.get("sem_seg_scores"))


def evaluate(model, samples):
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval()(samples)


def train(model, samples):
    """The losses, after the backward pass."""
    torch.manual_seed(0)
    losses = model.train()(samples)
    sum(losses.values()).backward()
    return losses


def without_gradient(model):
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]


def count_copies(monkeypatch):
    """A list that grows with each copy to the host: the CPU makes none, but code asks for them."""
    copies = []
    to_host = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(1) or to_host(self))
    for name in ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, _refuse(name))
    return copies


def _refuse(name):
    def refuse(*args):
        raise AssertionError(f"Tensor.{name} would wait for the GPU")

    return refuse
