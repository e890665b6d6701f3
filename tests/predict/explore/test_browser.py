"""The page in a real browser: RANKSEG_CHROMIUM or PATH says where it is."""

import re

import numpy as np
import pytest
from support import chromium
from support.exploring import (
    PLAIN,
    RANKING,
    agreement,
    make_predictor,
    pixels,
    wishes_for,
)
from support.pixel_families import FAMILIES, rankseg
from support.predicting import NAMES, make_family_predictor
from support.small import CLASSES, MASK2FORMER, RANKSEG

ENOUGH = 0.995
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.find() is None, reason="needs Chromium, in PATH or RANKSEG_CHROMIUM"
    ),
]


@pytest.fixture(scope="module")
def browser():
    browser = chromium.Browser(chromium.find())
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def quiet(browser):
    """Neither errors nor requests but for the file and what is inside it."""
    browser.errors.clear(), browser.requests.clear()
    yield
    assert browser.errors == []
    assert [
        url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))
    ] == []


def labels(browser, size, script=""):
    return np.array(browser.run(f"rankseg.labels({script})")).reshape(size)


@pytest.mark.parametrize("options", RANKING.values(), ids=RANKING)
def test_the_browser_ranks_as_python_does(options, browser, tmp_path):
    predictor, image = make_predictor(*options), pixels()
    result = predictor(image, explorable=True)
    browser.open(result.explore(tmp_path / "page.html"))
    assert agreement(labels(browser, result.size), result) >= ENOUGH
    for topk, threshold, denied in wishes_for(result):
        names = [NAMES[i] for i in denied]
        wanted = predictor(image, topk=topk, threshold=threshold or None, deny=names)
        script = f"{{topk: {topk}, threshold: {threshold}, denied: {list(denied)}}}"
        assert agreement(labels(browser, result.size, script), wanted) >= ENOUGH, script


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_the_browser_denies_as_python_does(options, browser, tmp_path):
    predictor, image = make_predictor(*options), pixels(1)
    result = predictor(image, explorable=True)
    browser.open(result.explore(tmp_path / "page.html"))
    largest = np.bincount(result.semantic.ravel(), minlength=CLASSES).argsort()[::-1].tolist()
    for denied in ([], largest[:1], largest[:3]):
        wanted = predictor(image, deny=[NAMES[i] for i in denied])
        found = labels(browser, result.size, f"{{denied: {denied}}}")
        assert agreement(found, wanted) >= ENOUGH
    assert browser.run("$['ranking-controls'].hidden")


@pytest.mark.parametrize(
    "family", ["SegFormer", "UPerNet Swin", "UPerNet BEiT", "DeepLabV3", "Segmenter linear"]
)
def test_the_browser_ranks_pixels_of_other_families(family, browser, tmp_path):
    predictor, image = make_family_predictor(FAMILIES[family] | rankseg(family)), pixels(2)
    result = predictor(image, explorable=True)
    browser.open(result.explore(tmp_path / "page.html"))
    assert len(np.unique(result.semantic)) > 1
    assert agreement(labels(browser, result.size), result) >= ENOUGH
    best = result.categories[0].number
    script = f"{{topk: 3, threshold: 0, denied: [{best}]}}"
    wanted = predictor(image, topk=3, deny=[NAMES[best]])
    assert agreement(labels(browser, result.size, script), wanted) >= ENOUGH


@pytest.fixture
def shown(browser, tmp_path):
    """A predictor, its result, and the page of it, open."""
    predictor = make_predictor(MASK2FORMER, RANKSEG)
    result = predictor(pixels(), explorable=True)
    browser.open(result.explore(tmp_path / "page.html"))
    return predictor, result


def press(browser, script):
    """Do it, and wait for the next frames."""
    frame = "new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))"
    browser.run(f"{script}; {frame}")


