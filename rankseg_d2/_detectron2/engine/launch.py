"""Start one process per GPU (or per asked-for process on a machine without GPUs); join them."""

import socket
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from ..utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func,
    num_gpus_per_machine,
    num_machines=1,
    machine_rank=0,
    dist_url=None,
    args=(),
    timeout=DEFAULT_TIMEOUT,
):
    """Run `main_func(*args)` in `num_gpus_per_machine` processes on each machine.

    With one process in all it runs here. `dist_url` "auto" takes a free port of this machine.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ValueError(
                "dist_url 'auto' works on one machine only; give the address of machine 0, "
                "such as tcp://10.0.0.1:29500"
            )
        with socket.create_server(("127.0.0.1", 0)) as server:
            dist_url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    first_rank = machine_rank * num_gpus_per_machine
    group = {"init_method": dist_url, "world_size": world_size, "timeout": timeout}
    mp.spawn(
        _run_process,
        (main_func, args, num_gpus_per_machine, first_rank, group),
        nprocs=num_gpus_per_machine,
    )


def create_ddp_model(model, *, fp16_compression=False, **kwargs):
    """The model, wrapped in DistributedDataParallel where there are several processes."""
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs:
        on_cpu = next(model.parameters()).device.type == "cpu"
        kwargs["device_ids"] = None if on_cpu else [comm.get_local_rank()]
    ddp = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default as comm_hooks

        ddp.register_comm_hook(state=None, hook=comm_hooks.fp16_compress_hook)
    return ddp


def _run_process(local_rank, main_func, args, num_gpus, first_rank, group):
    has_gpu = torch.cuda.is_available()
    if has_gpu and num_gpus > torch.cuda.device_count():
        raise RuntimeError(
            f"{num_gpus} GPUs are asked for, but this machine has {torch.cuda.device_count()}"
        )
    dist.init_process_group("nccl" if has_gpu else "gloo", rank=first_rank + local_rank, **group)
    comm.create_local_process_group(num_gpus)
    if has_gpu:
        torch.cuda.set_device(local_rank)
    comm.synchronize()
    main_func(*args)
