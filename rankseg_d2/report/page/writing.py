"""Write the page of a run."""

import os
from pathlib import Path
from typing import Any

from ...files import check_regular, write_bytes
from ...pages import fill_page

_PARTS = ("page.css", "charts.js", "classes.js", "images.js", "page.js")
_MARK = b'<meta name="generator" content="rankseg-d2 report">'


def write_page(content: dict[str, Any], path: str | os.PathLike) -> Path:
    """Write the content of `read_run` as HTML; an older page is replaced, another file is not."""
    path = Path(path)
    check_regular(path)
    if path.exists() and _MARK not in path.read_bytes()[:2000]:
        raise FileExistsError(
            f"{path} exists and is no page of `rankseg-d2 report`; move it, or give another --out"
        )
    write_bytes(path, fill_page(__package__, _PARTS, content, content["name"]))
    return path
