"""UPerNet of mmsegmentation, of RankSeg and of HuggingFace, with Swin, BEiT and CSWin."""

from .beit import BEIT, HUGGINGFACE_BEIT, HUGGINGFACE_INDEX, INDEX, MMSEG_BEIT
from .cswin import CSWIN
from .mmsegmentation import CLASSIFIER, RANKED_CLASSIFIER, conv_rules
from .swin import HUGGINGFACE_SWIN, MMSEG_SWIN
from .table import Rule, Table


def _head(norm: str = "bn", classifier: str = "conv_seg") -> tuple[Rule, ...]:
    """The head without its classifier, and the auxiliary head."""
    names = {
        "pooled_convs.{i}": "decode_head.psp_modules.{i}.1",
        "pyramid_conv": "decode_head.bottleneck",
        "lateral_convs.{i}": "decode_head.lateral_convs.{i}",
        "output_convs.{i}": "decode_head.fpn_convs.{i}",
        "fuse_conv": "decode_head.fpn_bottleneck",
        "auxiliary.conv": "auxiliary_head.convs.0",
    }
    rules = [conv_rules(f"sem_seg_head.{mine}", its, norm) for mine, its in names.items()]
    predictor = Rule("sem_seg_head.auxiliary.predictor.{p}", f"auxiliary_head.{classifier}.{{p}}")
    return (*sum(rules, ()), predictor)


UPERNET = _head()
_MARK = "decode_head.fpn_bottleneck.conv.weight"
_PLAIN, _RANKED = "decode_head.conv_seg.weight", "decode_head.cls_emb"
_SWIN, _BEIT = "backbone.stages.0.blocks.0.norm1.weight", "backbone.fpn1.0.weight"
_THEIR_CLASSIFIER = Rule("sem_seg_head.predictor.{p}", "decode_head.classifier.{p}")

UPERNET_SWIN = Table(
    "mmsegmentation",
    marks=(_MARK, _SWIN, _PLAIN),
    rules=(*MMSEG_SWIN, *UPERNET, *CLASSIFIER),
)
UPERNET_SWIN_RANKSEG = Table(
    "rankseg",
    marks=(_MARK, _SWIN, _RANKED),
    rules=(*MMSEG_SWIN, *UPERNET, *RANKED_CLASSIFIER),
)
UPERNET_BEIT = Table(
    "beit",
    marks=(_MARK, _BEIT, _PLAIN),
    rules=(*BEIT, *UPERNET, *CLASSIFIER),
    unused=(INDEX,),
)
UPERNET_BEIT_RANKSEG = Table(
    "rankseg",
    marks=(_MARK, _BEIT, _RANKED),
    rules=(*BEIT, *UPERNET, *RANKED_CLASSIFIER),
    unused=(INDEX,),
)
UPERNET_CSWIN = Table(
    "cswin",
    marks=(_MARK, "backbone.stage1_conv_embed.0.weight", _PLAIN),
    rules=(*CSWIN, *UPERNET, *CLASSIFIER),
)
UPERNET_MMSEG_BEIT = Table(
    "mmsegmentation",
    marks=(_MARK, "neck.upsample_4x.0.weight", "backbone.layers.0.attn.q_bias"),
    rules=(*MMSEG_BEIT, *UPERNET, *CLASSIFIER),
    unused=(INDEX,),
)
HUGGINGFACE_UPERNET_SWIN = Table(
    "transformers",
    marks=(_MARK, "backbone.hidden_states_norms.stage1.weight"),
    rules=(*HUGGINGFACE_SWIN, *_head("batch_norm", "classifier"), _THEIR_CLASSIFIER),
    unused=("backbone.swin.layernorm.{p}", "backbone.layernorm.{p}"),
)
HUGGINGFACE_UPERNET_BEIT = Table(
    "transformers",
    marks=(_MARK, "beit.embeddings.cls_token"),
    rules=(*HUGGINGFACE_BEIT, *_head(classifier="classifier"), _THEIR_CLASSIFIER),
    unused=(HUGGINGFACE_INDEX, "beit.layernorm.{p}", "beit.pooler.layernorm.{p}"),
)
TABLES = (
    UPERNET_SWIN_RANKSEG,
    UPERNET_SWIN,
    UPERNET_BEIT_RANKSEG,
    UPERNET_BEIT,
    UPERNET_CSWIN,
    UPERNET_MMSEG_BEIT,
    HUGGINGFACE_UPERNET_SWIN,
    HUGGINGFACE_UPERNET_BEIT,
)
