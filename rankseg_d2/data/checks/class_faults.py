"""Faults that only all labels of a data set show."""

from typing import Any

import numpy as np
import yaml

from ..own.pairing import Fault
from .scan import Meaning, Tally, class_names


def class_faults(metadata: Any, tallies: list[Tally], dataset: str) -> list[Fault]:
    """The faults of the labels of all splits: classes without pixels, and only 0 and 255.

    dataset: the yaml, for which they are.
    """
    if not any(tally.pixels.any() or tally.ignored for tally in tallies):
        return []
    names, faults = class_names(metadata), []
    counts = sum(tally.images for tally in tallies)
    never = [name for name, count in zip(names, counts, strict=True) if not count]
    zero, full = Meaning.of(metadata).classes(np.array([0, 255])).tolist()
    if full < 0 and set().union(*(tally.values for tally in tallies)) == {0, 255}:
        pairs = {0: _background(names, zero)}
        pairs[255] = next((name for name in (*never, *names) if name != pairs[0]), "object")
        instead = "" if len(names) == 2 else ", without `classes`"
        faults.append(Fault("only 0 and 255", dataset, "if 255 is a class, and not ignored, write "
                            f"`values: {yaml_line(pairs)}`{instead}"))
    if never:
        faults.append(Fault("class in no split", dataset, f"{'; '.join(never)}: remove from the "
                            "classes what the labels do not have, or fix the meaning of the labels "
                            "(values, label_offset, color)"))
    return faults


def _background(names: list[str], zero: int) -> str:
    """The name of the value 0."""
    named = [name for name in names if name.lower() == "background"]
    if named or len(names) == 1 or zero < 0:
        return named[0] if named else "background"
    return names[zero]


def yaml_line(content: Any) -> str:
    """A table or list on one line of yaml."""
    text = yaml.safe_dump(content, default_flow_style=True, sort_keys=False, allow_unicode=True,
                          width=float("inf"))
    return text.strip()
