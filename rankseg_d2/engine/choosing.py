"""Choose model, image size, batch, schedule and κ for own data on a machine, and say why.

A pure function of the data's fingerprint and the machine: the same choice for the same two.
"""

import math
from typing import Any, NamedTuple

from ..data.checks.fingerprint import Fingerprint

BEST = {"semantic": "sem_seg/mIoU", "panoptic": "panoptic_seg/PQ", "instance": "segm/AP"}


class Machine(NamedTuple):
    """What a training may use."""

    processes: int = 1
    gpu_memory: float = 0.0  # GiB of the smallest GPU; 0: no GPU
    cpus: int = 1


class Choice(NamedTuple):
    """The base of a config, the keys that differ from it, and a reason for each choice."""

    config: str
    keys: dict[str, Any]
    why: dict[str, str]  # what -> reason


class _Kind(NamedTuple):
    """What a kind of machine can do; memory is for training one image of 512 x 512 pixels."""

    model: str
    reason: str
    gib_per_image: float
    queries: int  # of the model
    largest_size: int
    largest_batch: int  # of all processes
    passes: int  # how often each image is seen
    iterations: tuple[int, int]  # at least and at most


_CPU = _Kind("lite0_small", "there is no GPU", 1.5, 50, 256, 4, 30, (300, 2_000))
_SMALL_GPU = _Kind(
    "lite0_small", "the GPU has less than 8 GiB", 1.5, 50, 384, 8, 60, (1_000, 20_000)
)
_GPU = _Kind("lite0", "the GPU has 8 GiB or more", 3.0, 100, 512, 16, 60, (1_500, 40_000))
_LARGE_GPU = _GPU._replace(reason="the GPU has 24 GiB or more", largest_size=640)
_RESERVED = 2.0  # GiB of a GPU for weights, optimizer and CUDA
_LEAST_SIZE, _STEP = 96, 32  # of a crop, in pixels
_MOST_QUERIES = 300


