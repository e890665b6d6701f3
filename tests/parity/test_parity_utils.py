"""rankseg_d2._detectron2.{utils, evaluation} beside the real ones: interface and numbers."""

import importlib
import inspect
import json
import logging
import random
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch

EMBEDDED, REAL = "rankseg_d2._detectron2", "detectron2"

# Without detectron2's own evaluators: those are rankseg_d2's own work.
NAMES = {
    "evaluation": (
        "DatasetEvaluator DatasetEvaluators inference_context inference_on_dataset "
        "print_csv_format verify_results"
    ),
    "evaluation.testing": "flatten_results_dict print_csv_format verify_results",
    "utils.collect_env": "collect_env_info",
    "utils.comm": (
        "all_gather create_local_process_group gather get_local_process_group get_local_rank "
        "get_local_size get_rank get_world_size is_main_process reduce_dict shared_random_seed "
        "synchronize"
    ),
    "utils.env": "seed_all_rng",
    "utils.events": (
        "CommonMetricPrinter EventStorage EventWriter JSONWriter TensorboardXWriter "
        "get_event_storage has_event_storage"
    ),
    "utils.file_io": "Detectron2Handler PathHandler PathManager PathManagerBase",
    "utils.logger": "log_every_n_seconds log_first_n setup_logger",
    "utils.memory": "retry_if_cuda_oom",
    "utils.registry": "Registry",
}
LEFT_OUT = {"put_histogram", "clear_histograms", "log_every_n", "locate"}
PAIRS = [(module, name) for module, names in NAMES.items() for name in names.split()]


def both(module):
    return [importlib.import_module(f"{engine}.{module}") for engine in (EMBEDDED, REAL)]


def parameters(function):
    """Names, kinds and defaults; annotations may be written in another way."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found]


@pytest.mark.parametrize("module, name", PAIRS)
def test_public_names_take_the_same_arguments(module, name):
    ours, theirs = (getattr(m, name) for m in both(module))
    if not callable(theirs):
        assert type(ours) is type(theirs)
        return
    if ours is theirs:  # both take it from fvcore or iopath
        return
    assert parameters(ours) == parameters(theirs)
    for method in [m for m in dir(theirs) if inspect.isclass(theirs) and not m.startswith("_")]:
        if inspect.isfunction(getattr(theirs, method)) and method not in LEFT_OUT:
            assert parameters(getattr(ours, method)) == parameters(getattr(theirs, method)), method


@pytest.mark.parametrize("module", [m for m in NAMES if m != "evaluation"])
def test_everything_in_the_real_all_is_present(module):
    ours, theirs = both(module)
    missing = {n for n in getattr(theirs, "__all__", ()) if not hasattr(ours, n)}
    assert missing <= LEFT_OUT


def feed(storage, seed):
    """Puts the same random story into a storage; yields at each iteration."""
    draw = random.Random(seed)
    for i in range(60):
        storage.put_scalars(total_loss=draw.random(), loss_mask=draw.random(), other=draw.random())
        storage.put_scalar("lr", draw.random() * 1e-4, smoothing_hint=False)
        if i % 7 == 3:
            storage.put_scalar("rare_loss", draw.random())
        if i > 3:
            storage.put_scalars(time=draw.random(), data_time=draw.random())
        if i % 11 == 5:
            storage.put_scalar("late", draw.random(), cur_iter=i - 4)
        with storage.name_scope("scope"):
            storage.put_scalar("acc", torch.tensor(draw.random()))
        yield i
        storage.step()


@pytest.mark.parametrize("window", [1, 6, 20, 100])
def test_storage_smooths_alike(window):
    stories = []
    for events in both("utils.events"):
        with events.EventStorage(2) as storage:
            stories.append(
                [
                    (
                        dict(storage.latest()),
                        storage.latest_with_smoothing_hint(window),
                        {k: storage.count_samples(k, window) for k in storage.histories()},
                        dict(storage.smoothing_hints()),
                        storage.iter,
                    )
                    for _ in feed(storage, seed=window)
                ]
            )
    assert stories[0] == stories[1]


@pytest.mark.parametrize("window, period", [(20, 20), (5, 13), (20, 1)])
def test_json_lines_are_equal(tmp_path, window, period):
    for number, events in enumerate(both("utils.events")):
        with events.EventStorage() as storage:
            writer = events.JSONWriter(str(tmp_path / f"{number}.json"), window)
            for i in feed(storage, seed=0):
                if i % period == period - 1:
                    writer.write()
            writer.close()
    ours, theirs = ((tmp_path / f"{number}.json").read_text() for number in range(2))
    assert ours == theirs
    assert len(ours.splitlines()) >= 60 // period
    json.loads(ours.splitlines()[0])


def messages_of(logger_name, monkeypatch):
    """The list that gets the logger's messages until the test ends."""
    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger(logger_name)
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, handler])
    return messages


