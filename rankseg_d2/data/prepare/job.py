"""How public data sets are prepared: several processes, a progress bar, and never a half file.

A `Preparation` knows what it makes from what, and keeps a record beside its files: begun, finished,
by which rule, from which state of the sources. Started again after it was killed, it goes on.
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

from ...files import listed, read_json, remove_leftovers, write_bytes, write_json
from .processes import run_jobs

UNKNOWN = -1  # in a table of label values: this value must not occur


class Job(NamedTuple):
    """One file to make: `convert(job)` runs in any process, so all of it can be pickled."""

    target: Path | None  # None: what it returns is all that it makes
    sources: tuple[Path, ...]
    args: tuple = ()


@dataclass(frozen=True)
class Preparation:
    """What one command makes of one split. All paths are below `root`, and may be patterns."""

    command: str  # as in `rankseg-d2 dataset prepare COMMAND`
    root: Path
    record: str
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    version: int = 1  # of the rule: raise it when files that exist are not what it makes any more

    @property
    def command_line(self) -> str:
        return f"rankseg-d2 dataset prepare {self.command} --root {self.root}"

    def require(self) -> None:
        """Raise what a user can act on, unless the outputs are there, whole and up to date.

        Without a record the files come from another tool, and are taken as they are.
        """
        record, where = self.read_record(), self.root / self.record
        if record is not None and not record["finished"]:
            raise RuntimeError(
                f"the preparation that {where} records was not finished; run "
                f"`{self.command_line}` again: it goes on where it stopped"
            )
        for output in self.outputs:
            if not any(listed(self.root, output)):
                raise FileNotFoundError(
                    f"{self.root / output} is not there; make it with `{self.command_line}`"
                )
        if record is None:
            return
        if record["version"] != self.version:
            raise RuntimeError(
                f"{where} records files made by rule {record['version']}, and now rule "
                f"{self.version} holds; make them anew with `{self.command_line}`"
            )
        for pattern, made_from in record["sources"].items():
            now = state(self.root, pattern)
            if now["files"] and now != made_from:  # published files may be deleted afterwards
                raise RuntimeError(
                    f"what {where} records is older than its source {self.root / pattern}: it was "
                    f"made from {_told(made_from)}, and now there are {_told(now)}; bring it up "
                    f"to date with `{self.command_line}`"
                )

    @contextmanager
    def making(self, **options) -> Iterator[float]:
        """Around the work: gives the time in seconds that a file must not be older than."""
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
        """Whether all is made, from these very sources; or by another tool, which is accepted."""
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
            raise ValueError(f"The record of a preparation is damaged: {error} Delete it, and run "
                             f"`{self.command_line}`.") from error

    def check_sources(self) -> None:
        """Raise what a user can act on, if a source is not there at all."""
        for pattern in self.sources:
            if not any(listed(self.root, pattern)):
                raise FileNotFoundError(
                    f"there is no {self.root / pattern}; get the data set (datasets/README.md says "
                    "where from) and put it there, or set --root or DETECTRON2_DATASETS to the "
                    "folder that holds it"
                )

    def _new_record(self, options: dict) -> dict:
        self.check_sources()
        states = {pattern: state(self.root, pattern) for pattern in self.sources}
        facts = {"version": self.version, "options": options, "sources": states}
        return facts | {"not_before": 0.0, "finished": False}

    def _write_record(self, record: dict) -> None:
        write_json(self.root / self.record, record)


def state(root: Path, pattern: str) -> dict:
    """How many files a pattern finds, and the newest one's time in whole seconds."""
    times = [os.stat(path).st_mtime for path in listed(root, pattern)]
    return {"files": len(times), "newest": int(max(times, default=0))}


def _must_start_anew(before: dict, now: dict) -> bool:
    """Whether the files' times do not tell which must be made anew.

    So it is if rule, options or kind of source are others, and if a source has become older.
    """
    made_from, sources = before["sources"], now["sources"]
    is_same = all(before[key] == now[key] for key in ("version", "options"))
    if not is_same or made_from.keys() != sources.keys():
        return True
    return any(sources[x]["newest"] < made_from[x]["newest"] for x in sources)


def _told(found: dict) -> str:
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["newest"]))
    return f"{found['files']} files, the newest of {day}"


def make_files(
    convert: Callable, jobs: Iterable[Job], title: str, workers: int, not_before: float = 0
) -> None:
    """Call `convert` for each job whose target is missing, or older than a source of it."""
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
    """A json in COCO's format from what `convert` returns: {"image": ..., "annotations": [...]}.

    What another tool has made is kept.
    """
    if preparation.is_done(jobs, **options):
        return
    with preparation.making(**options):
        journal = json_file.with_name(f".{json_file.name}.journal")
        facts = preparation.read_record()
        parts = collect(convert, jobs, journal, facts, json_file.stem, workers)
        annotations = [x for part in parts for x in part["annotations"]]
        content = {
            "images": [part["image"] for part in parts],
            "annotations": [{"id": number} | x for number, x in enumerate(annotations, 1)],
            "categories": categories,
        }
        write_json(json_file, content)
        journal.unlink()


def collect(
    convert: Callable, jobs: Iterable[Job], journal: Path, facts: dict, title: str, workers: int
) -> list:
    """`convert(job)`, in the order of the jobs; results are jsonable, and known by first source.

    Each result is a line of the file `journal` as soon as it is there, so that a second call
    after a kill has only the rest to do; unless `facts`, its first line, have changed meanwhile.
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
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last one, if cut off, is lost
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
    """table[values]; a value with UNKNOWN in the table, or beyond it, is an error."""
    inside = np.minimum(values, len(table))
    labels = np.append(table, UNKNOWN)[inside]  # (H, W)
    if (labels == UNKNOWN).any():
        wrong = ", ".join(map(str, np.unique(values[labels == UNKNOWN])[:5]))
        raise ValueError(
            f"{path} has the value {wrong}, but a label map of this data set has {allowed}; the "
            "file is damaged or belongs to another data set or release"
        )
    return labels
