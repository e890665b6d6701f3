"""Pages of HTML with all that they need: they open without a server and without a network."""

import base64
import io
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image


def fill_page(package: str, parts: Sequence[str], content: Any, title: str) -> bytes:
    """The `page.html` of a package with its parts, files beside it, and JSON content.

    `{{NAME}}` in the template is the part of that name; also base.css, title and content, which
    cannot end the element that it stands in.
    """
    texts = {name: _read(package, name) for name in parts}
    texts["base.css"] = _read(__package__, "base.css")
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    texts["content"] = text.replace("<", "\\u003c")
    texts["title"] = title.replace("&", "&amp;").replace("<", "&lt;")
    page = re.sub(r"\{\{([\w.]+)\}\}", lambda found: texts[found[1]], _read(package, "page.html"))
    return page.encode("utf-8", "replace")


def _read(package: str, name: str) -> str:
    return (resources.files(package) / name).read_text("utf-8")


def jpeg_url(picture: np.ndarray, quality: int = 88) -> str:
    """A picture (H, W, 3) as an address that holds it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
