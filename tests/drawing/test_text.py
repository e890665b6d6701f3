"""Text of any script, cut to a width, inside and outside of the picture."""

import cv2
import numpy as np
import pytest

from rankseg_d2.drawing import text

SCRIPTS = [
    "wall",
    "Straße",
    "дерево",
    "木 猫",
    "شجرة",
    "한국",
    "a\nb\tc",
    "x\ud800",
    "",
    "  ",
    "🐱",
]


@pytest.fixture(params=["opencv", "pillow"])
def backend(request, monkeypatch):
    """Both ways of drawing letters; OpenCV's needs version 5."""
    if request.param == "pillow":
        monkeypatch.setattr(text, "_SANS", None)
    elif not hasattr(cv2, "FontFace"):
        pytest.skip("this OpenCV has no fonts")
    text.text_mask.cache_clear()
    yield request.param
    text.text_mask.cache_clear()


def test_every_script_gives_one_line(backend):
    for words in SCRIPTS:
        mask = text.text_mask(words, 13)
        assert mask.dtype == np.uint8
        assert mask.shape[0] == text.line_height(13)
        assert mask.any() or not words.strip()


def test_all_of_a_letter_lies_in_the_line(backend, monkeypatch):
    sizes = (9, 12, 13, 20, 26)
    masks = [text.text_mask("ÅHgjpq|", size) for size in sizes]
    monkeypatch.setattr(text, "line_height", lambda size: 3 * size)  # with space on both sides
    monkeypatch.setattr(text, "_baseline", lambda size: 2 * size)
    text.text_mask.cache_clear()
    for size, mask in zip(sizes, masks, strict=True):
        assert mask.sum() == text.text_mask("ÅHgjpq|", size).sum() > 0


def test_words_of_a_long_text_are_not_wrapped(backend):
    assert text.text_width("wide " * 40, 13) > 30 * text.text_width("wide", 13)


def test_what_does_not_fit_is_cut(backend):
    name = "a very long name of a category"
    assert text.fitting(name, 13, 1000) == name
    cut = text.fitting(name, 13, 80)
    assert cut.endswith("…")
    assert name.startswith(cut[:-1])
    assert text.text_width(cut, 13) <= 80
    more = name[: len(cut) + 1].rstrip() + "…"
    assert text.text_width(more, 13) > 80
    assert text.fitting(name, 13, 3) == ""


@pytest.mark.parametrize("position", [(-20, 3), (3, -8), (95, 3), (3, 36), (500, 500), (-500, 0)])
def test_the_picture_cuts_the_text(position):
    """As on a larger picture of which this one is a part."""
    small, large = np.zeros((40, 100, 3), np.uint8), np.zeros((240, 300, 3), np.uint8)
    text.draw_text(small, "cut me", position, 13, (200, 100, 50))
    text.draw_text(large, "cut me", (position[0] + 100, position[1] + 100), 13, (200, 100, 50))
    assert np.array_equal(small, large[100:140, 100:200])


def test_alignment_moves_the_text_by_its_width():
    width = text.text_width("moved", 13)
    pictures = [np.zeros((20, 100, 3), np.uint8) for _ in range(2)]
    text.draw_text(pictures[0], "moved", (80 - width, 0), 13, (255, 0, 9))
    text.draw_text(pictures[1], "moved", (80, 0), 13, (255, 0, 9), align=1)
    assert np.array_equal(*pictures)


def test_upright_text_is_turned_to_the_left():
    flat, upright = np.zeros((30, 90, 3), np.uint8), np.zeros((90, 30, 3), np.uint8)
    text.draw_text(flat, "turned", (5, 3), 13, (255, 255, 255))
    text.draw_text(upright, "turned", (3, 85), 13, (255, 255, 255), upright=True)
    assert np.array_equal(np.rot90(flat), upright)


def test_blending_is_exact():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    mask = random.integers(0, 256, (40, 50), dtype=np.uint8)
    mask[0], mask[1] = 0, 255
    share = mask[..., None] / 255
    expected = np.floor(share * (3, 128, 255) + (1 - share) * picture + 0.5 + 1e-9)
    text.blend(picture, mask, (0, 0), (3, 128, 255))
    assert np.array_equal(picture, expected)
