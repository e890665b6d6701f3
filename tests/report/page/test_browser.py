"""The page in a real browser: RANKSEG_CHROMIUM or PATH says where it is."""

import pytest
from support import chromium
from support.evaluation_data import CLASSES, NAMES, unregister
from support.runs import make_run, predictions, write_scenes

from rankseg_d2.report.page import read_run, write_page

NAME = "test_report_browser"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.find() is None, reason="needs Chromium, in PATH or RANKSEG_CHROMIUM"
    ),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    records = write_scenes(NAME, folder / "data")
    make_run(folder, NAME, records, predictions(records))
    yield write_page(read_run(folder), folder / "report.html")
    unregister(NAME)


@pytest.fixture(scope="module")
def chrome():
    chrome = chromium.Browser(chromium.find())
    yield chrome
    chrome.close()


@pytest.fixture
def browser(chrome, page):
    """The open page; neither errors nor requests but for the file and what is inside it."""
    chrome.errors.clear(), chrome.requests.clear()
    chrome.open(page)
    yield chrome
    assert chrome.errors == []
    assert [url for url in chrome.requests if not url.startswith(("file:", "data:"))] == []


def column(browser, number, table="#classes"):
    rows = f"[...document.querySelectorAll('{table} tbody tr')]"
    return browser.run(f"{rows}.map(row => row.cells[{number}].textContent)")


def numbers(texts):
    return [float(text.replace(",", "")) for text in texts if text != "–"]


def test_all_parts_are_shown(browser):
    sections = "[...document.querySelectorAll('main > section')]"
    shown = browser.run(f"{sections}.filter(s => !s.hidden).map(s => s.id)")
    expected = ["headlines", "split", "ranking", "curves", "classes", "confusion", "images"]
    assert shown == expected
    assert browser.run("document.querySelectorAll('svg.chart').length") == 5
    assert browser.run("document.querySelectorAll('.bar').length") == 2
    widths = """[...document.querySelectorAll('.parts')].map(bar =>
        [...bar.children].reduce((sum, part) => sum + part.offsetWidth, 0) / bar.offsetWidth)"""
    assert browser.run(widths) == pytest.approx([1, 1], abs=0.02)


def test_columns_sort_both_ways_and_empty_cells_stay_below(browser):
    assert column(browser, 0) == NAMES
    click = "document.querySelectorAll('#classes th button')[{}].click()"
    browser.run(click.format(1))
    falling = column(browser, 1)
    assert numbers(falling) == sorted(numbers(falling), reverse=True)
    assert falling[-2:] == ["–", "–"]  # unicorn and snow have no ground truth
    browser.run(click.format(1))
    rising = column(browser, 1)
    assert numbers(rising) == sorted(numbers(rising))
    assert rising[-2:] == ["–", "–"]
    browser.run(click.format(0))
    assert column(browser, 0) == sorted(NAMES)


def test_the_filter_leaves_the_names_that_match(browser):
    fill = """(filter => {{ filter.value = '{}'; filter.dispatchEvent(new Event('input')) }})
        (document.querySelector('#filter'))"""
    browser.run(fill.format("s"))
    assert column(browser, 0) == [name for name in NAMES if "s" in name]
    browser.run(fill.format("cat | DOG"))
    assert column(browser, 0) == ["cat", "dog"]
    browser.run(fill.format("nothing"))
    assert column(browser, 0) == []
    assert (
        browser.run("document.querySelector('#class-count').textContent")
        == f"0 of {CLASSES} classes"
    )


def test_each_task_has_its_columns(browser):
    heads = "[...document.querySelectorAll('#classes th')].map(h => h.textContent)"
    names = []
    for number in range(3):
        browser.run(f"document.querySelectorAll('#tasks button')[{number}].click()")
        names.append(browser.run(heads))
    assert [head[1] for head in names] == ["IoU", "PQ", "AP"]
    assert "PQ lost to masks" in names[1]


def test_a_confused_pair_leads_to_its_classes(browser):
    shares = numbers(column(browser, 2, "#confusion"))
    assert shares == sorted(shares, reverse=True)
    true, predicted = (column(browser, i, "#confusion")[0] for i in (0, 1))
    browser.run("document.querySelector('#confusion tbody tr').click()")
    assert set(column(browser, 0)) == {true, predicted} & set(NAMES)


def test_all_pictures_load_and_can_be_enlarged(browser):
    loads = """Promise.all([...document.querySelectorAll('#gallery img')].map(i => i.decode()))
        .then(() => document.querySelectorAll('#gallery img').length)"""
    for kind in range(2):
        browser.run(f"document.querySelectorAll('#kinds button')[{kind}].click()")
        for view in range(4):
            browser.run(f"document.querySelectorAll('#views button')[{view}].click()")
            assert browser.run(loads) == 3
    browser.run("document.querySelector('#gallery button').click()")
    assert browser.run("document.querySelector('#large').open")
    assert browser.run("document.querySelector('#large img').decode().then(() => true)")
    caption = "document.querySelector('#large figcaption').textContent"
    first = browser.run(caption)
    assert first.endswith("1 of 3") and "errors" in first
    press = """document.querySelector('#large').dispatchEvent(
        new KeyboardEvent('keydown', {{key: '{}'}}))"""
    browser.run(press.format("ArrowLeft"))
    browser.run(press.format("2"))
    second = browser.run(caption)
    assert second.endswith("3 of 3") and "ground truth" in second
    browser.run("document.querySelector('#close').click()")
    assert not browser.run("document.querySelector('#large').open")


def test_pointing_at_a_curve_shows_its_values(browser):
    values = "document.querySelector('#by-kappa .values').textContent"
    at_the_end = browser.run(values)
    point = """(chart => { const box = chart.getBoundingClientRect();
        const at = {clientX: box.left + box.width * 0.12, clientY: box.top + 9};
        chart.dispatchEvent(new PointerEvent('pointermove', at)) })
        (document.querySelector('#by-kappa svg'))"""
    browser.run(point)
    assert browser.run(values) != at_the_end
    assert browser.run(values).startswith("κ 1")


def test_it_fits_a_narrow_dark_screen(chrome, page):
    chrome.open(page, width=390, height=800, dark=True)
    assert chrome.run("document.documentElement.scrollWidth") <= 390
    assert chrome.errors == []
