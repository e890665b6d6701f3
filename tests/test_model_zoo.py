"""MODEL_ZOO.md lists every shipped config, with the parameters and FLOPs that it has."""

import os
import re

import pytest
from support.paths import ROOT

from rankseg_d2.config import get_config
from rankseg_d2.config_files import is_part, shipped_names
from rankseg_d2.report.counting import CLASSIFY, RESULT, count_config

PAGE = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
PUBLISHED = {  # where weights are, and their ending and that of metrics
    "https://dl.fbaipublicfiles.com/maskformer/": (".pkl", r"\d\d\.\d"),
    "https://github.com/microsoft/CSWin-Transformer/releases/": (".pth", r"\d\d\.\d"),
    "https://download.openmmlab.com/mmsegmentation/": (".pth", r"\d\d\.\d\d"),
    "https://openmmlab.oss-accelerate.aliyuncs.com/mmsegmentation/": (".pth", r"\d\d\.\d\d"),
}


def rows_of(page, first="config"):
    """A dict for each row of the tables that begin with a column, by their heads."""
    rows, heads = [], []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            heads = []
        elif not heads:
            heads = cells
        elif heads[0] == first and "---" not in cells[0]:
            rows.append(dict(zip(heads, cells, strict=True)) | {first: cells[0].strip("`")})
    return rows


ROWS = rows_of(PAGE)
TABLE_1 = [row for row in rows_of(PAGE, "model") if "by its rule" in row]
MODELS = [row for row in ROWS if "with RankSeg" in row]
VOCABULARIES = [row for row in ROWS if "classes" in row]
QUICK = ("ade20k/semantic/r50", "ade20k/semantic/per_pixel_r50", "shapes/video_semantic/r10t")


def some(rows):
    """A tenth of the rows, and all with RANKSEG_ZOO=all: they take three minutes."""
    return rows if os.environ.get("RANKSEG_ZOO") == "all" else rows[::10]


EACH_MODEL = [
    pytest.param(row, id=row["config"], marks=[] if row["config"] in QUICK else pytest.mark.slow)
    for row in MODELS
    if row["config"] in QUICK or row in some(MODELS)
]


def counted(name, size, opts=()):
    *frames, height, width = (int(number) for number in size.split(" x "))
    return count_config(get_config(name, opts), (height, width), *frames)


def printed(params, flops, digits):
    """As the page has it: small models have another digit."""
    return f"{params / 1e6:.1f}", f"{flops / 1e9:.{digits}f}"


def digits_of(number):
    return len(number.partition(".")[2])


def test_every_shipped_config_has_one_row():
    shipped = {name for name in shipped_names() if not is_part(name)}
    shipped = {name for name in shipped if not name.endswith(("_rankseg", "_rankseg_gt"))}
    assert sorted(row["config"] for row in MODELS) == sorted(shipped - {"toy/semantic/r18"})


