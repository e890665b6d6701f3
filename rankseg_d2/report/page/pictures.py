"""The worst and best images of an evaluation, drawn for the page."""

from pathlib import Path
from typing import Any

import numpy as np

from ...data.formats.image_files import read_labels, read_rgb
from ...drawing import draw_overlay, error_view, wrong_categories
from ...evaluation.examples import FILE, FOLDER
from ...files import read_json
from ...pages import jpeg_url

_QUALITY = 82
_SIDE = 480  # pixels that names need to stand on a picture


def example_rows(folder: Path) -> list[dict[str, Any]]:
    """One row for each image of examples.json, the worst first; none without that file."""
    if not (folder / f"{FILE}.json").is_file():
        return []
    content = read_json(folder / f"{FILE}.json")
    return [_row(folder / FOLDER, content, entry) for entry in content["images"]]


def _row(folder: Path, content: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    names, colors = content["classes"], np.array(content["colors"], np.uint8)
    image = _enlarged(read_rgb(str(folder / f"{entry['file']}.jpg")))
    true, predicted = (
        _enlarged(np.asarray(read_labels(str(folder / f"{entry['file']}_{what}.png"), "label map")))
        for what in ("true", "predicted")
    )
    views = [
        image,
        draw_overlay(image, labels=true, names=names, colors=colors),
        draw_overlay(image, labels=predicted, names=names, colors=colors),
        error_view(true, predicted, names, colors),
    ]
    wrong = wrong_categories(true, predicted, len(names))
    return {
        "kind": entry["kind"],
        "name": Path(entry["key"]).name,
        "score": entry["score"],
        "views": [jpeg_url(view, _QUALITY) for view in views],
        "ranked": [
            {"name": names[i], "probability": probability, "present": bool((true == i).any())}
            for i, probability in entry["ranked"]
        ],
        "unranked": [names[i] for i in entry["missed"]],
        "false": [names[i] for i in wrong.false],
        "missed": [names[i] for i in wrong.missed],
    }


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """A small picture or map (h, w, ...), each pixel some times."""
    times = max(1, _SIDE // max(pixels.shape[:2]))
    return pixels.repeat(times, 0).repeat(times, 1)
