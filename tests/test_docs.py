"""The pages for readers: links lead somewhere, and code that a page shows can run."""

import contextlib
import functools
import io
import itertools
import os
import pkgutil
import re
import shlex
import subprocess
import sys

import pytest
from detectron2.engine import default_argument_parser
from support import own_data
from support.paths import ROOT

from rankseg_d2 import cli
from rankseg_d2._yaml import settable_keys
from rankseg_d2.config import get_config
from rankseg_d2.config_files import shipped_names

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "datasets/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_exists(page):
    path = ROOT / page
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    files = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [name for name in files if name and not (path.parent / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_heading_that_a_link_names_exists(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    missing = []
    for name, heading in re.findall(r"\]\(([^)\s:]*\.md)?#([^)\s]+)\)", text):
        other = (path.parent / name).read_text(encoding="utf-8") if name else text
        if heading not in map(anchor, re.findall(r"^#+ (.*)$", other, re.MULTILINE)):
            missing.append(f"{name}#{heading}")
    assert missing == []


def anchor(heading):
    """The name that a heading has in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_module_and_name_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:rankseg_d2|tests|configs|docs|tools|examples)/[\w./]*)`", text)
    assert [name for name in paths if not (ROOT / name).exists()] == []
    for name in re.findall(r"^(?:from |import |.*`)(rankseg_d2(?:\.\w+)+)", text, re.MULTILINE):
        pkgutil.resolve_name(name)  # raises its error if there is no such name


def test_readme_links_every_page_of_docs():
    links = re.findall(r"\]\((docs/\w+\.md)\)", (ROOT / "README.md").read_text("utf-8"))
    assert {page for page in PAGES if page.startswith("docs/")} <= set(links)


def test_what_troubleshooting_quotes_of_the_package_is_written_there():
    files = (ROOT / "rankseg_d2").rglob("*.py")
    written = re.sub(r'"\s+f?"', "", "".join(path.read_text("utf-8") for path in files))
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    quotes = re.findall(r'"([^"]+)"', page)
    assert "holds a run already" in quotes
    assert [quote for quote in quotes if " ".join(quote.split()) not in written] == []


RUNS = ["README.md", "docs/config.md", "docs/data.md", "docs/engine.md", "docs/evaluation.md"]
RUNS += ["docs/explore.md", "docs/export.md", "docs/kappa.md", "docs/migration.md"]
RUNS += ["docs/models.md", "docs/predict.md", "docs/ranking.md", "docs/training.md"]
RUNS += ["docs/video.md"]


MODEL = """
import os
from rankseg_d2 import build_model, get_config
from rankseg_d2.engine import Checkpointer, describe, pack
cfg = get_config("my.yaml")
Checkpointer(build_model(cfg), ".", description=describe(cfg)).save("model")
pack("model.pth", "model_best.safetensors")
os.rename("images", "photos")
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNS)
def test_the_python_of_a_page_runs_as_printed(page, tmp_path):
    """All blocks of a page, one after the other; `my.yaml` is a config of the reader's."""
    own_data.semantic(tmp_path)
    (tmp_path / "my.yaml").rename(tmp_path / "street.yaml")
    (tmp_path / "my.yaml").write_text(
        "_BASE_: shapes/panoptic/r10t_rankseg\n"
        "DATASETS: {FILES: [street.yaml]}\n"
        "SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 1}\n"
        "MODEL: {DEVICE: cpu, RANKSEG: {TOPK: 3}, MASK_FORMER: {TEST: {PANOPTIC_ON: False}}}\n"
        "INPUT: {DATASET_MAPPER_NAME: mask_former_semantic, CROP: {SIZE: [32, 32]}}\n"
    )
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    if "model_best.safetensors" in "".join(blocks):
        explores = page == "docs/explore.md"
        made = "os.path.exists('page.html')" if explores else "len(os.listdir('out')) == 20"
        blocks = [MODEL, *blocks, f"import os; assert {made}"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_all_pages_with_python_are_run():
    others = {"docs/extending.md", "docs/own_data.md", "docs/shapes.md", "CONTRIBUTING.md"}
    pages = {page for page in PAGES if "```python" in (ROOT / page).read_text("utf-8")}
    assert pages == {*RUNS, *others}


def commands(page):
    """The words of each line of a page's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_valid(page, tmp_path, monkeypatch):
    """Configs and keys exist, and subcommands and options too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("_BASE_: toy/semantic/r18\n")
    for words in commands(page):
        if "train_net.py" in words:
            args = words[words.index("train_net.py") + 1 :]
            args = default_argument_parser().parse_args(args)
            if not re.match("(street|cars|scenes)/", args.config_file):  # the page makes them
                get_config(args.config_file, args.opts)
        if words[:1] == ["rankseg-d2"]:
            command = words[1:3] if words[1] == "dataset" else words[1:2]
            with pytest.raises(SystemExit) as ended:
                cli.main([*command, "--help"])
            assert ended.value.code == 0


@functools.cache
def help_of(command):
    """What `--help` of a command says, or of rankseg-d2 itself for ()."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written), pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    return written.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_every_subcommand_and_option_of_rankseg_d2_that_a_page_names_exists(page):
    """In blocks of commands, and in the text."""
    text = (ROOT / page).read_text("utf-8")
    named = [shlex.split(line) for line in re.findall(r"`(rankseg-d2\s[^`]*)`", text)]
    for words in (*named, *(words for words in commands(page) if words[:1] == ["rankseg-d2"])):
        names = itertools.takewhile(lambda word: re.fullmatch("[a-z][a-z-]*", word), words[1:])
        plain = list(names)
        count = 3 if plain[:2] == ["dataset", "prepare"] else 2 if plain[:1] == ["dataset"] else 1
        known = re.findall(r"(?<!\w)--[\w-]+", help_of(tuple(plain[:count])))
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert [option for option in options if option not in known] == [], words


KEYS = settable_keys(get_config("toy/semantic/base"))


@pytest.mark.parametrize("page", PAGES)
def test_every_config_key_that_a_page_names_exists(page):
    """With their section: `SOLVER.BASE_LR`, `TEST.VIDEO.*`, `TEST.BEST.{METRIC, MODE}`."""
    text = (ROOT / page).read_text("utf-8")
    sections = "|".join(name for name, key in KEYS.items()
                        if "." not in name and isinstance(key.value, dict))  # fmt: skip
    names = re.findall(rf"(?<![\w.])((?:{sections})(?:\.[A-Z]\w*)+)(\.\{{[^}}]*\}})?", text)
    names = {f"{name}.{last}" if last else name
             for name, lasts in names for last in re.findall(r"\w+", lasts) or [""]}  # fmt: skip
    assert [name for name in names if name not in KEYS] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_shipped_config_that_a_page_names_exists(page):
    text = (ROOT / page).read_text("utf-8")
    known = shipped_names()
    folders = "|".join({name.partition("/")[0] for name in known})
    tasks = "semantic|panoptic|instance|entity|parsing|video_semantic|video_instance"
    names = re.findall(rf"(?<![\w/.-])((?:{folders})/(?:{tasks})/\w+)(?![\w./*…-])", text)
    assert [name for name in names if name not in known] == []


def test_the_code_of_extending_runs(tmp_path):
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    use = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from detectron2.data import DatasetCatalog, MetadataCatalog\n"
        "from rankseg_d2.evaluation import build_evaluator\n"
        "for name, kind in (('images', 'jpg'), ('labels', 'png')):\n"
        "    Path(f'tiny/{name}/val').mkdir(parents=True)\n"
        "    Image.fromarray(np.zeros((8, 8), np.uint8)).save(f'tiny/{name}/val/one.{kind}')\n"
        "register(Path('.'))\n"
        "(record,) = DatasetCatalog.get('tiny_sem_seg_val')\n"
        "record |= {'height': 8, 'width': 8}\n"
        "vars(MetadataCatalog.get('tiny_sem_seg_val'))['evaluator_type'] = 'counted'\n"
        "ids = np.zeros((8, 8, 3), np.uint8)\n"
        "ids[:4, :, 0], ids[4:, :, 0] = 1, 2\n"
        "Image.fromarray(ids).save('segments.png')\n"
        "segments = [{'id': 1, 'category_id': 7, 'isthing': True},\n"
        "            {'id': 2, 'category_id': 9, 'isthing': False}]\n"
        "cfg.INPUT.DATASET_MAPPER_NAME, cfg.INPUT.CROP.ENABLED = 'things', False\n"
        "cfg.DATASETS.TRAIN = ['tiny_sem_seg_val']\n"
        "from rankseg_d2.data.mappers import build_mapper\n"
        "sample = record | {'pan_seg_file_name': 'segments.png', 'segments_info': segments}\n"
        "instances = build_mapper(cfg, is_train=True)(sample)['instances']\n"
        "assert instances.gt_classes.tolist() == [7]\n"
        "(mask,) = instances.gt_masks.tensor\n"
        "assert mask[0].all() and not mask[-1].any()\n"
        "evaluator = build_evaluator(cfg, 'tiny_sem_seg_val')\n"
        "evaluator.reset()\n"
        "found = [{'id': 1, 'category_id': 0}, {'id': 2, 'category_id': 1}]\n"
        "labels = torch.zeros(8, 8, dtype=torch.int64)\n"
        "prediction = {'sem_seg_labels': labels, 'panoptic_seg': (labels + 1, found)}\n"
        "evaluator.process([record], [prediction])\n"
        "results = evaluator.evaluate()\n"
        "assert results['count'] == {'segments': 2.0}, results\n"
        "assert results['sem_seg']['mIoU'] == 100, results\n"
    )
    script = "\n".join([*re.findall(r"```python\n(.*?)```", text, re.DOTALL), use])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch.Size([96, 128]) 75\n"
