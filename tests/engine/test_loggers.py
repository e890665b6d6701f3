"""LOGGERS: metrics to wandb and mlflow, here to packages that only note what they are told."""

import json
import logging
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from support.toy import toy_config, train

from rankseg_d2.engine import loggers
from rankseg_d2.engine.loggers import build_loggers, check_loggers


class FakePackage(ModuleType):
    """Notes the calls of its functions; a run has the id "run1" or the one that is asked for."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, origin="fake")  # for find_spec
        self.calls, self.fails = [], ()

    def _note(self, called, args, options):
        self.calls.append((called, args, options))
        if called in self.fails:
            raise ConnectionError("no network")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **options):
            self._note(name, args, options)
            run_id = options.get("id") or options.get("run_id") or "run1"
            if name == "init":
                parts = {part: getattr(self, part) for part in ("log", "finish")}
                return SimpleNamespace(id=run_id, **parts)
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

        return call

    def named(self, name):
        return [(args, options) for called, args, options in self.calls if called == name]


@pytest.fixture(params=["wandb", "mlflow"])
def package(request, monkeypatch):
    fake = FakePackage(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake)
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return fake


LOG = {"wandb": "log", "mlflow": "log_metrics"}
START = {"wandb": "init", "mlflow": "start_run"}
END = {"wandb": "finish", "mlflow": "end_run"}


def logged(package):
    """{iteration: metrics}, in the order of the calls."""
    return {options["step"]: args[0] for args, options in package.named(LOG[package.__name__])}


def test_what_metrics_json_has_goes_there_too(tmp_path, package):
    train(toy_config(tmp_path, "LOGGERS", [package.__name__]))
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    expected = {row.pop("iteration"): row for row in map(json.loads, lines)}
    found = logged(package)
    assert found == expected and list(found) == sorted(found)
    assert len(package.named(END[package.__name__])) == 1
    (_, options), = package.named(START[package.__name__])
    assert tmp_path.name in (options.get("name"), options.get("run_name"))


def test_the_config_and_the_project_are_given(tmp_path, package):
    build_loggers(toy_config(tmp_path, "LOGGERS", [package.__name__]))
    if package.__name__ == "wandb":
        (_, options), = package.named("init")
        config = options["config"]
        assert options["project"] == loggers.PROJECT
    else:
        assert package.named("set_experiment") == [((loggers.PROJECT,), {})]
        config = package.named("log_dict")[0][0][0]
    assert config["SOLVER.MAX_ITER"] == 12 and json.dumps(config)


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path, package):
    options = "LOGGERS", [package.__name__], "SOLVER.STEPS", (100,)
    train(toy_config(tmp_path, *options, "SOLVER.MAX_ITER", 6))
    before = len(package.calls)
    train(toy_config(tmp_path, *options), resume=True)
    again = package.named(START[package.__name__])[-1][1]
    assert "run1" in (again.get("id"), again.get("run_id"))
    assert before < len(package.calls)
    assert (tmp_path / f"{package.__name__}_run_id").read_text() == "run1"


def test_an_error_there_is_one_warning(tmp_path, package, monkeypatch, caplog):
    package.fails = (LOG[package.__name__],)
    monkeypatch.setattr(logging.getLogger("rankseg_d2"), "propagate", True)
    assert train(toy_config(tmp_path, "LOGGERS", [package.__name__])).iter == 12
    warned = {id(record) for record in caplog.records if "no network; nothing" in record.message}
    assert len(warned) == 1 and (tmp_path / "model_final.pth").is_file()


def test_a_package_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    cfg = toy_config(tmp_path, "LOGGERS", ["mlflow"])
    message = "LOGGERS names mlflow, but the package mlflow is not installed: pip install mlflow"
    for use in (check_loggers, build_loggers, train):
        with pytest.raises(ModuleNotFoundError, match=message):
            use(cfg)


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(ModuleNotFoundError, match="mlflow is not installed"):
        check_loggers(toy_config(tmp_path, "LOGGERS", ["mlflow"]))


def test_without_the_key_nothing_is_imported(tmp_path, package):
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", 2))
    assert package.calls == []


def test_names_that_mlflow_refuses_are_changed(tmp_path, monkeypatch):
    fake = FakePackage("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    writer, = build_loggers(toy_config(tmp_path, "LOGGERS", ["mlflow"]))
    writer.log({"sem_seg/IoU-door; (old), 50%": 1.0, "lr": 2.0}, 3)
    assert logged(fake) == {3: {"sem_seg/IoU-door_ _old__ 50_": 1.0, "lr": 2.0}}
