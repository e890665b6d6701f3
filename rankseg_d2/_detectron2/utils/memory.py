"""Try again when the GPU's memory is full."""

import logging
from functools import wraps

import torch

__all__ = ["retry_if_cuda_oom"]


def retry_if_cuda_oom(func):
    """`func`, called again with an emptied cache and then on the CPU if CUDA runs out of memory.

    For functions without a state that follow the device of their tensor arguments; the result
    may lie on the CPU.
    """

    @wraps(func)
    def wrapped(*args, **kwargs):
        for _ in range(2):
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if "CUDA out of memory" not in str(error):
                    raise
            torch.cuda.empty_cache()
        logging.getLogger(__name__).info(
            "CUDA is out of memory: %s runs on the CPU instead", getattr(func, "__name__", func)
        )
        return func(*map(_to_cpu, args), **{name: _to_cpu(x) for name, x in kwargs.items()})

    return wrapped


def _to_cpu(x):
    return x.cpu() if isinstance(x, torch.Tensor) else x
