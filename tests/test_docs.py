"""The pages for readers: links lead somewhere, and code that a page shows can run."""

import importlib.util
import re
import subprocess
import sys

import pytest
from support.paths import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "datasets/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_exists(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
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
def test_every_file_and_module_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:rankseg_d2|tests|configs|docs|tools|examples)/[\w./]*)`", text)
    assert [name for name in paths if not (ROOT / name).exists()] == []
    imports = re.findall(r"^(?:from|import) (rankseg_d2[\w.]*)", text, re.MULTILINE)
    assert [name for name in imports if importlib.util.find_spec(name) is None] == []
