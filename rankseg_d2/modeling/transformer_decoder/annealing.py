"""The schedule by which EoMT's queries cease to be masked, block by block."""

from collections.abc import Sequence

from ...errors import short

POWER = 0.9  # of the decay from 1 to 0


def masked_share(start: int, end: int, iteration: int | None) -> float:
    """The share of the queries that are masked: 1 up to `start`, 0 from `end` on.

    Without an `iteration` the schedule is at its end.
    """
    if iteration is None or iteration >= end:
        return 0.0
    return (1 - max(0, iteration - start) / (end - start)) ** POWER


def check_annealing(starts: Sequence[int], ends: Sequence[int], num_blocks: int) -> None:
    """Raise ValueError unless both have one iteration for each block, or none at all."""
    keys = "MODEL.EOMT.MASK_START", "MODEL.EOMT.MASK_END"
    if len(starts) != len(ends) or len(starts) not in (0, num_blocks):
        raise ValueError(
            f"{keys[0]} and {keys[1]} must have {num_blocks} iterations each, one for each of "
            f"MODEL.EOMT.BLOCKS, or none; got {short(list(starts))} and {short(list(ends))}"
        )
    for start, end in zip(starts, ends, strict=True):
        if start >= end:
            raise ValueError(
                f"{keys[1]} must be later than {keys[0]} for each block; got {end} after {start}"
            )
