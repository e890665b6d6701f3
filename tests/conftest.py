import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch  # noqa: E402

import rankseg_d2  # noqa: E402

torch.set_num_threads(2)


def pytest_report_header(config):
    return f"rankseg_d2 engine: {rankseg_d2.engine_name()}, torch {torch.__version__}"


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
