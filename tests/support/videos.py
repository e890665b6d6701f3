"""Videos of frames that are made when needed, and small models that go through them by windows."""

import numpy as np
import torch
from pycocotools import mask as mask_util
from support.small import MASK2FORMER, RANKSEG, VIDEO, make_model, picture, rectangles

from rankseg_d2.modeling.video.windows import VideoWindows

SEMANTIC = {}
INSTANCE = {
    "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": False,
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": True,
}
BOTH = {"MODEL.MASK_FORMER.TEST.INSTANCE_ON": True}
ORACLE = RANKSEG | {"MODEL.RANKSEG.USE_GT": True}
DYNAMIC = RANKSEG | {"MODEL.RANKSEG.THRESHOLD": 0.01}
MODELS = {"plain": {}, "rankseg": RANKSEG, "dynamic": DYNAMIC, "oracle": ORACLE}
SIZE = (40, 56)


class Lazy:
    """Frames that are made when they are asked for; counts how often each one is."""

    def __init__(self, numbers, size=SIZE, reads=None):
        self.numbers, self.size = numbers, size
        self.reads = {} if reads is None else reads

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Lazy(self.numbers[index], self.size, self.reads)
        number = self.numbers[index]
        self.reads[number] = self.reads.get(number, 0) + 1
        return picture(number, self.size)


def video(frames=7, labels=(1, 3, 3), first=0, **more):
    objects = [rectangles(labels, SIZE) for _ in range(frames)]
    return {"image": Lazy(range(first, first + frames)), "instances": objects, **more}


@torch.no_grad()
def video_model(*options, kind=MASK2FORMER):
    """A model whose windows differ in their rankings, and whose label maps have many categories."""
    model = make_model(kind, VIDEO, *options).eval()
    predictor = model.sem_seg_head.predictor
    predictor.class_embed.weight *= 4
    predictor.mask_embed.layers[-1].weight *= 4
    if hasattr(model, "ml_norm"):
        model.ml_norm.weight *= 4
    return model


def windowed(options, window, overlap=2, **more):
    model = video_model(options)
    model.windows = VideoWindows(window, overlap, **more)
    return model


@torch.no_grad()
def run(model, *samples):
    return model(list(samples))


def decoded(rles, size):
    """Masks (T, H, W) of one instance."""
    empty = np.zeros(size, np.uint8)
    return np.stack([empty if rle is None else mask_util.decode(rle) for rle in rles])
