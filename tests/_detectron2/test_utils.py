"""detectron2.utils: what the storage keeps, what each writer writes, what processes exchange."""

import io
import json
import logging
import random
import re
import time

import numpy as np
import pytest
import torch
from iopath.common.file_io import HTTPURLHandler
from torch import distributed as dist
from torch import multiprocessing as mp

# isort: split
import rankseg_d2  # before detectron2, in spawned processes too

# isort: split
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import (
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry

embedded_only = pytest.mark.skipif(
    rankseg_d2.engine_name() != "embedded", reason="better on the embedded engine only"
)


@pytest.fixture
def lines():
    """Makes a logger that keeps its lines in a list: lines("name") -> list."""
    added = []

    def listen(name):
        kept = []
        handler = logging.Handler()
        handler.emit = lambda record: kept.append(record.getMessage())
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        added.append((logger, handler))
        return kept

    yield listen
    for logger, handler in added:
        logger.removeHandler(handler)


# events


def test_storage_is_the_innermost_block_and_gone_after_it():
    with EventStorage() as outer:
        with EventStorage() as inner:
            assert get_event_storage() is inner
        assert get_event_storage() is outer
    assert not has_event_storage()
    with pytest.raises((AssertionError, RuntimeError), match="with EventStorage"):
        get_event_storage()


def test_storage_counts_iterations_and_takes_tensors():
    with EventStorage(start_iter=7) as storage:
        storage.put_scalars(a=torch.tensor(1.5), b=2, smoothing_hint=False)
        storage.step()
        storage.put_scalar("a", np.float32(2.5), smoothing_hint=False)
        storage.put_scalar("c", 9, cur_iter=3)
    assert storage.iter == storage.iteration == 8
    assert storage.latest() == {"a": (2.5, 8), "b": (2.0, 7), "c": (9.0, 3)}
    assert storage.history("a").values() == [(1.5, 7), (2.5, 8)]
    with pytest.raises(KeyError, match="nothing"):
        storage.history("nothing")


def test_smoothing_takes_the_median_of_the_window_in_iterations():
    with EventStorage() as storage:
        for i in range(30):
            storage.put_scalar("loss", i * i)
            storage.put_scalar("lr", i, smoothing_hint=False)
            if i % 5 == 0:
                storage.put_scalar("rare", i)
            storage.step()
    smoothed = storage.latest_with_smoothing_hint(window_size=10)
    assert smoothed["loss"] == (np.median([i * i for i in range(20, 30)]), 29)
    assert smoothed["lr"] == (29.0, 29)
    assert smoothed["rare"] == (22.5, 25)  # of 20 and 25: 15 lies ten iterations back
    assert storage.count_samples("rare", 10) == 2


def test_a_scalar_keeps_its_smoothing_hint():
    with EventStorage() as storage:
        storage.put_scalar("lr", 1, smoothing_hint=False)
        with pytest.raises((AssertionError, ValueError), match="lr.*smoothing_hint"):
            storage.put_scalar("lr", 1)


def test_name_scope_prefixes_and_ends():
    with EventStorage() as storage:
        with storage.name_scope("val"):
            storage.put_scalar("loss", 1)
        storage.put_scalar("loss", 2)
    assert {name: value for name, (value, _) in storage.latest().items()} == {
        "val/loss": 1.0,
        "loss": 2.0,
    }


@embedded_only
def test_name_scope_ends_after_an_exception():
    with EventStorage() as storage:
        with pytest.raises(ZeroDivisionError), storage.name_scope("val"):
            raise ZeroDivisionError
        storage.put_scalar("loss", 2)
    assert list(storage.latest()) == ["loss"]


def test_json_writer_writes_each_value_once_under_its_iteration(tmp_path):
    file = tmp_path / "metrics.json"
    with EventStorage() as storage:
        writer = JSONWriter(str(file))
        for i in range(10):
            storage.put_scalar("loss", i, smoothing_hint=False)
            if i in (3, 8):
                storage.put_scalar("score", 10 * i, smoothing_hint=False)
            if i in (4, 9):
                writer.write()
                writer.write()
            storage.step()
        writer.close()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(rows, key=lambda row: row["iteration"]) == [
        {"iteration": 3, "score": 30.0},
        {"iteration": 4, "loss": 4.0},
        {"iteration": 8, "score": 80.0},
        {"iteration": 9, "loss": 9.0},
    ]


def test_json_writer_appends_to_an_earlier_run(tmp_path):
    file = tmp_path / "metrics.json"
    for start in (0, 5):
        with EventStorage(start) as storage:
            writer = JSONWriter(str(file))
            storage.put_scalar("x", 1)
            writer.write()
            writer.close()
    assert [json.loads(line)["iteration"] for line in file.open()] == [0, 5]


def test_tensorboard_writer_writes_scalars_and_images(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with EventStorage() as storage:
        writer = TensorboardXWriter(str(tmp_path), window_size=3)
        for i in range(5):
            storage.put_scalar("loss", 10.0 * i)
            storage.step()
        storage.put_image("picture", torch.zeros(3, 4, 5, dtype=torch.uint8))
        writer.write()
        writer.write()
        writer.close()
    events = accumulators.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(4, 30.0)]
    assert [(e.step, e.width, e.height) for e in events.Images("picture")] == [(5, 5, 4)]


@embedded_only
def test_tensorboard_writer_that_writes_nothing_leaves_no_file(tmp_path):
    TensorboardXWriter(str(tmp_path / "tb")).close()
    assert not (tmp_path / "tb").exists()


def test_console_line_shows_eta_losses_times_and_lr(lines):
    kept = lines("detectron2")
    with EventStorage() as storage:
        printer = CommonMetricPrinter(max_iter=100)
        for i in range(30):
            storage.put_scalars(total_loss=i, loss_mask=2 * i, other=5)
            storage.put_scalar("[metric] acc", 0.25)
            storage.put_scalars(time=2.0, data_time=0.5 if i else 99.5)
            storage.put_scalar("lr", 0.0123456789, smoothing_hint=False)
            storage.step()
        printer.write()
    assert len(kept) == 1
    assert " ".join(kept[0].split()).split(" max_mem: ")[0] == (
        "eta: 0:02:18 iter: 30 total_loss: 19.5 loss_mask: 39 [metric] acc: 0.25 "
        "time: 2.0000 last_time: 2.0000 data_time: 0.5000 last_data_time: 0.5000 lr: 0.012346"
    )
    assert storage.latest()["eta_seconds"] == (138.0, 30)
    assert storage.smoothing_hints()["eta_seconds"] is False


def test_console_estimates_the_eta_from_its_own_clock_without_times(lines, monkeypatch):
    kept = lines("detectron2")
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    with EventStorage() as storage:
        printer = CommonMetricPrinter(max_iter=11)
        printer.write()
        storage.iter = 2
        now = 104.0
        printer.write()
    assert "eta" not in kept[0]
    assert "lr: N/A" in kept[0]
    assert kept[1].split()[:2] == ["eta:", "0:00:16"]  # 2 s each for the 8 that are left


def test_console_is_silent_after_the_last_iteration(lines):
    kept = lines("detectron2")
    with EventStorage(10) as storage:
        storage.put_scalar("loss", 1)
        CommonMetricPrinter(max_iter=10).write()
        assert not kept
        CommonMetricPrinter().write()
    assert kept[0].split() == ["iter:", "10", "loss:", "1", "lr:", "N/A"]


@pytest.mark.gpu
def test_console_line_shows_the_gpu_memory(lines):
    kept = lines("detectron2")
    torch.zeros(2**20, device="cuda")
    with EventStorage():
        CommonMetricPrinter().write()
    assert int(re.search(r"max_mem: (\d+)M", kept[0])[1]) >= 4


# logger


def test_rank_0_logs_to_console_and_file(tmp_path, capsys):
    logger = setup_logger(str(tmp_path), name="test_rank0.pkg", abbrev_name="tp")
    logging.getLogger("test_rank0.pkg.module").warning("careful")
    logger.debug("small")
    head = r"\[\d\d/\d\d \d\d:\d\d:\d\d"
    out = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out).splitlines()
    assert re.fullmatch(rf"WARNING {head} tp\.module\]: careful", out[0])
    assert re.fullmatch(rf"{head} test_rank0\.pkg\]: small", out[1])
    file = (tmp_path / "log.txt").read_text().splitlines()
    assert re.fullmatch(rf"{head}\] \S*module WARNING: careful", file[0])
    assert re.fullmatch(rf"{head}\] test_rank0\.pkg DEBUG: small", file[1])
    assert not logger.propagate


