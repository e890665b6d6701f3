"""The house has floors: a module imports from its own floor and those below, and never in a circle.

All imports count, those inside functions too; `detectron2` counts as our embedded subset.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support.paths import ROOT

# From the ground up; rooms of one line do not import each other. "" is rankseg_d2/__init__.py.
FLOORS = [
    ["errors", "dtypes", "memory", "pages", "position_encoding", "transformer_block"],
    ["files", "_yaml", "_solver", "_trainer_steps", "tasks", "_engine", "pair_counts"],
    ["tables", "checkpoints"],
    ["_detectron2"],
    ["ranking", "ops", "drawing"],
    ["data.formats", "data.holding_out", "data.classes"],
    ["data.prepare"],
    ["data.drawn"],
    ["data.shapes", "data.stickers"],
    ["data.datasets"],
    ["data.own"],
    ["data.mappers"],
    ["data.loading"],
    ["data.checks"],
    ["data"],
    ["modeling"],
    ["evaluation"],
    ["config_files", "config_ranges"],
    ["config", "config_reference"],
    [""],
    ["engine"],
    ["report", "predict", "convert"],
    ["export"],
    ["doctor"],
    ["cli"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path, package: Path) -> str:
    """The dotted name of a file below `package`; "" for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(package: Path) -> dict[str, set[str]]:
    """{module: the modules of the package that it imports}, by names relative to the package."""
    files = {module_name(path, package): path for path in package.rglob("*.py")}
    return {module: _imports(path, module, files) for module, path in files.items()}


def _imports(path: Path, module: str, files: dict[str, Path]) -> set[str]:
    found = set()
    folder = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            sources = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = folder[: len(folder) - node.level + 1]
                source = ".".join(["rankseg_d2", *filter(None, above), *filter(None, [source])])
            sources = [(source, alias.name) for alias in node.names]
        else:
            continue
        for source, name in sources:
            source = re.sub(r"^detectron2\b", "rankseg_d2._detectron2", source)
            if source.split(".")[0] == "rankseg_d2":
                source = source.removeprefix("rankseg_d2").removeprefix(".")
                # `from .room import module` needs the module, `from .module import name` does too.
                inner = f"{source}.{name}".removeprefix(".")
                found.add(inner if inner in files else source)
    return {name for name in found if name in files}


def room(module: str) -> str:
    """The room of FLOORS that a module lies in: the longest name that begins the module's."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOOR), parts[0])


def wrong_ways(imports: dict[str, set[str]]) -> list[str]:
    """A line for each import that leads to a higher floor or to another room of the same one."""
    lines = []
    for module, others in sorted(imports.items()):
        for other in sorted(others):
            here, there = room(module), room(other)
            if here != there and FLOOR[here] <= FLOOR[there]:
                lines.append(f"{module} imports {other}")
    return lines


def circle(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def imports():
    return imports_of(ROOT / "rankseg_d2")


def test_every_module_lies_in_a_room(imports):
    assert {room(module) for module in imports} == set(FLOOR)


def test_no_import_runs_upwards(imports):
    assert wrong_ways(imports) == []


def test_no_circle(imports):
    assert circle(imports) == []


def write_package(folder, **modules):
    for name, text in modules.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports_of(folder)


def test_the_reader_of_imports_sees_them_all(tmp_path):
    imports = write_package(
        tmp_path / "rankseg_d2",
        files="def f():\n    from .data.own import parts",
        data__own__parts="from ...engine import trainer\nfrom .. import classes",
        data__classes="import rankseg_d2.files\nfrom detectron2.config import CfgNode",
        _detectron2__config="",
        engine__trainer="",
    )
    assert imports == {
        "files": {"data.own.parts"},
        "data.own.parts": {"engine.trainer", "data.classes"},
        "data.classes": {"files", "_detectron2.config"},
        "_detectron2.config": set(),
        "engine.trainer": set(),
    }
    assert wrong_ways(imports) == [
        "data.own.parts imports engine.trainer",
        "files imports data.own.parts",
    ]
    assert set(circle(imports)) == {"files", "data.own.parts", "data.classes"}
