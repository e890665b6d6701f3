"""Run cases of malformed input, each in a process of its own, and tell how they end."""

import contextlib
import dis
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

# As `outcome` gives them; a case that is refused on purpose or works is as it must be.
GOOD = ("ok", "sentence")
BAD = ("raw", "hang", "memory", "crash", "code")
SECONDS, BYTES = 30, 2 << 30  # that a case may take
LEAST = 16  # cases of a run, however long they take

# Values that nobody expects.
ODD = [
    None, True, 0, -1, 1, 2**31, 2**70, -0.5, 1e-300, 1e300, float("nan"), float("inf"),
    "", "x", "0", "../evil", "/etc/passwd", "a\0b", "y" * 5000, "[" * 3000, "-" * 100_000, "é",
    [], [[]], [0], [-1, 2], ["a"], [float("nan")], {}, {"a": 1}, [None], [[1, [2, [3]]]],
]  # fmt: skip


def run(cases, seconds):
    """Counts of the outcomes, and (name, outcome, detail) of the bad ones, of (name, function).

    Stops after so many seconds, but not before LEAST cases.
    """
    end, counts, bad = time.monotonic() + seconds, Counter(), []
    for name, function in cases:
        kind, detail = outcome(function)
        counts[kind] += 1
        if kind in BAD:
            bad.append((name, kind, detail))
        if counts.total() >= LEAST and time.monotonic() > end:
            break
    return counts, bad


def outcome(function):
    """(outcome, detail) of calling a function in a fork of this process."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        _call(function, write)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ("hang", "") if number == signal.SIGALRM else ("crash", signal.Signals(number).name)
    if usage.ru_maxrss * 1024 > BYTES + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024:
        return "memory", f"{usage.ru_maxrss >> 10} MiB"
    return tuple(json.loads(text)) if text else ("crash", f"exit status {status}")


def _call(function, pipe):
    """Write how the function ends; this process is a fork and ends here."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2 * BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        function()
        result = "ok", ""
    except BaseException as error:
        result = _kind(error)
    with contextlib.suppress(BaseException):
        os.write(pipe, json.dumps(result).encode()[:60_000])
    os._exit(0)


def _kind(error):
    """("sentence", its text) where our code raised it on purpose, else ("raw", its origin)."""
    text = f"{type(error).__name__}: {error}"[:300]
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "memory", text
    if isinstance(error, SystemExit):
        return "sentence", text
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    is_ours = f"{os.sep}rankseg_d2{os.sep}" in code.co_filename
    is_raised = dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
    if is_ours and is_raised and not isinstance(error, AssertionError):
        return "sentence", text
    return "raw", f"{text} ({os.path.basename(code.co_filename)}:{trace.tb_lineno})"


def changed(content, rng):
    """A copy of a json-like value with one part replaced, removed, repeated or renamed."""
    content = json.loads(json.dumps(content))
    parents = list(_parents(content))
    parent, key = rng.choice(parents)
    kind = rng.random()
    if kind < 0.65:
        parent[key] = rng.choice(ODD)
    elif kind < 0.8:
        del parent[key]
    elif isinstance(parent, list):
        parent.append(parent[key])
    else:
        parent[f"{key}x"] = parent.pop(key)
    return content


def _parents(value):
    """(container, key) of each part of a json-like value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(items):
        yield value, key
        if isinstance(part, dict | list):
            yield from _parents(part)


def damaged(data, rng):
    """Bytes with some of them changed, cut, repeated or replaced."""
    data, kind = bytearray(data), rng.random()
    if kind < 0.5:
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(min(len(data), rng.choice((64, len(data)))))] = rng.randrange(256)
    elif kind < 0.8:
        del data[rng.randrange(len(data)) :]
    elif kind < 0.9:
        start = rng.randrange(len(data))
        data[start:start] = data[start : start + 16]
    else:
        data = bytearray(rng.randbytes(rng.choice((0, 1, 11, 400))))
    return bytes(data)


def endless(make, seed=0):
    """(name, function) without end: make(rng) is the function of a case."""
    for number in range(sys.maxsize):
        yield str(number), make(random.Random(f"{seed} {number}"))
