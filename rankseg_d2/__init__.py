"""RankSeg for detectron2: rank the categories first, then classify among the few that are present.

Importing this package makes `import detectron2` work: with the real detectron2 where it is
installed, with the embedded subset where it is not (see `engine_name`). `get_config` reads a
config and registers the models, `build_model` makes the model of a config, and `Predictor`
predicts with a trained one.
"""

import importlib

from . import _engine

_engine.install()

from ._engine import engine_name  # noqa: E402

__version__ = "0.1.0"
__all__ = ["Predictor", "build_model", "engine_name", "get_config", "__version__"]


def __getattr__(name):
    # On demand, so that `rankseg-d2 doctor` runs even where the engine does not import.
    if name == "get_config":
        from .config import get_config

        return get_config
    if name == "build_model":
        from detectron2.modeling import build_model

        return build_model
    if name == "Predictor":
        return importlib.import_module(f"{__name__}.predict").Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
