"""Segmenter, alone, with RankSeg and with OCE, computes what the public references compute.

Weights and images follow from rules (`pixel_golden.py`). Dropout is off, and all is in double
precision. RankSeg's reference takes one image at a time; ours takes both as one batch.
"""

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from support import pixel_golden
from torch.nn import functional as F

from rankseg_d2.checkpoints.sources import find_table
from rankseg_d2.config import get_config
from rankseg_d2.modeling.passes import SlidingWindow

VIT_TI = "ade20k/semantic/segmenter_vit_ti"
HEAD, RANKSEG, VIT = "MODEL.SEM_SEG_HEAD.", "MODEL.RANKSEG.", "MODEL.VIT."
OCE = f"{VIT}CLASS_EMBEDDING=True"
TOP25 = f"{RANKSEG}TOPK=25"
IMAGE_HEAD = [TOP25, f"{RANKSEG}HIDDEN_DIM=192"]
# case: (end of the config's name, other keys)
CASES = {
    "segmenter_mask_vitt": ("", []),
    "segmenter_mask_vitt_pad": ("", []),
    "segmenter_oce_vitt": ("", [OCE]),
    "segmenter_rankseg_vitt": ("_rankseg", []),
    "segmenter_rankseg_vitt_bce": (
        "_rankseg",
        [f"{RANKSEG}LOSS=bce", f"{RANKSEG}LOSS_WEIGHT=5"],
    ),
    "segmenter_oce_rankseg_vitt": ("_rankseg", [OCE, TOP25]),
    "segmenter_transenc_head_vitt": (
        "_rankseg",
        [*IMAGE_HEAD, f"{RANKSEG}HEAD=encoder", f"{RANKSEG}SHARE_EMBEDDING=True"],
    ),
    "segmenter_transdec_vitt": (
        "_rankseg",
        [
            *IMAGE_HEAD,
            f"{RANKSEG}HEAD=query2label",
            f"{RANKSEG}SHARE_EMBEDDING=True",
            f"{RANKSEG}POOL=16",
            f"{RANKSEG}LOSS=shifted_bce",
        ],
    ),
    "segmenter_pooling_vitt": (
        "_rankseg",
        [
            *IMAGE_HEAD,
            f"{RANKSEG}HEAD=conv_pooling",
            f"{RANKSEG}POOL=16",
            f"{RANKSEG}LOSS=shifted_bce",
        ],
    ),
    "segmenter_oracle_vitt": ("_rankseg_gt", []),
    "segmenter_essnet_vitt_eval": (
        "",
        [f"{HEAD}NAME=SegmenterESSNetHead", f"{HEAD}ESSNET.NEIGHBOURS=16"],
    ),
    "mmseg_segmenter_mask_vitt": ("", [f"{VIT}PATCH_BIAS=False"]),
    "mmseg_segmenter_linear_vitt": (
        "",
        [f"{VIT}PATCH_BIAS=False", f"{HEAD}NAME=SegmenterLinearHead"],
    ),
    "rstrudel_segmenter_mask_t": (
        "",
        [
            f"{VIT}IMAGE_SIZE=384",
            f"{VIT}NORM_EPS=1e-5",
            f"{VIT}INTERPOLATION=bilinear",
            f"{HEAD}STRETCH=False",
        ],
    ),
}
LEARNT = [name for name in CASES if "eval" not in name and "rstrudel" not in name]
MASK_NAMES = pixel_golden.load("segmenter_mask_vitt")[1]["grad_names"]
LOSSES = {
    "decode.loss_seg": "loss_sem_seg",
    "decode.loss_ce": "loss_sem_seg",
    "decode.loss_img": "loss_ml",
}


class Case:
    """A golden case: its arrays and facts, the model with the reference's weights, and samples."""

    def __init__(self, name: str):
        suffix, keys = CASES[name]
        self.arrays, self.facts = pixel_golden.load(name)
        classes = self.facts["classes"]
        keys = [*keys, f"{HEAD}NUM_CLASSES={classes}", "DATASETS.TRAIN=()", "DATASETS.TEST=()"]
        self.model = build_model(get_config(f"{VIT_TI}{suffix}", ["MODEL.DEVICE=cpu", *keys]))
        names = self.facts.get("grad_names") or MASK_NAMES
        self.table = find_table(names)
        pixel_golden.fill(self.model, self.table)
        self.model.double().eval()
        self.samples = pixel_golden.samples(self.facts, with_labels=name in LEARNT)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def stages(model, samples):
    """What the parts of the model give, under the reference's names, and the outputs."""
    found, head = {}, model.sem_seg_head
    parts = {
        "encoder": model.backbone.norm,
        "proj_dec": getattr(head, "proj_dec", None),
        "dec_last": getattr(head, "decoder_norm", None),
    }
    hooks = [
        part.register_forward_hook(lambda *call, name=name: found.update({name: call[-1]}))
        for name, part in parts.items()
        if part is not None
    ]
    clips = model.preprocess(samples)
    outputs = model.decide(model.run_network(clips))
    for hook in hooks:
        hook.remove()
    logits, count = outputs.logits[-1], outputs.pixels.shape[-2:].numel()
    found["last"] = found["encoder"][:, 1 : 1 + count].mT.unflatten(2, outputs.pixels.shape[-2:])
    found["classes"] = found["encoder"][:, 1 + count :]  # of OCE
    return found | {"logits": logits, "decoder": logits, "scattered": logits}, outputs


