"""The parity tests compare each embedded piece with real detectron2, where that is installed."""

from pathlib import Path

import pytest

import rankseg_d2


def pytest_collection_modifyitems(items):
    if rankseg_d2.engine_name() == "detectron2":
        return
    skip = pytest.mark.skip(reason="compares with the real detectron2, which is not installed")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)
