"""Predictions for people: from a checkpoint to names, masks and pictures."""


def __getattr__(name):
    # On demand, so that `rankseg-d2 --help` needs no engine.
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Predictor"]