def last_features(arrays):
    """The reference's names of the last feature, and of OCE's classes."""
    pairs = (("feat/3/0", "feat/3/1"), ("feat/3", ""), ("feat/0", "feat/1"), ("feat", ""))
    return next(names for names in pairs if names[0] in arrays)


def test_every_stage_is_the_references(case):
    with torch.no_grad():
        found, outputs = stages(case.model, case.samples)
    arrays = {name.removeprefix("img0/"): x for name, x in case.arrays.items()}
    if "encoder" not in arrays:
        names = last_features(arrays)
        found |= dict(zip(names, (found["last"], found["classes"]), strict=True))
    compared = set()
    for name, array in case.arrays.items():
        image, _, part = name.partition("/") if name.startswith("img") else ("", "", name)
        if part not in found:
            continue
        x = found[part][int(image[-1])][None] if image else found[part]
        if part == "dec_last" and image:  # the oracle has tokens of absent classes, too
            x = x[:, : array.shape[1]]
        compared.add(part)
        assert array.diff(x)[1] < 1e-3, name
    assert len(compared) >= 2
    if outputs.ranking is not None:
        check_ranking(case.arrays, outputs)


def check_ranking(arrays, outputs):
    for i in range(2):
        ranking = outputs.image_ranking(i)
        index = ranking.index[0] if ranking.valid is None else ranking.index[ranking.valid]
        assert index.tolist() == arrays[f"img{i}/index"].values[0].tolist()
        masks = outputs.logits[-1][i : i + 1, : len(index)]
        assert arrays[f"img{i}/masks"].diff(masks)[1] < 1e-3
        if f"img{i}/img_pred" in arrays:
            scores = arrays[f"img{i}/img_pred"]
            assert scores.diff(outputs.scores[i].reshape(scores.shape))[1] < 1e-3


def test_results_are_the_references(case):
    with torch.no_grad():
        results = case.model(case.samples)
    for name, key in {"resized": "sem_seg", "out": "sem_seg", "argmax": "sem_seg_labels"}.items():
        for prefix, chosen in {"": results, "img0/": results[:1], "img1/": results[1:]}.items():
            array = case.arrays.get(prefix + name)
            if array is None:
                continue
            found = torch.stack([result[key] for result in chosen])
            if name == "argmax":
                assert (found.numpy() == array.values).mean() > 0.9999
            else:
                assert array.diff(found)[1] < 1e-3


@pytest.mark.parametrize("name", ["mmseg_segmenter_mask_vitt", "mmseg_segmenter_linear_vitt"])
def test_sliding_windows_are_the_references(name):
    case = Case(name)
    facts = case.facts["slide"]
    image = pixel_golden.image(facts["seed"], facts["h"], facts["w"])
    with torch.no_grad():
        (result,) = SlidingWindow(case.model, facts["crop"], facts["stride"])([{"image": image}])
    assert case.arrays["slide"].diff(result["sem_seg"][None])[1] < 1e-3
    expected = case.arrays["slide_argmax"].values[0]
    assert (result["sem_seg_labels"].numpy() == expected).mean() > 0.9999


@pytest.mark.parametrize("case", LEARNT, indirect=True)  # the reference gives losses of these
def test_losses_and_gradients_are_the_references(case):
    model, facts = case.model, case.facts
    model.training = True  # of the model alone: no dropout
    model.zero_grad()
    losses = model(case.samples)
    model.training = False
    sum(losses.values()).backward()
    values = case.arrays.get("batch/loss/values") or case.arrays["loss/values"]
    expected = dict(zip(facts["loss_names"], values.values.tolist(), strict=True))
    expected = {LOSSES[name]: value for name, value in expected.items() if name in LOSSES}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    gradients = case.table.to_theirs({name: p.grad for name, p in model.named_parameters()})
    assert gradients.keys() == set(facts["grad_names"])
    norms = dict(zip(facts["grad_names"], case.arrays["grad_norm"].values, strict=True))
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    sampled = [name for name in case.arrays if name.startswith("grad/")]
    assert len(sampled) > 8
    for name in sampled:
        assert case.arrays[name].diff(gradients[name.removeprefix("grad/")])[1] < 1e-3, name


def test_gradients_are_the_authors():
    """Theirs are of the enlarged logits times noise, in evaluation."""
    case = Case("rstrudel_segmenter_mask_t")
    _, outputs = stages(case.model, case.samples)
    maps = F.interpolate(outputs.logits[-1], (64, 96), mode="bilinear")
    noise = torch.randn(maps.shape, generator=torch.Generator().manual_seed(5))
    value = (maps * noise).sum() / maps.numel() ** 0.5
    assert value.item() == pytest.approx(case.arrays["proj/value"].values.item(), rel=1e-4)
    value.backward()
    own = {name: p.grad for name, p in case.model.named_parameters()}
    gradients = case.table.to_theirs(own)
    assert gradients.keys() == set(case.facts["grad_names"])
    norms = zip(case.facts["grad_names"], case.arrays["grad_norm"].values, strict=True)
    for name, norm in norms:
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name


def test_features_of_other_blocks_are_the_references():
    case = Case("segmenter_mask_vitt")
    names = ["block3", "block6", "block9", "last"]
    cfg = get_config(VIT_TI, ["MODEL.DEVICE=cpu", f"{VIT}OUT_FEATURES={names}"])
    backbone = build_backbone(cfg).double().eval()
    backbone.load_state_dict(case.model.backbone.state_dict())
    with torch.no_grad():
        features = backbone(case.model.preprocess(case.samples).tensor)
    assert list(features) == names
    for i, name in enumerate(names):
        assert case.arrays[f"feat/{i}"].diff(features[name])[1] < 1e-3
