"""Image files that are odd: made by other tools, damaged, or made to harm."""

import functools
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)  # height, width


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(array: np.ndarray, *more: bytes) -> bytes:
    """The PNG of an array, with more chunks before its pixels."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    content = file.getvalue()
    head = 8 + 25  # signature and IHDR
    return content[:head] + b"".join(more) + content[head:]


@functools.cache
def png_of_size(height: int, width: int, color: int = 2) -> bytes:
    """A small PNG whose header says that it is large; its pixels are zeros, if there are few."""
    bits = {0: 1, 2: 24}[color]
    head = struct.pack(">IIBBBBB", width, height, 1 if color == 0 else 8, color, 0, 0, 0)
    rows = zlib.compressobj(9)
    row = b"\0" * (1 + -(-width * bits // 8))
    pixels = b"".join(rows.compress(row) for _ in range(min(height, 3000))) + rows.flush()
    parts = chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def text_bomb(array: np.ndarray) -> bytes:
    """A PNG with a text of 2 MB, which Pillow refuses."""
    return png(array, chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"a" * 2_000_000)))


def icc_bomb(array: np.ndarray) -> bytes:
    return png(array, chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * 2_000_000)))


def jpeg(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "jpeg")
    return file.getvalue()


def odd_files(array: np.ndarray) -> dict[str, bytes]:
    """Name -> content of files that are refused as image and as label, from a good array."""
    good = png(array)
    begin = good.index(b"IDAT") + 4
    return {
        "empty": b"",
        "text": b"no image",
        "cut": good[: len(good) // 2],
        "damaged": good[:begin] + b"\xff" * 8 + good[begin + 8 :],
        "text bomb": text_bomb(array),
        "bomb": png_of_size(30_000, 30_000, 0),
        "colour bomb": png_of_size(60_000, 60_000),
        "gif head": b"GIF89a" + b"\xff" * 40,
        "tiff head": b"II*\0" + b"\xff" * 40,
        "webp head": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 20,
    }


def make_pipe(path: Path) -> str:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return str(path)
