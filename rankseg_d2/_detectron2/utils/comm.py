"""What the processes of one training run tell each other; all of it also works with one process."""

from functools import lru_cache

import numpy as np
import torch
from torch import distributed as dist

_local_group = None


def get_world_size() -> int:
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    return dist.get_rank() if _initialized() else 0


def is_main_process() -> bool:
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the ranks that run on one machine; every process has to call it, once."""
    global _local_group
    world_size = get_world_size()
    if num_workers_per_machine < 1 or world_size % num_workers_per_machine:
        raise ValueError(
            f"{world_size} processes do not split into machines of {num_workers_per_machine}; "
            "every machine has to run the same number of processes"
        )
    for first in range(0, world_size, num_workers_per_machine):
        ranks = range(first, first + num_workers_per_machine)
        group = dist.new_group(list(ranks))  # on all ranks: a rule of torch.distributed
        if get_rank() in ranks:
            _local_group = group


def get_local_process_group():
    """The group of the processes on this machine."""
    if _local_group is None:
        raise RuntimeError(
            "the local process group is not there yet; start the processes with detectron2's "
            "launch(), or call comm.create_local_process_group(processes per machine) after "
            "torch.distributed.init_process_group()"
        )
    return _local_group


def get_local_rank() -> int:
    """The rank among the processes on this machine."""
    return 0 if get_world_size() == 1 else dist.get_rank(get_local_process_group())


def get_local_size() -> int:
    """How many processes run on this machine."""
    return 1 if get_world_size() == 1 else dist.get_world_size(get_local_process_group())


def synchronize() -> None:
    """Wait until every process is here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == "nccl":
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def all_gather(data, group=None) -> list:
    """The `data` of every rank, in the order of the ranks; any object that pickles."""
    if get_world_size() == 1:
        return [data]
    group = group or _gloo_group(dist.group.WORLD)
    gathered = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data, dst=0, group=None) -> list:
    """On rank `dst`: the `data` of every rank; elsewhere: an empty list."""
    if get_world_size() == 1:
        return [data]
    group = group or _gloo_group(dist.group.WORLD)
    here = dist.get_rank() == dst
    gathered = [None] * dist.get_world_size(group) if here else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered if here else []


def shared_random_seed() -> int:
    """A random number that is the same on every rank: the one that rank 0 draws."""
    return all_gather(int(np.random.randint(2**31)))[0]


@torch.no_grad()
def reduce_dict(input_dict, average=True):
    """The mean (or sum) over ranks of a dict of scalar tensors; it is complete on rank 0 only."""
    if get_world_size() == 1:
        return input_dict
    names = sorted(input_dict)  # the same order on every rank
    values = torch.stack([input_dict[name] for name in names])
    dist.reduce(values, dst=0)
    if average and is_main_process():
        values /= get_world_size()
    return dict(zip(names, values, strict=True))


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


@lru_cache(maxsize=1)
def _gloo_group(world):
    """A group of all ranks that moves objects in CPU memory, whatever the main backend is."""
    return dist.new_group(backend="gloo") if dist.get_backend(world) == "nccl" else world