def test_controls_do_what_the_python_call_beside_them_says(browser, shown):
    predictor, result = shown
    best = result.categories[0].name
    press(browser, "$.topk.value = 2; $.topk.dispatchEvent(new Event('input'))")
    press(browser, "rows[0].box.click()")
    call = browser.run("$.call.textContent")
    assert call == f'result = predictor("0", topk=2, deny=["{best}"])'
    wanted = predictor(pixels(), topk=2, deny=[best])
    drawn = browser.run("[...after.labels]")
    assert agreement(np.array(drawn).reshape(result.size), wanted) >= ENOUGH
    names = browser.run(
        "[...document.querySelectorAll('.row:not(.out) .name')].map(e => e.textContent)"
    )
    assert names == [one.name for one in wanted.categories if one.kept]
    place = browser.run("[...$.rows.children].findIndex(e => e.className == 'cut')")
    assert place == 3  # below the two kept ones and the denied one


def test_the_threshold_moves_the_line(browser, shown):
    press(browser, "$.threshold.value = 999; $.threshold.dispatchEvent(new Event('input'))")
    assert browser.run("after.kept.length") == 1
    assert "threshold" in browser.run("document.querySelector('.cut').textContent")
    press(browser, "$.threshold.value = 0; $.threshold.dispatchEvent(new Event('input'))")
    assert browser.run("after.kept.length") == 4
    assert browser.run("$.call.textContent") == 'result = predictor("0")'


def test_before_shows_the_prediction_and_reset_returns_to_it(browser, shown):
    _, result = shown
    fill = "$.fill.toDataURL()"
    first = browser.run(fill)
    assert browser.run("$.reset.disabled")
    press(browser, "rows[0].box.click()")
    assert browser.run(fill) != first
    assert "change" in browser.run("$.summary.textContent")
    press(browser, "document.querySelector('[data-view=before]').click()")
    assert browser.run(fill) == first
    press(browser, "document.querySelector('[data-view=changes]').click()")
    drawn = browser.run("[...$.fill.getContext('2d').getImageData(0, 0, 78, 50).data]")
    alpha = np.array(drawn).reshape(*result.size, 4)[..., 3] > 0
    changed = np.array(browser.run("[...after.labels]")) != np.array(
        browser.run("[...before.labels]")
    )
    assert (alpha == changed.reshape(result.size)).all()
    press(browser, "$.reset.click()")
    press(browser, "document.querySelector('[data-view=after]').click()")
    assert browser.run(fill) == first and browser.run("$.reset.disabled")


def test_one_category_stays(browser, shown):
    press(browser, "rows.forEach(({ box }) => box.checked && box.click())")
    assert browser.run("after.kept.length") == 1
    assert browser.run("rows.filter(({ box }) => box.checked).length") == 1


def test_pointing_says_what_a_pixel_is_and_what_came_second(browser, shown):
    box = "(({ left, top, width, height }) => [left, top, width, height])"
    left, top, width, height = browser.run(f"{box}($.frame.getBoundingClientRect())")
    x, y = 20, 30
    at = {"x": left + width * (x + 0.5) / 78, "y": top + height * (y + 0.5) / 50}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
    names = browser.run(
        "[...$.tip.querySelectorAll('.line span:nth-child(2)')].map(e => e.textContent)"
    )
    assert names[0] == NAMES[browser.run(f"after.labels[{y * 78 + x}]")]
    scores = browser.run(
        "[...$.tip.querySelectorAll('.line span:nth-child(3)')].map(e => +e.textContent)"
    )
    assert len(set(names)) == 3 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_window(browser, width, tmp_path):
    result = make_predictor(MASK2FORMER, RANKSEG)(pixels(), explorable=True)
    path = result.explore(tmp_path / "page.html")
    for dark in (False, True):
        browser.open(path, width=width, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
        style = "getComputedStyle(document.body)"
        ink, paper = (bright(browser.run(f"{style}.{name}")) for name in ("color", "background"))
        assert (paper < 60 and ink > 200) if dark else (paper > 200 and ink < 60)


def bright(color):
    """The mean of the first three numbers of a colour."""
    return np.mean([int(part) for part in re.findall(r"\d+", color)[:3]])
