"""Where the pictures of `stickers` come from, and what is said where they are missing."""

import numpy as np
import pytest
from PIL import Image
from support.emoji import make_emoji

from rankseg_d2.data.stickers import pictures
from rankseg_d2.data.stickers.build import code_points
from rankseg_d2.data.stickers.pictures import (
    emoji_source,
    find_font,
    load_photos,
    load_stickers,
    photo_folder,
    picture_files,
)

FONT = find_font()


@pytest.mark.parametrize("name", ["{:x}.png", "emoji_u{:x}.png", "{:X}.PNG", "{:x}-fe0f.png"])
def test_names_of_noto_emoji_and_twemoji_are_read(name, tmp_path):
    folder = make_emoji(tmp_path / "emoji", 20, name=name)
    codes = code_points(20)
    assert [path.name for path in picture_files(folder, codes)] == [name.format(c) for c in codes]


def test_a_picture_loses_its_margins_and_keeps_its_proportions(tmp_path):
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[10:50, 30:50] = (200, 100, 50, 255)  # 40 x 20
    pixels[10:20, 30:50, 3] = 128
    Image.fromarray(pixels).save(tmp_path / "1f34e.png")
    ((large, middle, small),) = load_stickers(tmp_path, (0x1F34E,))
    assert (len(large), len(middle), len(small)) == (96, 48, 24)
    for level in (large, middle, small):
        alpha = level[..., 3]
        assert alpha.min() == 0 and alpha.max() == pytest.approx(1)
        assert alpha.mean() == pytest.approx((3 + 0.5) / 4 / 2, abs=0.02)
        color = level[len(level) * 3 // 4, len(level) // 2]
        assert color == pytest.approx([200, 100, 50, 1], abs=1)
        top = level[len(level) // 8, len(level) // 2]
        assert top == pytest.approx(np.array([200, 100, 50, 1]) * 128 / 255, abs=2)


def test_pictures_that_are_absent_are_named(tmp_path):
    folder = make_emoji(tmp_path / "emoji", 20)
    (folder / f"{code_points(20)[3]:x}.png").unlink()
    with pytest.raises(ValueError, match=r"no picture of 1 emoji, such as . \(U\+1F353\)"):
        picture_files(folder, code_points(20))


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "1f34e.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="1f34e.png is not a picture that can be read"):
        load_stickers(tmp_path, (0x1F34E,))


def test_an_empty_picture_is_named(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "1f34e.png")
    with pytest.raises(ValueError, match=r"no picture of 1 emoji, such as 🍎 \(U\+1F34E\)"):
        load_stickers(tmp_path, (0x1F34E,))


def test_without_a_font_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_FONT_FOLDERS", (str(tmp_path),))
    with pytest.raises(FileNotFoundError, match="apt install fonts-noto-color-emoji.*RANKSEG_EMO"):
        emoji_source(None)
    (tmp_path / "truetype").mkdir()
    (tmp_path / "truetype/NotoColorEmoji.ttf").touch()
    assert emoji_source(None) == tmp_path / "truetype/NotoColorEmoji.ttf"


def test_a_font_that_does_not_exist_or_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="emoji.ttf, the font or folder.* does not exist"):
        emoji_source(tmp_path / "emoji.ttf")
    (tmp_path / "emoji.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match="emoji.ttf is not a font of emoji"):
        load_stickers(tmp_path / "emoji.ttf", (0x1F34E,))


def test_a_font_without_bitmaps_is_told_from_one_that_lacks_some(tmp_path, monkeypatch):
    full, empty = np.full((4, 4, 4), 255, np.uint8), np.zeros((4, 4, 4), np.uint8)
    monkeypatch.setattr(pictures, "_open_font", lambda path: None)
    monkeypatch.setattr(pictures, "_glyph", lambda font, code: empty)
    with pytest.raises(ValueError, match="no bitmaps of emoji that Pillow can read.*COLRv1"):
        load_stickers(tmp_path / "color.ttf", (0x1F34E, 0x1F34F))
    monkeypatch.setattr(pictures, "_glyph", lambda font, code: full if code == 0x1F34E else empty)
    with pytest.raises(ValueError, match=r"no picture of 1 emoji, such as 🍏 \(U\+1F34F\)"):
        load_stickers(tmp_path / "old.ttf", (0x1F34E, 0x1F34F))


@pytest.mark.slow
@pytest.mark.skipif(FONT is None, reason=f"needs the font: {pictures.INSTALL}")
def test_the_installed_font_has_a_picture_of_its_own_for_every_sticker():
    smallest = [levels[-1] for levels in load_stickers(FONT, code_points(1000))]
    flat = np.stack(smallest).reshape(len(smallest), -1) / 255
    squares = (flat**2).sum(1)
    distances = squares[:, None] + squares - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 1


def test_photos_have_one_size_and_scikit_images_need_its_package(tmp_path, monkeypatch):
    Image.new("RGB", (400, 100), (9, 8, 7)).save(tmp_path / "photo.png")
    (tmp_path / "notes.txt").touch()
    (photo,) = load_photos(photo_folder(tmp_path))
    assert photo.shape == (256, 1024, 3) and (photo == (9, 8, 7)).all()
    assert photo_folder(None) is None
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r'pip install "rankseg_d2\[photos\]"'):
        photo_folder("scikit-image")
    with pytest.raises(FileNotFoundError, match="folder of photos, does not exist"):
        photo_folder(tmp_path / "other")
    (tmp_path / "photo.png").unlink()
    with pytest.raises(ValueError, match="holds no photo"):
        pictures.photo_files(tmp_path)
