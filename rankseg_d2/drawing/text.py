"""Text of any script, as a mask of coverage: by OpenCV 5, or by Pillow where OpenCV is older."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import cv2
import numpy as np

_LOCK = threading.Lock()  # a font has a state
_SANS = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
# Found by name among the fonts of the system, for letters that Pillow's own font lacks.
_SYSTEM_FONTS = (
    "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf",
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc",
)  # fmt: skip
_NO_LETTER = "\U0010ffff"


def line_height(size: int) -> int:
    return round(1.4 * size)


def text_width(text: str, size: int) -> int:
    return text_mask(text, size).shape[1]


def fitting(text: str, size: int, width: float) -> str:
    """The text, cut to what fits into `width` pixels; "" if not even a letter does."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # text[:low] fits
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(f"{text[:middle].rstrip()}…", size) <= width:
            low = middle
        else:
            high = middle - 1
    return f"{text[:low].rstrip()}…" if low else ""


def draw_text(
    picture: np.ndarray,
    text: str,
    position: tuple[float, float],
    size: int,
    ink: Sequence[int],
    *,
    align: float = 0,
    upright: bool = False,
) -> None:
    """Draw into the picture, which cuts the text; `position` is x, y of the line's upper end.

    Args:
        align: the share of the text that lies left of x.
        upright: read from bottom to top; `position` is then of the line's left end, and `align`
            the share below y.
    """
    mask, (x, y) = text_mask(text, size), position
    if upright:
        mask = np.rot90(mask)
        y -= (1 - align) * mask.shape[0]
    else:
        x -= align * mask.shape[1]
    blend(picture, mask, (round(x), round(y)), ink)


def blend(
    picture: np.ndarray, mask: np.ndarray, corner: tuple[int, int], color: Sequence[int]
) -> None:
    """Cover the picture with a colour as far as the mask (h, w) uint8 says."""
    x, y = corner
    left, top = max(-x, 0), max(-y, 0)
    area = picture[max(y, 0) : max(y + mask.shape[0], 0), max(x, 0) : max(x + mask.shape[1], 0)]
    if not area.size:
        return
    mask = mask[top : top + area.shape[0], left : left + area.shape[1]]
    share = np.repeat(mask, 3, 1).astype(np.uint16)  # (h, 3w): NumPy is slow along an axis of 3
    inks = np.tile(np.asarray(color, np.uint16), mask.shape[1])
    total = share * inks + (255 - share) * area.reshape(share.shape) + np.uint16(128)
    area[:] = ((total + (total >> 8)) >> 8).reshape(area.shape)  # divided by 255 and rounded


@lru_cache(4096)
def text_mask(text: str, size: int) -> np.ndarray:
    """Coverage of one line, (line_height, width) uint8, read only."""
    text = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    mask = _opencv_mask(text, size) if _SANS is not None else _pillow_mask(text, size)
    mask.flags.writeable = False
    return mask


def _baseline(size: int) -> int:
    return round(1.04 * size)


def _opencv_mask(text: str, size: int) -> np.ndarray:
    with _LOCK:
        x, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _SANS, size, 400)
        # The text would be wrapped at the end of the image.
        mask = np.zeros((line_height(size), max(x, 0) + width + 2 * size), np.uint8)
        cv2.putText(mask, text, (0, _baseline(size)), 255, _SANS, size, 400)
    used = np.flatnonzero(mask.any(0))
    return mask[:, : used[-1] + 1].copy() if len(used) else mask[:, :0].copy()


def _pillow_mask(text: str, size: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    font = _pillow_font(text, size)
    paper = Image.new("L", (int(font.getlength(text)) + 2 * size, line_height(size)))
    ImageDraw.Draw(paper).text((0, _baseline(size)), text, 255, font, anchor="ls")
    mask = np.asarray(paper)
    used = np.flatnonzero(mask.any(0))
    return mask[:, : used[-1] + 1].copy() if len(used) else mask[:, :0].copy()


def _pillow_font(text: str, size: int):
    """Pillow's own font, or one of the system that has more of the text's letters."""
    fonts = _pillow_fonts(size)
    return min(fonts, key=lambda font: sum(_lacks(font, letter) for letter in set(text)))


@lru_cache(64)
def _pillow_fonts(size: int) -> list:
    from PIL import ImageFont

    fonts = [ImageFont.load_default(size)]
    for name in _SYSTEM_FONTS:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    return fonts


@lru_cache(4096)
def _lacks(font, letter: str) -> bool:
    return not letter.isspace() and bytes(font.getmask(letter)) == bytes(font.getmask(_NO_LETTER))
