"""`rankseg-d2 doctor`: what is installed, what runs on which backend, and how to fix the rest."""

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from . import __version__, _engine

OK, NOTE, FAULT = "ok", "note", "fault"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is the next step for the user, if there is one."""

    topic: str
    text: str
    level: str = OK
    fix: str = ""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("doctor", help="check the installation and say how to fix it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report; the exit status is 1 if something needed is missing or broken, else 0."""
    findings = list(examine())
    sys.stdout.write(_report(findings))
    return int(any(finding.level == FAULT for finding in findings))


def examine() -> Iterator[Finding]:
    yield Finding("rankseg_d2", f"{__version__} on Python {platform.python_version()}")
    yield from packages()
    found = engine()
    yield found
    yield from devices()
    yield compiler()
    yield from op_backends()
    if found.level != FAULT:  # data sets need an engine
        yield emoji_font()


def _report(findings: list[Finding]) -> str:
    """The findings as aligned lines, each fix below its line."""
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:5}  {finding.topic:{width}}  {finding.text}")
        if finding.fix:
            lines.append(f"{'':5}  {'':{width}}  -> {finding.fix}")
    faults = sum(finding.level == FAULT for finding in findings)
    lines.append("ready to run" if not faults else f"{faults} fault(s): fix the lines marked fault")
    return "\n".join(lines) + "\n"


def packages() -> Iterator[Finding]:
    """The version of each dependency; a missing or too old one is a fault."""
    try:
        requirements = importlib.metadata.requires("rankseg_d2") or ()
    except importlib.metadata.PackageNotFoundError:
        text = "not installed, only a source folder: the versions of packages are not checked"
        yield Finding("packages", text, NOTE, "pip install -e . (in that folder)")
        return
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name, minimum = _split_requirement(requirement)
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", FAULT, f"pip install '{requirement}'")
            continue
        if minimum and release(version) < release(minimum):
            text = f"{version} is older than {minimum}"
            yield Finding(name, text, FAULT, f"pip install --upgrade '{requirement}'")
        else:
            yield Finding(name, version)


def _split_requirement(requirement: str) -> tuple[str, str]:
    """ "torch>=2.4" -> ("torch", "2.4"); "scipy" -> ("scipy", "")."""
    name, _, minimum = requirement.partition(">=")
    return name.strip(), minimum.strip()


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.13.0+cu130" -> (2, 13, 0)."""
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def engine() -> Finding:
    """Which engine runs; a real detectron2 that does not import is a fault."""
    name = _engine.engine_name()
    forced = " (asked for by RANKSEG_ENGINE)" if os.environ.get("RANKSEG_ENGINE") else ""
    if name == "detectron2":
        try:
            import detectron2
            import detectron2.engine  # noqa: F401  (loads its compiled part)
        except ImportError as error:
            fix = f"reinstall it: {_engine.INSTALL_LINE}; or set RANKSEG_ENGINE=embedded"
            return Finding("engine", f"real detectron2 does not import: {error}", FAULT, fix)
        return Finding("engine", f"real detectron2 {detectron2.__version__}{forced}")
    fix = f"nothing is missing; to install the real detectron2: {_engine.INSTALL_LINE}"
    return Finding("engine", f"embedded subset of detectron2{forced}", OK, "" if forced else fix)


def devices() -> Iterator[Finding]:
    import torch

    yield Finding("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            yield Finding(f"cuda:{index}", f"{properties.name}, {memory:.0f} GiB")
    elif torch.version.cuda is None:
        fix = "to use an NVIDIA GPU, install a CUDA build of torch"
        yield Finding("cuda", "this torch is built without CUDA: models run on the CPU", NOTE, fix)
    else:
        fix = "to use an NVIDIA GPU, check that `nvidia-smi` lists it and that its driver fits"
        text = f"built for CUDA {torch.version.cuda}, but torch sees no GPU: models run on the CPU"
        yield Finding("cuda", text, NOTE, fix)


def compiler() -> Finding:
    """The compilers found, and the next step if the ops are not compiled."""
    from .ops import library

    tools = (os.environ.get("CXX", "c++").split()[0], "nvcc", "ninja")
    found = [tool for tool in tools if shutil.which(tool)]
    text = f"{', '.join(found) or 'none'} found; "
    if library.WHY_NOT is None:
        return Finding("compiler", text + "the ops are compiled")
    fix = f"run in rankseg_d2's source folder: {library.BUILD}"
    if tools[0] not in found:
        fix = f"install a C++ compiler (for example: apt install g++); then {fix}"
    return Finding("compiler", text + "the ops are not compiled", NOTE, fix)


def op_backends() -> Iterator[Finding]:
    """Each backend of each op, with the reason why it cannot run here."""
    from .ops import ms_deform_attn

    for backend in ms_deform_attn.backends():
        if backend.why_not:
            yield Finding(f"op {backend.name}", backend.why_not, NOTE)
        else:
            yield Finding(f"op {backend.name}", "multi-scale deformable attention can run on it")


def emoji_font() -> Finding:
    """The font that the built-in data set `stickers` is drawn from."""
    from .data.stickers.pictures import EMOJI_VARIABLE, INSTALL, find_font

    chosen = os.environ.get(EMOJI_VARIABLE)
    if chosen:
        level = OK if os.path.exists(chosen) else FAULT
        fix = "" if level == OK else f"set {EMOJI_VARIABLE} to a font, or to a folder of pictures"
        return Finding("stickers", f"{EMOJI_VARIABLE} is {chosen}", level, fix)
    font = find_font()
    if font:
        return Finding("stickers", f"drawn from {font}")
    text = "no font of emoji is found: this built-in data set cannot be drawn"
    return Finding("stickers", text, NOTE, INSTALL)
