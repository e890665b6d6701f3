"""Prepare the files of public data sets in several processes; no file is ever half written.

A `Preparation` names its sources and outputs. It keeps a record beside the outputs: whether it
finished, the version of its rule, and the state of the sources. After a kill, the next start
resumes.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...files import listed, locked, read_json, remove_leftovers, write_bytes, write_json
from .processes import run_jobs

_SAMPLED = 64  # sources whose times are read when a data set is loaded
UNKNOWN = -1  # in a table of label values: the value must not occur


class Job(NamedTuple):
    """One file to make. `convert(job)` runs in any process, so all fields can be pickled."""

    target: Path | None  # None: `convert` writes no file, it only returns a result
    sources: tuple[Path, ...]
    args: tuple = ()


@dataclass(frozen=True)
class Preparation:
    """What one command makes for one split. All paths are below `root` and may be patterns."""

    command: str  # of `rankseg-d2 dataset prepare COMMAND`
    root: Path
    record: str
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    version: int = 1  # of the rule: raise it when existing files must be made again

    @property
    def command_line(self) -> str:
        return f"rankseg-d2 dataset prepare {self.command} --root {self.root}"

    def require(self) -> None:
        """Raise an error with the command to run, unless the outputs are complete and up to date.

        Files without a record come from another tool and are used as they are. Of the sources the
        number and the times of some are compared, because a data set has up to 118,000 of them and
        every process loads it; `rankseg-d2 dataset prepare` compares all.
        """
        record, where = self.read_record(), self.root / self.record
        if record is not None and not record["finished"]:
            raise RuntimeError(
                f"the preparation that {where} records was not finished; run "
                f"`{self.command_line}` again: it resumes where it stopped"
            )
        for output in self.outputs:
            if not any(listed(self.root, output)):
                raise FileNotFoundError(
                    f"{self.root / output} does not exist; make it with `{self.command_line}`"
                )
        if record is None:
            return
        if record["version"] != self.version:
            raise RuntimeError(
                f"{where} records files of rule {record['version']}, but the current rule is "
                f"{self.version}; make them again with `{self.command_line}`"
            )
        if record["sources"].keys() < set(self.sources):
            (added, *_) = (x for x in self.sources if x not in record["sources"])
            raise RuntimeError(
                f"the preparation of {where} was made without its source {self.root / added}; "
                f"update it with `{self.command_line}`"
            )
        for pattern, made_from in record["sources"].items():
            now = _state(self.root, pattern, _SAMPLED)
            is_same = (now["files"], now["newest"]) == (made_from["files"], made_from["sample"])
            if now["files"] and not is_same:  # users may delete the sources afterwards
                raise RuntimeError(
                    f"the preparation of {where} is older than its source {self.root / pattern}: "
                    f"it was made from {_described(made_from)}, but now the source has "
                    f"{_described(now)}; update it with `{self.command_line}`"
                )

    @contextmanager
    def making(self, **options) -> Iterator[float]:
        """`recording`, by one process at a time."""
        with self.lock(), self.recording(**options) as not_before:
            yield not_before

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working in this data set; preparations share folders."""
        self.check_sources()
        folder = self.root / Path(self.record).parts[0]
        with locked(folder / ".prepare.lock", f"prepares data in {folder}"):
            yield

    @contextmanager
    def recording(self, **options) -> Iterator[float]:
        """Record the start and the end of the work.

        Yields a time in seconds: files older than that must be made again.
        """
        before = self.read_record()
        record = self._new_record(options)
        if before is not None:
            record["not_before"] = (
                time.time() if _must_start_anew(before, record) else before["not_before"]
            )
        self._write_record(record)
        yield record["not_before"]
        self._write_record(record | {"finished": True})

    def is_done(self, jobs: Iterable[Job], **options) -> bool:
        """Whether all outputs exist and the record, if present, matches sources and options."""
        outputs_exist = all(any(listed(self.root, output)) for output in self.outputs)
        if not outputs_exist or not all(job.target is None or job.target.is_file() for job in jobs):
            return False
        before, now = self.read_record(), self._new_record(options)
        return before is None or before == now | {
            "finished": True,
            "not_before": before["not_before"],
        }

    def read_record(self) -> dict | None:
        path = self.root / self.record
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except ValueError as error:
            raise ValueError(f"The record of a preparation is damaged: {error} Delete it and run "
                             f"`{self.command_line}`.") from error

    def check_sources(self) -> None:
        """Raise FileNotFoundError if a source has no file."""
        for pattern in self.sources:
            if not any(listed(self.root, pattern)):
                raise FileNotFoundError(
                    f"{self.root / pattern} does not exist; download the data set "
                    "(datasets/README.md says where) into that folder, or set --root or "
                    "DETECTRON2_DATASETS to the folder of the data sets"
                )

    def _new_record(self, options: dict) -> dict:
        states = {
            pattern: _state(self.root, pattern)
            | {"sample": _state(self.root, pattern, _SAMPLED)["newest"]}
            for pattern in self.sources
        }
        facts = {"version": self.version, "options": options, "sources": states}
        return facts | {"not_before": 0.0, "finished": False}

    def _write_record(self, record: dict) -> None:
        write_json(self.root / self.record, record)


