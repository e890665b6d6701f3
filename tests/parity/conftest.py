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


@pytest.fixture
def deeplab(monkeypatch):
    """detectron2's project DeepLab, which registers a backbone under the name of ours."""
    from detectron2.modeling import BACKBONE_REGISTRY

    monkeypatch.delitem(BACKBONE_REGISTRY._obj_map, "build_resnet_deeplab_backbone", False)
    return pytest.importorskip("detectron2.projects.deeplab")