def choose(data: Fingerprint, machine: Machine) -> Choice:
    """The training of a data set on a machine."""
    _check(data, machine)
    kind = _kind_of(machine)
    size = _size(data, kind)
    batch, whole_batch = _batch(data, machine, kind, size)
    iterations = _iterations(data, kind, whole_batch)
    period = max(1, iterations // 5)
    kappa = min(data.classes, max(2 * data.categories, math.ceil(data.classes / 2)))
    queries = _queries(data, kind)
    keys = {
        "MODEL.RANKSEG.TOPK": kappa,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": queries,
        "INPUT.CROP.SIZE": [size, size],
        "INPUT.SIZE_DIVISIBILITY": size,
        "INPUT.MIN_SIZE_TRAIN": [size * part // 4 for part in (3, 4, 5, 6)],
        "INPUT.MAX_SIZE_TRAIN": 4 * size,
        "INPUT.MIN_SIZE_TEST": size,
        "INPUT.MAX_SIZE_TEST": 4 * size,
        "SOLVER.IMS_PER_BATCH": batch,
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.WARMUP_ITERS": min(100, iterations // 10),
        "SOLVER.CHECKPOINT_PERIOD": period,
        "TEST.EVAL_PERIOD": period if data.val_images else 0,
        "TEST.BEST.METRIC": BEST[data.task] if data.val_images else "",
        "DATALOADER.NUM_WORKERS": _workers(machine),
        "OUTPUT_DIR": f"output/{data.name}",
    }
    keys |= {"SOLVER.AMP.ENABLED": True} if machine.gpu_memory else {"MODEL.DEVICE": "cpu"}
    config = f"own/{data.task}/{kind.model}_rankseg"
    return Choice(config, keys, _why(data, machine, kind, config, keys))


def _check(data: Fingerprint, machine: Machine) -> None:
    if data.task not in BEST:
        raise ValueError(f"the task must be one of {', '.join(BEST)}; got {data.task!r}")
    counts = {name: getattr(data, name) for name in ("images", "height", "width", "categories")}
    counts |= {"processes": machine.processes, "cpus": machine.cpus}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be 1 or more; got {count}")
    if data.categories > data.classes:
        raise ValueError(
            f"an image cannot have {data.categories} categories of {data.classes} classes"
        )


def _kind_of(machine: Machine) -> _Kind:
    if not machine.gpu_memory:
        return _CPU
    if machine.gpu_memory < 8:
        return _SMALL_GPU
    return _GPU if machine.gpu_memory < 24 else _LARGE_GPU


def _size(data: Fingerprint, kind: _Kind) -> int:
    """The side of a crop: the shortest edge in whole steps, within what the machine can do."""
    edge = _STEP * math.ceil(min(data.height, data.width) / _STEP)
    return min(max(edge, _LEAST_SIZE), kind.largest_size)


def _batch(data: Fingerprint, machine: Machine, kind: _Kind, size: int) -> tuple[int, int]:
    """Images in a batch: for this many images, and for any number of them."""
    per_process = max(1, kind.largest_batch // machine.processes)
    if machine.gpu_memory:
        gib = kind.gib_per_image * (size / 512) ** 2
        per_process = min(per_process, max(1, int((machine.gpu_memory - _RESERVED) / gib)))
    needed = math.ceil(data.images / machine.processes)
    return machine.processes * min(per_process, needed), machine.processes * per_process


def _iterations(data: Fingerprint, kind: _Kind, whole_batch: int) -> int:
    least, most = kind.iterations
    return min(max(math.ceil(kind.passes * data.images / whole_batch), least), most)


def _queries(data: Fingerprint, kind: _Kind) -> int:
    """Half as many again as objects in an image, in whole fifties, within bounds."""
    wanted = 50 * math.ceil(1.5 * data.objects / 50)
    return min(max(wanted, kind.queries), _MOST_QUERIES)


def _workers(machine: Machine) -> int:
    """Processes that load data, for each process of the training, which needs the CPU itself."""
    share = machine.cpus // machine.processes
    return min(8, share) if machine.gpu_memory else min(2, share // 4)


def _why(
    data: Fingerprint, machine: Machine, kind: _Kind, config: str, keys: dict[str, Any]
) -> dict[str, str]:
    size, batch = keys["INPUT.MIN_SIZE_TEST"], keys["SOLVER.IMS_PER_BATCH"]
    iterations, kappa = keys["SOLVER.MAX_ITER"], keys["MODEL.RANKSEG.TOPK"]
    edge, queries = min(data.height, data.width), keys["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES"]
    size_reason = "the shortest edge of most images"
    if edge > size:
        size_reason = f"of {edge} on the shortest edge, because {kind.reason}"
    elif edge < _LEAST_SIZE:
        size_reason = f"the least that the model can use, for {edge} on the shortest edge"
    limit = f"as many as {machine.processes} x {machine.gpu_memory:.0f} GiB hold, at most "
    limit = limit + str(kind.largest_batch) if machine.gpu_memory else f"because {kind.reason}"
    if batch >= data.images:
        limit = f"there are {data.images} images"
    seen = iterations * batch / data.images
    why = {
        "model": f"{config}, because {kind.reason}; it starts from ImageNet weights",
        "image size": f"{size} pixels, {size_reason}",
        "batch": f"{batch} images, {limit}",
        "schedule": f"{iterations:,} iterations, in which an image is seen {seen:,.1f} times; "
        f"at most {kind.iterations[1]:,}, because {kind.reason}",
        "κ": f"{kappa} of {data.classes} categories: an image has {data.categories} at most, and "
        "the ranking needs room for its mistakes",
        "queries": f"{queries}, for at most {data.objects} objects in an image",
    }
    if data.val_images:
        why["evaluation"] = (
            f"on {data.val_images:,} images, every {keys['TEST.EVAL_PERIOD']:,} iterations; "
            f"model_best.pth has the best {BEST[data.task]}"
        )
    else:
        why["evaluation"] = "none, because no split val has labels; add one to the data's yaml"
    return why