def test_console_lines_hold_the_same_fields(monkeypatch):
    texts = []
    for engine, events in zip((EMBEDDED, REAL), both("utils.events"), strict=True):
        kept = messages_of(f"{engine}.utils.events", monkeypatch)
        with events.EventStorage() as storage:
            printers = [events.CommonMetricPrinter(60), events.CommonMetricPrinter(60, 7)]
            for i in feed(storage, seed=1):
                if i % 9 == 8:
                    for printer in printers:
                        printer.write()
            printers[0].write()  # at iteration 60: nothing
        texts.append([message.split() for message in kept])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 12


def test_log_files_are_equal(tmp_path):
    texts = []
    for number, logger in enumerate(both("utils.logger")):
        for rank in (0, 3):
            log = logger.setup_logger(
                str(tmp_path / str(number)),
                rank,
                name=f"parity{number}.{rank}",
                configure_stdout=False,
            )
            log.warning("words")
            log.debug("more words")
        files = sorted((tmp_path / str(number)).iterdir())
        stamp = r"\d\d/\d\d \d\d:\d\d:\d\d"
        texts.append(
            [
                (f.name, re.sub(stamp, "now", f.read_text()).replace(f"parity{number}", "parity"))
                for f in files
            ]
        )
    assert texts[0] == texts[1]
    assert [name for name, _ in texts[0]] == ["log.txt", "log.txt.rank3"]


def test_repeated_messages_are_dropped_alike():
    logger = logging.getLogger("parity.repeated")
    logger.setLevel(logging.INFO)
    stories = []
    for module in both("utils.logger"):
        kept = []
        handler = logging.Handler()
        handler.emit = lambda record, kept=kept: kept.append(record.getMessage())
        logger.addHandler(handler)
        for key in ("caller", "message", ("caller", "message")):
            for i in range(8):
                message = f"{key} {i % 3}"
                module.log_first_n(logging.INFO, message, 2, name="parity.repeated", key=key)
        logger.removeHandler(handler)
        stories.append(kept)
    assert stories[0] == stories[1]
    assert stories[0]


def test_seeds_give_the_same_numbers():
    draws = []
    for env, comm in zip(both("utils.env"), both("utils.comm"), strict=True):
        env.seed_all_rng(11)
        draws.append(
            (random.random(), np.random.rand(), torch.rand(1).item(), comm.shared_random_seed())
        )
    assert draws[0] == draws[1]


def test_paths_have_the_same_prefixes():
    ours, theirs = both("utils.file_io")
    missing = theirs.PathManager._path_handlers.keys() - ours.PathManager._path_handlers.keys()
    assert missing <= {"catalog://"}  # a few Caffe2 models of old detectors
    for name in ("PREFIX", "S3_DETECTRON2_PREFIX"):
        assert getattr(ours.Detectron2Handler, name) == getattr(theirs.Detectron2Handler, name)


RESULTS = [
    OrderedDict(bbox=OrderedDict([("AP", 1.23456), ("AP-cat", 2), ("AP50", 3)]), n=4),
    {},
    {"sem_seg": {"mIoU": np.float64(12.5), "IoU-wall": 1.0}},
]


@pytest.mark.parametrize("results", RESULTS)
def test_results_are_flattened_and_logged_alike(results, monkeypatch):
    stories = []
    for engine, testing in zip((EMBEDDED, REAL), both("evaluation.testing"), strict=True):
        kept = messages_of(f"{engine}.evaluation.testing", monkeypatch)
        testing.print_csv_format(results)
        stories.append((kept, testing.flatten_results_dict(results)))
    assert stories[0] == stories[1]


def test_inference_gives_the_same_results_and_calls():
    stories = []
    for evaluation in both("evaluation"):
        calls = []

        class Recorder(evaluation.DatasetEvaluator):
            def __init__(self, name, calls=calls):
                self.name, self.calls = name, calls

            def reset(self):
                self.calls.append("reset")

            def process(self, inputs, outputs):
                self.calls.append((self.name, inputs, outputs))

            def evaluate(self):
                return OrderedDict({self.name: {"calls": len(self.calls)}})

        names = ("on_start", "before_inference", "after_inference", "on_end")
        callbacks = {name: lambda name=name, calls=calls: calls.append(name) for name in names}
        evaluators = [Recorder("a"), Recorder("b")]
        results = evaluation.inference_on_dataset(
            lambda x: x + 1, range(7), evaluators, callbacks=callbacks
        )
        stories.append((results, calls))
    assert stories[0] == stories[1]
