"""A small EoMT."""

from . import small

QUERIES, BLOCKS, PREFIX = small.QUERIES, 3, 5  # PREFIX: a class token and four registers
KEYS = {
    "MODEL.META_ARCHITECTURE": "EoMT",
    "MODEL.BACKBONE.NAME": "VisionTransformer",
    "MODEL.VIT.IMAGE_SIZE": 64,
    "MODEL.VIT.EMBED_DIM": 32,
    "MODEL.VIT.DEPTH": 5,
    "MODEL.VIT.NUM_HEADS": 4,
    "MODEL.VIT.REGISTERS": 4,
    "MODEL.VIT.CLASS_POSITION": False,
    "MODEL.VIT.LAYER_SCALE": 1.0,
    "MODEL.VIT.DROP_PATH_RATE": 0.0,
    "MODEL.SEM_SEG_HEAD.NAME": "EoMTHead",
    "MODEL.MASK_FORMER.MASK_LOSS": "points",
    "MODEL.EOMT.BLOCKS": BLOCKS,
}
ANNEALED = {"MODEL.EOMT.MASK_START": [10, 20, 30], "MODEL.EOMT.MASK_END": [20, 30, 50]}


def make(*options):
    """A model whose queries and masks differ."""
    return small.make_model(KEYS, *options)
