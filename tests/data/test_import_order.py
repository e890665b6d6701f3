"""Imports inside rankseg_d2/data point downwards, and none points to the folders above it."""

import ast
from pathlib import Path

import pytest

import rankseg_d2

DATA = Path(rankseg_d2.__file__).parent / "data"
LEVELS = {  # a file imports from its own folder and from lower levels
    "formats": 0, "holding_out": 0, "classes": 0, "prepare": 1, "shapes": 2, "datasets": 3,
    "own": 4, "mappers": 5, "loading": 6, "checks": 7,
}  # fmt: skip
ABOVE = {"modeling", "evaluation", "engine", "config", "cli", "predict", "report", "convert"}
FILES = sorted(path for path in DATA.rglob("*.py") if path.parent != DATA)


def imported(path):
    """The absolute names of the modules of rankseg_d2 that a file imports, also in functions."""
    package = path.relative_to(DATA.parent.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split("."))
            for alias in node.names:
                yield [part for part in (*module, alias.name) if part]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(DATA).as_posix())
def test_imports_point_downwards(path):
    own = path.relative_to(DATA).parts[0]
    for names in imported(path):
        if names[0] != "rankseg_d2" or len(names) < 2:
            continue
        assert names[1] not in ABOVE, names
        if names[1] == "data":
            assert names[2] == own or LEVELS[names[2]] < LEVELS[own], names
