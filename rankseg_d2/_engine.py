"""Choose who answers `import detectron2`: the real package, or our embedded subset."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys

EMBEDDED = "rankseg_d2._detectron2"
ENGINES = ("embedded", "detectron2")
INSTALL_LINE = (
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git"
)
# Classes that the embedded engine lacks -> those of rankseg_d2 that do the same.
COUNTERPARTS = {
    "detectron2.evaluation.COCOEvaluator": "rankseg_d2.evaluation.InstanceEvaluator",
    "detectron2.evaluation.COCOPanopticEvaluator": "rankseg_d2.evaluation.PanopticEvaluator",
    "detectron2.evaluation.CityscapesInstanceEvaluator": "rankseg_d2.evaluation.InstanceEvaluator",
    "detectron2.evaluation.CityscapesSemSegEvaluator": "rankseg_d2.evaluation.SemanticEvaluator",
    "detectron2.evaluation.SemSegEvaluator": "rankseg_d2.evaluation.SemanticEvaluator",
}

_chosen: str | None = None


def engine_name() -> str:
    """Which engine answers `import detectron2`: "embedded" or "detectron2"."""
    if _chosen is None:
        raise RuntimeError("no engine is chosen yet: import rankseg_d2 first")
    return _chosen


def install() -> None:
    """Make `detectron2` importable. RANKSEG_ENGINE=embedded|detectron2 forces one engine."""
    global _chosen
    if _chosen is None:
        _chosen = choose(os.environ.get("RANKSEG_ENGINE", ""))
        if _chosen == "embedded":
            sys.meta_path.insert(0, _AliasFinder())


def choose(wanted: str) -> str:
    """The engine to use when the user asks for `wanted` ("" leaves the choice to us)."""
    if wanted not in ("", *ENGINES):
        raise ValueError(
            f"RANKSEG_ENGINE={wanted!r} is not an engine; set it to one of {', '.join(ENGINES)}, "
            "or unset it to take the real detectron2 where it is installed"
        )
    if wanted == "detectron2" and not _real_detectron2_found():
        raise ImportError(
            "RANKSEG_ENGINE=detectron2, but detectron2 is not installed; install it with "
            f"`{INSTALL_LINE}`, or unset RANKSEG_ENGINE to use the embedded engine"
        )
    if wanted == "embedded" and "detectron2" in sys.modules:
        raise ImportError(
            "RANKSEG_ENGINE=embedded, but the real detectron2 is imported already; "
            "put `import rankseg_d2` before every `import detectron2`"
        )
    return wanted or ("detectron2" if _real_detectron2_found() else "embedded")


def _real_detectron2_found() -> bool:
    """Whether a real detectron2 is installed (a bare folder of that name does not count)."""
    finders = [finder for finder in sys.meta_path if not isinstance(finder, _AliasFinder)]
    specs = (finder.find_spec("detectron2", None) for finder in finders)
    spec = next((spec for spec in specs if spec is not None), None)
    return spec is not None and spec.origin is not None


class _AliasFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answer `detectron2[.x]` with the very module `rankseg_d2._detectron2[.x]`.

    Both names lead to one module object, so that classes, registries and catalogs exist once. A
    name that the engine lacks raises a ModuleNotFoundError with help, in `import detectron2.a.b`
    and in `from detectron2.a import b`; `detectron2.a.b` alone is a plain AttributeError.
    """

    def __init__(self):
        self._own_specs = {}

    def find_spec(self, fullname, path=None, target=None):
        if fullname.startswith(f"{EMBEDDED}."):
            spec = importlib.machinery.PathFinder.find_spec(fullname, path)
            if spec is None:
                raise _missing("detectron2" + fullname.removeprefix(EMBEDDED))
            return spec
        if fullname.partition(".")[0] != "detectron2":
            return None
        importlib.util.find_spec(_embedded_name(fullname))  # raises where it is missing
        # Every module counts as a package. For `from package import name`, where `name` is no
        # attribute, Python searches for the module `package.name`, and so asks us.
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        module = importlib.import_module(_embedded_name(spec.name))
        self._own_specs[module.__name__] = module.__spec__
        return module

    def exec_module(self, module):
        # The import system has put the alias's spec on the shared module; the relative imports
        # inside it need its own again.
        module.__spec__ = self._own_specs.pop(module.__name__)


def _missing(name: str) -> ModuleNotFoundError:
    ours = f"use {COUNTERPARTS[name]}, or " if name in COUNTERPARTS else ""
    return ModuleNotFoundError(
        f"the embedded engine of rankseg_d2 has no {name!r}; {ours}install the real detectron2: "
        f"`{INSTALL_LINE}`",
        name=name,  # under the embedded name, `from package import name` would drop this error
    )


def _embedded_name(fullname: str) -> str:
    return EMBEDDED + fullname.removeprefix("detectron2")
