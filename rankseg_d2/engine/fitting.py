"""SOLVER.IMS_PER_BATCH auto: in how many parts a batch fits into memory."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ..memory import free_memory, highest_memory, watch_memory

logger = logging.getLogger(__name__)

_KEY = "SOLVER.IMS_PER_BATCH auto"
_SHARE = 0.85  # of the free memory: batches and images differ


def parts_that_fit(
    step: Callable[[list], Any],
    batch: list,
    model: nn.Module,
    optimizer: Optimizer,
    device: torch.device,
) -> int:
    """The least number of equal parts of a batch of which each fits, the same on all ranks.

    `step(part)` is forward and backward of some images. It is tried with one and with two; what
    more need is on the line through both. The state that the optimizer will have counts too. Parts
    have two images or more where a batch norm reads them.
    """
    # `step` moves running means, which are the training's.
    saved = {name: buffer.clone() for name, buffer in model.named_buffers()}
    free, before = free_memory(device), watch_memory(device)
    if free is None or before is None:
        logger.warning("%s: how much memory is free is not known on this system; the whole batch "
                       "is run at once", _KEY)  # fmt: skip
        parts = 1
    else:
        free = _SHARE * free / (comm.get_local_size() if device.type == "cpu" else 1)
        free = int(free) - _state_to_come(optimizer)
        least = _least(model)
        sizes = [n for n in range(least, len(batch) + 1) if len(batch) % n == 0]
        needs = _needs(step, batch, least, device, before) if len(sizes) > 1 else {}
        parts = len(batch) // _largest(sizes or [len(batch)], needs, free)
    optimizer.zero_grad()
    for name, buffer in model.named_buffers():
        buffer.copy_(saved[name])
    return max(comm.all_gather(parts))


def _least(model):
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return 2 if any(norm.training for norm in norms) else 1


def _needs(step, batch, least, device, before):
    """{number of images: bytes}, of two numbers, or of one where a GPU has no room for more."""
    largest, needs = sorted(batch, key=_size, reverse=True), {}
    for number in (least, least + 1):
        try:
            step(largest[:number])
        except torch.OutOfMemoryError:
            if not needs:
                raise
            torch.cuda.empty_cache()
            break
        needs[number] = max(highest_memory(device) - before, *needs.values(), 1)
    return needs


def _largest(sizes, needs, free):
    """The largest size that needs at most `free`; the least where a GPU has no room for more."""
    if len(needs) < 2:
        return sizes[0]
    (least, first), (_, second) = needs.items()
    fit = [size for size in sizes if first + (size - least) * (second - first) <= free]
    size = max(fit, default=sizes[0])
    numbers = map(_text, (first, second - first, free))
    logger.info(
        "%s: %d of %d images at a time (needed for %d: %s, for each further one: %s; free: %s)",
        _KEY, size, sizes[-1], least, *numbers,
    )  # fmt: skip
    return size


def _size(sample: Any) -> int:
    """The pixels of an image, or of one frame of a clip."""
    image = sample.get("image") if isinstance(sample, dict) else None
    image = image[0] if isinstance(image, list) else image
    return 0 if image is None else image[0].numel()


def _state_to_come(optimizer: Optimizer) -> int:
    """Bytes of the state that the first step will make: at most two numbers of each weight."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    return sum(2 * one.nbytes for one in parameters if one not in optimizer.state)


def _text(number: float) -> str:
    return f"{number / 2**30:.2f} GiB"
