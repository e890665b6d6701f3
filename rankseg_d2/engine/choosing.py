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
    """What a kind of machine can do."""

    model: str
    reason: str
    gib_per_image: float  # of memory, to train with an image of 512 x 512
    queries: int  # of the model
    largest_size: int
    largest_batch: int  # of all processes
    passes: int  # how often each image is seen
    least_iterations: int
    most_iterations: int


# Memory is twice what the backward pass keeps of one image in float32 (0.5 and 1.0 GiB, measured).
_CPU = _Kind("lite0_small", "there is no GPU", 1.0, 50, 256, 4, 30, 300, 4_000)
_SMALL_GPU = _Kind(
    "lite0_small", "the GPU has less than 8 GiB", 1.0, 50, 384, 8, 60, 1_000, 20_000
)
_GPU = _Kind("lite0", "the GPU has 8 GiB or more", 2.0, 100, 512, 16, 60, 1_500, 40_000)
_LARGE_GPU = _GPU._replace(reason="the GPU has 24 GiB or more", largest_size=640)
_PER_CPU = 250  # iterations
_RESERVED = 2.0  # GiB of a GPU for weights, optimizer and CUDA
_LEAST_SIZE, _STEP = 96, 32  # of a crop, in pixels
_MOST_QUERIES = 300


def choose(
    data: Fingerprint, machine: Machine, iterations: int | None = None, kappa: int | None = None
) -> Choice:
    """The training of a data set on a machine; `iterations` and `kappa`, if the user says them."""
    _check(data, machine)
    kind = _kind_of(machine)
    size = _size(data, kind)
    batch, whole_batch = _batch(data, machine, kind, size)
    iterations = iterations or _iterations(data, kind, whole_batch)
    period = max(1, iterations // 5)
    kappa = kappa or min(data.classes, 2 * data.categories)
    queries = _queries(data, kind)
    keys = {
        "MODEL.RANKSEG.TOPK": kappa,
        "MODEL.RANKSEG.TOPK_SCHEDULE": _kappas(data.classes, kappa, iterations),
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
        most = min(max(_PER_CPU * machine.cpus, 500), _CPU.most_iterations)
        return _CPU._replace(most_iterations=most)
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
    wanted = math.ceil(kind.passes * data.images / whole_batch)
    return min(max(wanted, kind.least_iterations), kind.most_iterations)


def _kappas(classes: int, kappa: int, iterations: int) -> list[list[int]]:
    """From all categories down to κ: to begin with κ costs accuracy (benchmarks/studies/shapes.md).

    A list that is not learnt yet lacks what is there.
    """
    return [[0, classes], [iterations * 4 // 5, kappa]] if kappa < classes else []


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
    iterations, batch = keys["SOLVER.MAX_ITER"], keys["SOLVER.IMS_PER_BATCH"]
    schedule = f"{iterations:,} iterations, in which {iterations * batch:,} images are seen, each "
    schedule += f"{iterations * batch / data.images:.2g} times"
    if iterations == kind.most_iterations:
        schedule += f"; not more, because {kind.reason}"
    kappa = f"{keys['MODEL.RANKSEG.TOPK']} of {data.classes} categories: twice the "
    kappa += f"{data.categories} that an image has at most"
    if keys["MODEL.RANKSEG.TOPK_SCHEDULE"]:
        kappa += "; the training comes down to it from all"
    evaluation = "none, because no split val has labels; add one to the yaml of the data"
    if data.val_images:
        evaluation = (
            f"on {data.val_images:,} images, every {keys['TEST.EVAL_PERIOD']:,} iterations; "
            f"model_best.pth is the one with the best {BEST[data.task]}"
        )
    return {
        "model": f"{config}, because {kind.reason}; it starts from ImageNet weights",
        "image size": _why_size(data, kind, keys["INPUT.MIN_SIZE_TEST"]),
        "batch": _why_batch(data, machine, kind, batch),
        "schedule": schedule,
        "κ": kappa,
        "queries": f"{keys['MODEL.MASK_FORMER.NUM_OBJECT_QUERIES']}: an image has {data.objects} "
        "objects at most",
        "evaluation": evaluation,
    }


def _why_size(data: Fingerprint, kind: _Kind, size: int) -> str:
    edge = min(data.height, data.width)
    if edge > size:
        return f"{size} pixels, not the {edge} of the shortest edge, because {kind.reason}"
    if edge < _LEAST_SIZE:
        return f"{size} pixels, the least that is of use; the shortest edge has {edge}"
    return f"{size} pixels, as the shortest edge of most images"


def _why_batch(data: Fingerprint, machine: Machine, kind: _Kind, batch: int) -> str:
    if batch >= data.images:
        return f"{batch}, because there are {data.images} images"
    if batch >= kind.largest_batch and machine.gpu_memory:
        return f"{batch}, which the GPU's memory of {machine.gpu_memory:.0f} GiB can hold"
    if machine.gpu_memory:
        return f"{batch}, because the GPU's memory of {machine.gpu_memory:.0f} GiB holds no more"
    return f"{batch}, because {kind.reason}"