def test_other_ranks_log_to_their_own_file_only(tmp_path, capsys):
    setup_logger(str(tmp_path / "run.log"), distributed_rank=2, name="test_rank2").info("here")
    setup_logger(str(tmp_path), distributed_rank=1, name="test_rank1").info("there")
    assert capsys.readouterr().out == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.txt.rank1", "run.log.rank2"]
    assert (tmp_path / "run.log.rank2").read_text().endswith("test_rank2 INFO: here\n")


def test_two_loggers_share_one_file_in_order(tmp_path):
    first = setup_logger(str(tmp_path), name="test_shared_a", configure_stdout=False)
    second = setup_logger(str(tmp_path), name="test_shared_b", configure_stdout=False)
    first.info("1")
    second.info("2")
    first.info("3")
    messages = [line[-1] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert messages == ["1", "2", "3"]


def test_setting_a_logger_up_twice_adds_nothing(tmp_path):
    logger = setup_logger(str(tmp_path), name="test_twice")
    assert setup_logger(str(tmp_path), name="test_twice") is logger
    assert len(logger.handlers) == 2


@embedded_only
def test_a_logger_set_up_again_with_a_folder_prints_each_line_once(tmp_path, capsys):
    setup_logger(name="test_again")
    setup_logger(str(tmp_path), name="test_again").info("once")
    assert capsys.readouterr().out.count("once") == 1


@embedded_only
def test_embedded_modules_log_as_detectron2(tmp_path):
    setup_logger(str(tmp_path), configure_stdout=False)
    logging.getLogger("rankseg_d2._detectron2.engine.hooks").info("from within")
    logging.getLogger("rankseg_d2.modeling").info("from our own package")
    assert (tmp_path / "log.txt").read_text().endswith(
        "] detectron2.engine.hooks INFO: from within\n"
    )


def test_log_first_n_counts_by_line_by_message_or_by_both(lines):
    kept = lines("test_first")
    for i in range(4):
        log_first_n(logging.INFO, f"line {i % 2}", n=3, name="test_first")
        log_first_n(logging.INFO, f"text {i % 2}", name="test_first", key="message")
    for i in range(4):
        log_first_n(
            logging.INFO, f"both {i % 2}", name="test_first", key=("caller", "message")
        )
    assert [m for m in kept if m.startswith("line")] == ["line 0", "line 1", "line 0"]
    assert [m for m in kept if m.startswith("text")] == ["text 0", "text 1"]
    assert [m for m in kept if m.startswith("both")] == ["both 0", "both 1"]


def test_log_first_n_without_a_name_logs_as_the_calling_module(lines):
    kept = lines(__name__)
    log_first_n(logging.WARNING, "hello")
    assert kept == ["hello"]


def test_log_every_n_seconds(lines):
    kept = lines("test_every")
    for i in range(7):
        log_every_n_seconds(logging.INFO, f"s {i}", n=60, name="test_every")
        log_every_n_seconds(logging.INFO, f"always {i}", n=0, name="test_every")
    assert [m for m in kept if m.startswith("s")] == ["s 0"]
    assert len([m for m in kept if m.startswith("always")]) == 7


# env, registry, files, memory


def test_seeding_repeats_all_three_generators(lines):
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_all_rng(3)
    first = draw()
    seed_all_rng(3)
    assert draw() == first
    kept = lines("detectron2")
    seed_all_rng()
    second = draw()
    seed_all_rng()
    assert len({first, second, draw()}) == 3
    assert "random seed" in kept[0]


def test_environment_names_the_engine_that_runs():
    info = collect_env_info()
    row = next(line for line in info.splitlines() if line.startswith("detectron2"))
    embedded = f"embedded subset of rankseg_d2 {rankseg_d2.__version__}"
    assert (embedded in row) == (rankseg_d2.engine_name() == "embedded")
    assert torch.__version__ in info


def test_registry_finds_by_name_and_names_what_is_missing():
    registry = Registry("TOYS")

    @registry.register()
    class Toy:
        pass

    assert registry.get("Toy") is Toy
    with pytest.raises(KeyError, match="Ball"):
        registry.get("Ball")


def test_path_manager_reads_local_files_and_knows_detectron2_names(tmp_path, monkeypatch):
    file = tmp_path / "x.txt"
    file.write_text("local")
    with PathManager.open(str(file)) as stream:
        assert stream.read() == "local"
    asked = []

    def download(self, path, **kwargs):
        asked.append(path)
        return str(file)

    monkeypatch.setattr(HTTPURLHandler, "_get_local_path", download)
    with PathManager.open("detectron2://a/b.pkl") as stream:
        assert stream.read() == "local"
    assert PathManager.get_local_path("detectron2://c.pkl") == str(file)
    host = "https://dl.fbaipublicfiles.com/detectron2/"
    assert asked == [host + "a/b.pkl", host + "c.pkl"]


def test_out_of_memory_is_tried_again_and_other_errors_are_raised():
    calls = []

    def double(x, *, shift):
        calls.append((x.device.type, shift.device.type))
        if len(calls) < 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 TiB")
        return 2 * x + shift

    assert retry_if_cuda_oom(double)(torch.ones(1), shift=torch.ones(1)).item() == 3
    assert calls == [("cpu", "cpu")] * 3
    assert retry_if_cuda_oom(double).__name__ == "double"

    def fail():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        retry_if_cuda_oom(fail)()


@pytest.mark.gpu
def test_out_of_memory_ends_on_the_cpu():
    def big(x):
        if x.is_cuda:
            return torch.empty(2**50, device=x.device)
        return x + 1

    assert retry_if_cuda_oom(big)(torch.ones(1, device="cuda")).device.type == "cpu"


# comm


def test_one_process_needs_no_process_group():
    assert (comm.get_world_size(), comm.get_rank()) == (1, 0)
    assert (comm.get_local_size(), comm.get_local_rank()) == (1, 0)
    assert comm.is_main_process()
    comm.synchronize()
    assert comm.all_gather({"a": 1}) == [{"a": 1}]
    assert comm.gather("x") == ["x"]
    losses = {"loss": torch.tensor(2.0)}
    assert comm.reduce_dict(losses) is losses
    np.random.seed(0)
    seed = comm.shared_random_seed()
    np.random.seed(0)
    assert comm.shared_random_seed() == seed
    assert 0 <= seed < 2**31


def _two_processes(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=2)
    errors = []
    try:
        comm.get_local_process_group()
    except (AssertionError, RuntimeError) as error:
        errors.append(str(error))
    comm.create_local_process_group(2)
    np.random.seed(rank)
    losses = {"b": torch.tensor(1.0 + rank), "a": torch.tensor(10.0 * rank)}
    losses = losses if rank == 0 else dict(reversed(losses.items()))
    result = {
        "errors": errors,
        "ranks": (comm.get_rank(), comm.get_world_size(), comm.is_main_process()),
        "local": (comm.get_local_rank(), comm.get_local_size()),
        "local group": dist.get_world_size(comm.get_local_process_group()),
        "all_gather": comm.all_gather({"rank": rank, "pad": "x" * 1000 * rank}),
        "gather": comm.gather(rank),
        "gather to 1": comm.gather(np.arange(rank + 1), dst=1),
        "seeds": [comm.shared_random_seed(), comm.shared_random_seed()],
        "mean": comm.reduce_dict(dict(losses)),
        "sum": comm.reduce_dict(dict(losses), average=False),
    }
    waiting, done = folder / "rank 1 waits", folder / "rank 0 is done"
    if rank == 0:
        deadline = time.monotonic() + 120
        while not waiting.exists():
            assert time.monotonic() < deadline
        done.touch()
    else:
        waiting.touch()
    comm.synchronize()
    result["waited"] = done.exists()
    buffer = io.BytesIO()
    torch.save(result, buffer)
    (folder / f"{rank}.pt").write_bytes(buffer.getvalue())
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comm")
    mp.spawn(_two_processes, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes_know_their_ranks(two_processes):
    assert [r["ranks"] for r in two_processes] == [(0, 2, True), (1, 2, False)]
    assert [r["local"] for r in two_processes] == [(0, 2), (1, 2)]
    assert [r["local group"] for r in two_processes] == [2, 2]


def test_the_local_group_must_be_made_first(two_processes):
    for result in two_processes:
        assert "create_local_process_group" in result["errors"][0]


def test_two_processes_gather_objects_of_different_sizes(two_processes):
    everything = [{"rank": 0, "pad": ""}, {"rank": 1, "pad": "x" * 1000}]
    assert [r["all_gather"] for r in two_processes] == [everything, everything]
    assert [r["gather"] for r in two_processes] == [[0, 1], []]
    assert two_processes[0]["gather to 1"] == []
    assert [x.tolist() for x in two_processes[1]["gather to 1"]] == [[0], [0, 1]]


def test_two_processes_share_the_seed_that_rank_0_draws(two_processes):
    np.random.seed(0)
    drawn = [np.random.randint(2**31) for _ in range(2)]
    assert [r["seeds"] for r in two_processes] == [drawn, drawn]


def test_two_processes_reduce_by_name_whatever_the_order(two_processes):
    assert two_processes[0]["mean"] == {"a": 5.0, "b": 1.5}
    assert two_processes[0]["sum"] == {"a": 10.0, "b": 3.0}


def test_synchronize_waits_for_the_last(two_processes):
    assert two_processes[1]["waited"]
