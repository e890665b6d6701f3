"""RankSeg for detectron2: rank the categories first, then classify among the few that are there.

Importing this package makes `import detectron2` work: with the real detectron2 where it is
installed, with the embedded subset where it is not (see `engine_name`).
"""

from . import _engine

_engine.install()

from ._engine import engine_name  # noqa: E402

__version__ = "0.1.0"
__all__ = ["engine_name", "__version__"]
