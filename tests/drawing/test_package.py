"""Drawing needs OpenCV, NumPy and Pillow only, so that every part of the package may use it."""

import ast
import sys

from support.paths import ROOT

import rankseg_d2.drawing


def test_nothing_else_is_imported():
    allowed = {"cv2", "numpy", "PIL", *sys.stdlib_module_names}
    for path in (ROOT / "rankseg_d2" / "drawing").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] in allowed, path
            elif isinstance(node, ast.ImportFrom) and node.level > 1:
                assert node.module in ("errors", "files"), path


def test_what_is_exported_exists():
    for name in rankseg_d2.drawing.__all__:
        assert hasattr(rankseg_d2.drawing, name)
