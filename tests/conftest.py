import gc
import logging
import os
from contextlib import contextmanager

import pytest

# One thread in each of several test processes (pytest -n 2), two in a single one.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)  # for the processes that tests start, too
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the cores to others

LONGEST = {
    "test_benchmarks.py",
    "test_docs.py",
    "test_shipped_configs.py",
    "test_exporting.py",
    "test_golden_models.py",
    "test_pixel_families.py",
    "test_example.py",
    "test_ending.py",
    "test_distributed.py",
    "test_backbones_in_models.py",
    "test_model_zoo.py",
}

import torch  # noqa: E402

import rankseg_d2  # noqa: E402

torch.set_num_threads(THREADS)


def pytest_report_header(config):
    return f"rankseg_d2 engine: {rankseg_d2.engine_name()}, torch {torch.__version__}"


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest -n 2 --dist loadfile: in the order of below


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()  # thousands of tests, through which each collection would go again


def pytest_collection_modifyitems(config, items):
    # The longest files first, so that at the end no process waits for another one.
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if "faults" not in config.option.markexpr:
        # By marker, for the name of the folder tests/faults is a keyword too.
        faults = [item for item in items if item.get_closest_marker("faults")]
        items[:] = [item for item in items if not item.get_closest_marker("faults")]
        config.hook.pytest_deselected(items=faults)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def write(tmp_path):
    """Writes a config file of this text, and gives its path."""

    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def root(tmp_path):
    """A folder of public data sets, in which all registered names are until the test ends."""
    from rankseg_d2.data.datasets import register_all

    register_all(tmp_path)
    yield tmp_path
    register_all()


@pytest.fixture(autouse=True)
def clean_loggers():
    """Takes away the handlers that the test adds: they write to streams that end with it."""
    from detectron2.utils.logger import setup_logger

    loggers = [logging.getLogger(name) for name in ("rankseg_d2", "detectron2", "fvcore")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
    setup_logger.cache_clear()


@contextmanager
def forgetting():
    """Forgets the data sets that are registered within it."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from rankseg_d2.data.own import register as custom

    before = set(DatasetCatalog), set(MetadataCatalog)
    own = dict(custom._registered)
    yield
    for catalog, names in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        for name in set(catalog) - names:
            catalog.pop(name)
    custom._registered.clear()
    custom._registered.update(own)


@pytest.fixture
def clean_catalogs():
    """Forgets what the test registers."""
    with forgetting():
        yield


@pytest.fixture(scope="module", autouse=True)
def clean_catalogs_of_the_file():
    """Forgets what the tests and fixtures of a file register."""
    with forgetting():
        yield
