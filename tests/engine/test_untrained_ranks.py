import importlib
import logging

import pytest
from support.small import MASK2FORMER, RANKSEG, make_config, make_model

from rankseg_d2.engine import Checkpointer
from rankseg_d2.engine.trainer import Trainer

start = importlib.import_module("rankseg_d2.engine.start")  # the package has a function of its name


@pytest.fixture
def loaded(tmp_path, monkeypatch, caplog):
    """The warnings of an evaluation with these options, of a model that was trained with κ = 4."""
    for name in ("write_results", "log_results", "verify_results"):
        monkeypatch.setattr(start, name, lambda *args: None)
    monkeypatch.setattr(Trainer, "test", lambda cfg, model: {})
    Checkpointer(make_model(MASK2FORMER, RANKSEG), str(tmp_path)).save("model")

    def evaluate(**options):
        keys = {f"MODEL.RANKSEG.{name}": value for name, value in options.items()}
        cfg = make_config(MASK2FORMER, RANKSEG, keys)
        cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(tmp_path / "model.pth"), str(tmp_path)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="rankseg_d2"):
            start.evaluate(cfg, resume=False)
        return [record.getMessage() for record in caplog.records]

    return evaluate


def test_a_kappa_above_the_trained_one_is_warned_of_once(loaded):
    (warning,) = loaded(TOPK=6)
    assert "MODEL.RANKSEG.TOPK is 6, but MODEL.WEIGHTS was trained with 4" in warning
    assert "set TOPK to at most 4" in warning


@pytest.mark.parametrize("options", [{"TOPK": 4}, {"TOPK": 2}, {"TOPK": 6, "NORM": False}], ids=str)
def test_ranks_that_were_trained_or_need_no_temperature_are_not_warned_of(loaded, options):
    assert loaded(**options) == []


def test_a_schedule_that_ends_low_is_not_warned_of(loaded):
    assert loaded(TOPK=3, TOPK_SCHEDULE=[[0, 6], [9, 3]]) == []