def _state(root: Path, pattern: str, at_most: int | None = None) -> dict:
    """The number of files that a pattern finds, and the newest one's time in whole seconds.

    at_most: of so many files, evenly spread, the time is read; None: of all.
    """
    paths = sorted(listed(root, pattern))
    step = 1 if at_most is None else max(1, len(paths) // at_most)
    times = [os.stat(path).st_mtime for path in paths[::step]]
    return {"files": len(paths), "newest": int(max(times, default=0))}


def _must_start_anew(before: dict, now: dict) -> bool:
    """Whether all files must be made again, because their times do not show which are outdated.

    That is so if the rule, the options or the kind of source changed, or a source became older.
    """
    made_from, sources = before["sources"], now["sources"]
    is_same = all(before[key] == now[key] for key in ("version", "options"))
    if not is_same or made_from.keys() != sources.keys():
        return True
    return any(sources[x]["newest"] < made_from[x]["newest"] for x in sources)


def _described(found: dict) -> str:
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["newest"]))
    return f"{found['files']} files, the newest of {day}"


def make_files(
    convert: Callable, jobs: Iterable[Job], title: str, workers: int, not_before: float = 0
) -> None:
    """Call `convert` for each job whose target is missing, empty or older than a source."""
    jobs = list(jobs)
    remove_leftovers({job.target.parent for job in jobs})
    todo = [job for job in jobs if not _is_fresh(job, not_before)]
    for _ in run_jobs(convert, todo, len(jobs), title, workers):
        pass


def make_json(
    preparation: Preparation,
    convert: Callable,
    jobs: Sequence[Job],
    json_file: Path,
    categories: list[dict],
    workers: int,
    **options,
) -> None:
    """Write a COCO json of what `convert` returns: {"image": ..., "annotations": [...]} per job.

    Files of another tool are kept.
    """
    with preparation.lock():
        if preparation.is_done(jobs, **options):
            return
        with preparation.recording(**options):
            journal = json_file.with_name(f".{json_file.name}.journal")
            facts = preparation.read_record()
            parts = _collect(convert, jobs, journal, facts, json_file.stem, workers)
            annotations = [x for part in parts for x in part["annotations"]]
            content = {
                "images": [part["image"] for part in parts],
                "annotations": [{"id": number} | x for number, x in enumerate(annotations, 1)],
                "categories": categories,
            }
            write_json(json_file, content)
            journal.unlink()


def _collect(
    convert: Callable, jobs: Iterable[Job], journal: Path, facts: dict, title: str, workers: int
) -> list:
    """The results of `convert(job)` in the order of the jobs; they must be json content.

    Each result is appended to the file `journal` under the name of the job's first source, so a
    call after a kill makes only the rest; unless `facts`, the first line, differ.
    """
    jobs = {job.sources[0].name: job for job in jobs}
    remove_leftovers({job.target.parent for job in jobs.values() if job.target})
    done = _read_journal(journal, facts)
    done = {
        name: result
        for name, result in done.items()
        if name in jobs and (jobs[name].target is None or jobs[name].target.is_file())
    }
    todo = [job for name, job in jobs.items() if name not in done]
    lines = [facts, *done.items()]
    write_bytes(journal, "".join(json.dumps(line) + "\n" for line in lines).encode())
    with open(journal, "a", encoding="utf-8") as file:
        for job, result in run_jobs(convert, todo, len(jobs), title, workers):
            done[job.sources[0].name] = result
            file.write(json.dumps([job.sources[0].name, result]) + "\n")
            file.flush()
    return [done[name] for name in jobs]


def _read_journal(path: Path, facts: dict) -> dict:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # drops a truncated last line
    if not lines or json.loads(lines[0]) != facts:
        return {}
    return dict(map(json.loads, lines[1:]))


def _is_fresh(job: Job, not_before: float) -> bool:
    try:
        target = os.stat(job.target)
    except FileNotFoundError:
        return False
    oldest = max(not_before, *(os.stat(source).st_mtime for source in job.sources))
    return target.st_size > 0 and target.st_mtime >= oldest


def map_values(values: np.ndarray, table: np.ndarray, path: Path, allowed: str) -> np.ndarray:
    """table[values]; ValueError if a value is beyond the table or UNKNOWN in it."""
    inside = np.minimum(values, len(table))
    labels = np.append(table, UNKNOWN)[inside]  # (H, W)
    if (labels == UNKNOWN).any():
        wrong = ", ".join(map(str, np.unique(values[labels == UNKNOWN])[:5]))
        raise ValueError(
            f"{path} has the value {wrong}, but a label map of this data set has {allowed}; "
            "download this data set and release again"
        )
    return labels