@pytest.mark.parametrize("row", EACH_MODEL)
def test_parameters_and_flops_are_those_of_the_model(row):
    whole = counted(row["config"], row["size"])[0]
    found = row["params, M"], row["FLOPs, G"]
    assert found == printed(whole.parameters, whole.flops, digits_of(found[1]))
    if row["with RankSeg"] == "–":  # one class
        return
    whole = counted(f"{row['config']}_rankseg", row["size"])[0]
    found = re.fullmatch(r"([\d.]+) M, ([\d.]+) G", row["with RankSeg"]).groups()
    assert found == printed(whole.parameters, whole.flops, digits_of(found[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", some(VOCABULARIES), ids=lambda row: f"{row['config']}-{row['classes']}"
)
def test_the_saving_by_rankseg_is_that_of_the_models(row):
    opts = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", int(row["classes"].replace(",", ""))]
    opts += ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 65535, "DATASETS.TRAIN", (), "DATASETS.TEST", ()]
    if row["κ"] != "–":
        opts += ["MODEL.RANKSEG.TOPK", int(row["κ"])]
    rows = {one.name: one for one in counted(row["config"], row["size"], opts)}
    found = row["params, M"], row["FLOPs, G"]
    assert found == printed(rows[""].parameters, rows[""].flops, 1)
    head = rows["ml_head"].flops if "ml_head" in rows else 0
    assert row["of these: head"] == (f"{head / 1e9:.2f}" if head else "–")
    steps = sum(rows[step].flops for step in (CLASSIFY, RESULT) if step in rows)
    assert float(row["classes and result"]) == pytest.approx(steps / 1e9, abs=0.011)


def test_all_models_but_those_of_entities_can_have_rankseg():
    without = {row["config"] for row in MODELS if row["with RankSeg"] == "–"}
    assert without == {row["config"] for row in MODELS if "/entity/" in row["config"]}
    assert not {f"{name}_rankseg" for name in without} & set(shipped_names())


def test_published_numbers_are_marked_and_have_a_link_to_their_weights():
    for row in (row for row in MODELS if "/entity/" not in row["config"]):
        published = [value for head, value in row.items() if "*" in head and value != "–"]
        link = re.fullmatch(r"\[weights\]\((.*)\)", row.get("weights", ""))
        assert bool(published) == bool(link), row["config"]
        if link:
            (place,) = (place for place in PUBLISHED if link[1].startswith(place))
            ending, number = PUBLISHED[place]
            assert link[1].endswith(ending)
            assert all(re.fullmatch(number, value) for value in published)
    links = [row["weights"] for row in MODELS if row.get("weights", "–") != "–"]
    assert len(links) == len(set(links)) == 67


# Of Mask2Former's paper: millions of parameters, and 1e9 multiply-adds.
PAPER = {
    "ade20k/semantic/r50": (44, 71),
    "ade20k/semantic/r101": (63, 90),
    "ade20k/semantic/swin_t": (47, 74),
    "ade20k/semantic/swin_s": (69, 98),
    "ade20k/semantic/swin_b": (107, 223),
    "ade20k/semantic/swin_l": (215, 403),
}


@pytest.mark.parametrize("name", PAPER)
def test_models_are_as_large_as_their_paper_says(name):
    (row,) = (row for row in MODELS if row["config"] == name)
    params, flops = PAPER[name]
    assert abs(float(row["params, M"]) - params) < 0.6
    assert float(row["FLOPs, G"]) == pytest.approx(flops, rel=0.01)


CSWIN = rows_of(PAGE, "UPerNet on")


@pytest.mark.slow
@pytest.mark.parametrize("row", some(CSWIN), ids=lambda row: row["UPerNet on"])
def test_the_table_of_cswin_is_counted_again(row):
    size = row["UPerNet on"][-1]
    whole = counted(f"ade20k/semantic/upernet_cswin_{size.lower()}", row["size"])[0]
    assert (row["params, M"], row["FLOPs, G"]) == printed(whole.parameters, whole.flops, 1)
    if size != "T":
        assert float(row["params, M"]) == pytest.approx(float(row["params*"]), rel=0.01)
    if size == "L":  # published with wider stripes
        assert float(row["FLOPs, G"]) == pytest.approx(float(row["FLOPs*"]), rel=0.05)
        return
    assert float(row["FLOPs, G"]) == pytest.approx(float(row["FLOPs*"]), rel=0.003)


@pytest.mark.slow
def test_cswin_l_has_its_published_flops_with_the_stripes_of_384():
    (row,) = (row for row in CSWIN if row["UPerNet on"] == "CSWin-L")
    opts = ["MODEL.CSWIN.STRIPE_WIDTHS", [1, 2, 12]]
    whole = counted("ade20k/semantic/upernet_cswin_l", row["size"], opts)[0]
    assert f"ours are {whole.flops / 1e9:.1f} G" in PAGE
    assert whole.flops / 1e9 == pytest.approx(float(row["FLOPs*"]), rel=0.03)


# Of MaskFormer's paper, averages over images of a mean size that the page says.
MASKFORMER = {"swin_t": 179, "swin_s": 259, "swin_b": 411}


@pytest.mark.parametrize("backbone", MASKFORMER)
def test_maskformers_average_is_that_of_larger_images(backbone):
    (row,) = (row for row in MODELS if row["config"] == f"coco/panoptic/maskformer_{backbone}")
    ours = float(row["FLOPs, G"])
    assert ours == pytest.approx(MASKFORMER[backbone], rel=0.05)
    height, width = (int(side) for side in re.search(r"\((\d+) x (\d+)\), where", PAGE).groups())
    assert ours * height * width / (800 * 1067) == pytest.approx(MASKFORMER[backbone], rel=0.005)


# Of Table 1: the config of a model, and the tokens in each block of its decoder, for C classes.
DECODERS = {
    "Segmenter": ("segmenter_vit_b", lambda C, k: [1024 + C] * 2),
    "Segmenter + EncNet": ("segmenter_encnet_vit_b", lambda C, k: [1024 + C] * 2),
    "ESSNet": ("segmenter_essnet_vit_b", lambda C, k: [1024 + C] * 2),
    "Segmenter + RankSeg": ("segmenter_vit_b_rankseg", lambda C, k: [64 + C, 1024 + k, 1024 + k]),
}
DATA = {"150": ("ade20k", 50), "171": ("coco_stuff", 50), "1,284": ("coco_lvis", 100)}


@pytest.mark.slow
@pytest.mark.parametrize("row", some(TABLE_1), ids=lambda row: f"{row['model']}-{row['classes']}")
def test_the_papers_table_is_counted_again(row):
    name, tokens = DECODERS[row["model"]]
    data, topk = DATA[row["classes"]]
    whole = counted(f"{data}/semantic/{name}", "512 x 512")[0]
    assert row["params"] == f"{whole.parameters / 1e6:.2f}"
    assert row["FLOPs"] == f"{whole.flops / 1e9:.2f}"
    width, patches = 768, 1025
    backbone = 12 * (4 * patches * width**2 + 2 * patches**2 * width)
    decoder = sum(n**2 * width for n in tokens(int(row["classes"].replace(",", "")), topk))
    rule = (whole.flops - backbone - decoder) / 1e9
    assert row["by its rule"] == f"{rule:.2f}"
    assert float(row["params"]) == pytest.approx(float(row["params*"]), rel=0.01)
    if (row["model"], row["classes"]) != ("Segmenter + RankSeg", "1,284"):
        assert rule == pytest.approx(float(row["FLOPs*"]), rel=0.03)
