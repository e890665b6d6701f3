"""Exported models of tests, and what a service does with them: onnxruntime, NumPy and one file."""

import json
import logging
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import pixel_families
from support.predicting import ALL, make_family_predictor, make_predictor, ranking_predictor

from rankseg_d2.export import export
from rankseg_d2.export.exporting import postprocess_path

SIZE = (64, 96)
INPUT = {"INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96}  # so pictures of (32, 48) fill it
logging.getLogger("torch.__trace").propagate = False  # pytest would format thousands of records
_FEW = {"MODEL.MASK_FORMER.DEC_LAYERS": 2, "MODEL.RANKSEG.LAYER": 1}  # layers: exporting is slow
_SWIN = {  # whose windows are padded where an image has no whole number of them
    "MODEL.BACKBONE.NAME": "D2SwinTransformer", "MODEL.SWIN.EMBED_DIM": 8,
    "MODEL.SWIN.DEPTHS": [1, 2, 1, 1], "MODEL.SWIN.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.SWIN.WINDOW_SIZE": 3, "MODEL.SWIN.DROP_PATH_RATE": 0.0,
}  # fmt: skip
_THRESHOLD = {"MODEL.RANKSEG.THRESHOLD": 0.4}
_SEGFORMER = pixel_families.FAMILIES["SegFormer"]
# How a predictor is made, and the only size of the file, if any: one halves the time.
CASES = {
    "Mask2Former, RankSeg": (lambda: ranking_predictor(ALL, _THRESHOLD, _FEW, INPUT), SIZE),
    "Mask2Former": (lambda: make_predictor(_SWIN, _FEW, INPUT), None),
    "SegFormer, RankSeg": (
        lambda: make_family_predictor(_SEGFORMER, pixel_families.rankseg("SegFormer"), INPUT),
        SIZE,
    ),
}  # fmt: skip
RANKED = [name for name in CASES if "RankSeg" in name]


@dataclass(frozen=True)
class Case:
    name: str
    predictor: Any
    path: Path
    found: dict[str, float]  # largest differences from the model
    session: Any
    said: dict  # the description in the file
    file: Any  # `Model` of the Python file beside it

    @property
    def outputs(self):
        return [output.name for output in self.session.get_outputs()]


def export_case(name, folder, predictor=None, path=None):
    """A case that is exported now, or of a predictor's file."""
    import onnxruntime

    found = {}
    if path is None:
        (make, size), path = CASES[name], folder / "model.onnx"
        predictor = make()
        found = export(predictor, path, size=size)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map["rankseg"]
    file = runpy.run_path(str(postprocess_path(path)))["Model"](text)
    return Case(name, predictor, path, found, session, json.loads(text), file)


def run_file(case, samples):
    """The results of pictures, or of clips, as a service gets them."""
    images, sizes = case.file.prepare(samples)
    outputs = case.session.run(case.file.outputs, {"images": images})
    return [case.file.results(outputs, i, size) for i, size in enumerate(sizes)]
