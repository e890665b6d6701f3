"""Where the pictures of `stickers` come from: a colour font or a folder of emoji, and photos.

Nothing is downloaded. A font must hold bitmaps, as Noto Color Emoji of Linux distributions does.
"""

import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from ...errors import short
from ..formats.image_files import read_rgb

INSTALL = "apt install fonts-noto-color-emoji"
EMOJI_VARIABLE, PHOTOS_VARIABLE = "RANKSEG_EMOJI", "RANKSEG_PHOTOS"
SIZE = 96  # pixels of the longer side of a sticker's picture
_FONT_NAME = "NotoColorEmoji.ttf"
_FONT_FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
    "/Library/Fonts", "~/Library/Fonts",
)  # fmt: skip
_FONT_SIZES = (109, 136, 128, 160, 96, 64)  # a bitmap font opens at its own sizes only
_NO_CHARACTER = 0x10FFFF
_SCIKIT_IMAGE = "scikit-image"
_ITS_PHOTOS = (  # colour photos that its wheel holds
    "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
_PHOTO_SIZE = 256  # pixels of the shorter side
_PICTURE_ENDINGS = {".png", ".webp", ".jpg", ".jpeg"}


def find_font() -> Path | None:
    """Noto Color Emoji, where a system installs fonts."""
    for folder in _FONT_FOLDERS:
        found = sorted(Path(folder).expanduser().rglob(_FONT_NAME))
        if found:
            return found[0]
    return None


def emoji_source(chosen: str | Path | None) -> Path:
    """The font, or the folder of pictures: the chosen one, else the installed font."""
    path = Path(chosen).expanduser() if chosen else find_font()
    if path is None:
        raise FileNotFoundError(
            f"stickers are drawn from a font of emoji, and {_FONT_NAME} is not installed; install "
            f"it ({INSTALL}), or name a font or a folder of pictures by the environment variable "
            f"{EMOJI_VARIABLE}"
        )
    if not path.exists():
        raise FileNotFoundError(f"{path}, the font or folder of emoji, does not exist")
    return path.resolve()


def photo_folder(chosen: str | Path | None) -> Path | None:
    """The folder of photos: the chosen one, or that of an installed scikit-image."""
    if not chosen:
        return None
    if str(chosen) == _SCIKIT_IMAGE:
        package = importlib.util.find_spec("skimage")
        if package is None:
            raise FileNotFoundError(
                'the photos of scikit-image need it: pip install "rankseg_d2[photos]"'
            )
        return Path(package.submodule_search_locations[0], "data")
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}, the folder of photos, does not exist")
    return folder.resolve()


def fingerprint(source: Path, files: Iterable[Path]) -> str:
    """A hash of a file, or of the named files of a folder."""
    digest = hashlib.sha256()
    for path in [source] if source.is_file() else files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=2)
def load_stickers(source: Path, code_points: tuple[int, ...]) -> list[list[np.ndarray]]:
    """Of each emoji, its picture at three sizes, largest first: (S, S, 4) float32.

    RGB is multiplied by alpha, which is 0 to 1. An emoji without a picture is a ValueError.
    """
    if source.is_dir():
        pictures = [_read_rgba(path) for path in picture_files(source, code_points)]
    else:
        pictures = _glyphs(source, code_points)
    pairs = zip(code_points, pictures, strict=True)
    _check_all(source, [code for code, picture in pairs if not picture[..., 3].any()])
    return [_pyramid(picture) for picture in pictures]


def picture_files(folder: Path, code_points: Iterable[int]) -> list[Path]:
    """The pictures of a folder, whose names are code points: 1f34e.png or emoji_u1f34e.png."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _PICTURE_ENDINGS:
            stem = path.stem.lower().removeprefix("emoji_u").lstrip("0")
            files.setdefault(re.sub(r"[-_]fe0f$", "", stem), path)
    code_points = list(code_points)
    _check_all(folder, [code for code in code_points if f"{code:x}" not in files])
    return [files[f"{code:x}"] for code in code_points]


def _check_all(source: Path, missing: list[int]) -> None:
    if missing:
        names = ", ".join(f"{chr(code)} (U+{code:X})" for code in missing[:3])
        raise ValueError(
            f"{source} has no picture of {len(missing)} emoji, such as {names}; name another font "
            f"or folder by {EMOJI_VARIABLE}, or use fewer categories"
        )


def _read_rgba(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA"))
    except OSError as error:
        raise ValueError(f"{path} is not a picture that can be read ({error})") from error


def _glyphs(path: Path, code_points: tuple[int, ...]) -> list[np.ndarray]:
    """(H, W, 4) uint8 of each code point; zeros where the font has none."""
    font = _open_font(path)
    unknown = _glyph(font, _NO_CHARACTER)
    pictures = [_glyph(font, code) for code in code_points]
    pictures = [p * (not np.array_equal(p, unknown)) for p in pictures]
    if not any(picture.any() for picture in pictures):
        raise ValueError(
            f"{path} has no bitmaps of emoji that Pillow can read (fonts in the format COLRv1 have "
            f"none); use {_FONT_NAME} of a Linux distribution ({INSTALL}), or a folder of pictures"
        )
    return pictures


def _open_font(path: Path):
    from PIL import ImageFont

    reason = ""
    for size in _FONT_SIZES:
        try:
            return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            reason = str(error)
    raise ValueError(f"{path} is not a font of emoji that can be read ({short(reason)})")


def _glyph(font, code_point: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    left, top, right, bottom = map(round, font.getbbox(chr(code_point)))
    image = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), chr(code_point), font=font, embedded_color=True)
    return np.asarray(image)


def _pyramid(picture: np.ndarray) -> list[np.ndarray]:
    """The picture without its margins, in the middle of a square, at three sizes."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    seen = alpha[..., 0] > 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    picture = np.concatenate([picture[..., :3] * alpha, alpha], -1)[part]
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 4), np.float32)
    square[top : top + height, left : left + width] = picture
    method = cv2.INTER_AREA if side > SIZE else cv2.INTER_LINEAR
    levels = [cv2.resize(square, (SIZE, SIZE), interpolation=method)]
    for _ in range(2):
        size = levels[-1].shape[0] // 2
        levels.append(cv2.resize(levels[-1], (size, size), interpolation=cv2.INTER_AREA))
    return levels


def photo_files(folder: Path) -> list[Path]:
    """The photos of a folder; of scikit-image's, which holds other files too, the colour photos."""
    if folder.parts[-2:] == ("skimage", "data"):
        return [folder / name for name in _ITS_PHOTOS]
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURE_ENDINGS]
    if not found:
        endings = ", ".join(sorted(_PICTURE_ENDINGS))
        raise ValueError(f"{folder} holds no photo; their names must end with {endings}")
    return found


@functools.lru_cache(maxsize=2)
def load_photos(folder: Path) -> list[np.ndarray]:
    """RGB (H, W, 3) uint8, of a shorter side of 256 pixels."""
    photos = []
    for path in photo_files(folder):
        photo = read_rgb(str(path), "photo")
        scale = _PHOTO_SIZE / min(photo.shape[:2])
        size = [max(_PHOTO_SIZE, round(length * scale)) for length in photo.shape[1::-1]]
        photos.append(cv2.resize(photo, size, interpolation=cv2.INTER_AREA))
    return photos
