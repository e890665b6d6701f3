"""Start main(args) in as many processes as are asked for, by --num-gpus or by torchrun."""

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2 import engine
from detectron2.utils import comm

from ..data.prepare.processes import end_with_parent
from ..errors import INTERRUPTED, sentence, shows_tracebacks
from .ending import Failure, log_traceback

logger = logging.getLogger(__name__)

_TORCHRUN_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def launch(main: Callable[[Namespace], object], args: Namespace) -> None:
    """Run `main(args)` on every rank; `args` is what detectron2's default_argument_parser parses.

    Under torchrun this process is one rank. Otherwise --num-gpus processes are started here, on
    GPUs or, where CUDA is absent, on CPUs (with 0 or 1: none, main runs here).
    """
    if "RANK" in os.environ or "LOCAL_RANK" in os.environ:
        _run_under_torchrun(main, args)
        return
    num_gpus = args.num_gpus
    check_num_gpus(num_gpus)
    if num_gpus > 1 and not torch.cuda.is_available():
        logger.warning(
            "CUDA is not available here: --num-gpus %d starts %d processes on the CPU",
            num_gpus,
            num_gpus,
        )
    if num_gpus > 1:
        _pass_on_interrupts()
    engine.launch(
        _run if num_gpus <= 1 else _run_as_child,
        max(1, num_gpus),
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(main, args),
    )


def _pass_on_interrupts():
    """Let the started processes answer Ctrl-C, and wait for their end."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return

    def pass_on(*_):
        for process in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)

    signal.signal(signal.SIGINT, pass_on)


def _run_as_child(main, args):
    """Run it in a process of --num-gpus, which ends with its launcher and tells it its error."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script may have it ignored
    try:
        _run(main, args)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if shows_tracebacks():
            raise
        log_traceback(error)
        raise Failure(sentence(error)) from None


def _run(main, args):
    """Run it, and leave the other ranks in order: else a process now and then aborts at its end."""
    main(args)
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # what main has left may hold the process group
        dist.barrier()  # no rank leaves while another still talks to it
        dist.destroy_process_group()


def count_processes(args: Namespace) -> int:
    """How many processes `launch` has on all machines together."""
    if not 0 <= args.machine_rank < args.num_machines:
        raise ValueError(
            f"--machine-rank must be from 0 to --num-machines minus 1; got {args.machine_rank} of "
            f"{args.num_machines} machines"
        )
    return max(1, args.num_gpus) * args.num_machines


def check_num_gpus(num_gpus: int) -> None:
    """Raise ValueError where --num-gpus asks for more than there are; CPUs have no such limit."""
    if num_gpus < 0:
        raise ValueError(f"--num-gpus must be 0 or more, not {num_gpus}")
    if torch.cuda.is_available():
        _check_devices(num_gpus, f"--num-gpus {num_gpus} asks for {num_gpus} GPUs")


def _run_under_torchrun(main, args):
    missing = [name for name in _TORCHRUN_VARIABLES if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"RANK or LOCAL_RANK is set, as torchrun does, but not {', '.join(missing)}; start "
            "with torchrun, or unset RANK and LOCAL_RANK to use --num-gpus"
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        _check_devices(local_size, f"torchrun has started {local_size} processes on this machine")
        torch.cuda.set_device(local_rank)
    if args.num_gpus > 1:
        logger.warning("--num-gpus %d is ignored: torchrun starts the processes", args.num_gpus)
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=engine.DEFAULT_TIMEOUT)
    comm.create_local_process_group(local_size)
    _run(main, args)


def _check_devices(wanted, what):
    found = torch.cuda.device_count()
    if wanted > found:
        raise ValueError(f"{what}, but this machine has {found}; ask for {found} at most")
