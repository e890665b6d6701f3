"""Checkpoints that are not quite the model's: old names, other classes, queries or ranks.

Weights are dicts of names and tensors, as `state_dict()` gives them; "own" ones are the model's.
"""

import copy
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Buffers that follow from the config: the file's are not taken.
CONSTANTS = re.compile(r"criterion\.empty_weight|.*\.relative_position_index")


@dataclass(frozen=True)
class Rows:
    """What the rows of a weight along `dim` stand for; the last is no-object where `closed`."""

    meaning: str  # classes, queries or ranks
    dim: int = 0
    closed: bool = False


@dataclass
class Adaptation:
    """What of a file is for the model, and what had to be done to it."""

    weights: dict[str, Tensor]  # what fits, and what the model has no name for
    adapted: dict[str, str] = field(default_factory=dict)  # name -> how
    refused: dict[str, str] = field(default_factory=dict)  # name -> why

    def taken(self, own: Collection[str]) -> list[str]:
        """The model's weights that come from the file, wholly or in part."""
        return [name for name in self.weights if name in own and not CONSTANTS.fullmatch(name)]


def adapt(
    weights: dict[str, Tensor],
    own: dict[str, Tensor],
    classes: Sequence[str] | None = None,
    own_classes: Sequence[str] | None = None,
    rows: Mapping[str, Rows] | None = None,
) -> Adaptation:
    """Fit the file's weights to the model; rows without a counterpart keep the model's values.

    Classes go by name where both sides' names are given, else by number if both have equally many.
    Queries and ranks go by number, no-object to no-object. `rows`: which weights have such rows, by
    name, as the model says (`checkpoint_rows`).
    """
    result = Adaptation(copy.copy(weights))  # an OrderedDict keeps its attribute, the versions
    for name in [name for name in weights if name in own]:
        kind = rows.get(name) if rows else None
        if kind and _same_but(kind.dim, weights[name], own[name]):
            fitted, note = _fit_rows(kind, weights[name], own[name], classes, own_classes)
        else:
            fitted, note = _fit(name, weights[name], own[name])
        if fitted is None:
            del result.weights[name]
            result.refused[name] = note
        elif note:
            result.weights[name] = fitted
            result.adapted[name] = note
    return result


def table(result: Adaptation, own: Collection[str], fresh: list[str], unknown: list[str]) -> str:
    """The counts in one line; where not all was simply loaded, what became of what.

    `fresh` are the model's weights that got nothing, `unknown` the file's that the model lacks.
    """
    loaded = own.keys() - result.adapted.keys() - set(fresh)
    unused = [*unknown, *result.refused]
    counts = (
        f"The model's {len(own)} weights: {len(loaded)} loaded, {len(result.adapted)} adapted, "
        f"{len(fresh)} fresh; of the file's, {len(unused)} unused"
    )
    if not (result.adapted or fresh or unused):
        return counts
    lines = [counts, f"  loaded: {_listed(name for name in own if name in loaded)}"]
    lines += [f"  adapted, {how}: {_listed(names)}" for how, names in _by_value(result.adapted)]
    lines += [f"  fresh: {_listed(fresh)}", f"  unused: {_listed(unknown)}"]
    refused = _by_value(result.refused)
    if len(refused) > 4:
        refused = [("of other shapes than the model's", result.refused)]
    lines += [f"  unused, {why}: {_listed(names)}" for why, names in refused]
    return "\n".join(line for line in lines if not line.endswith(": "))


def differences(weights: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """What keeps the weights from being the model's in every name and shape."""
    found = [
        f"{name} is {_shapes(weights[name], own[name])}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    found += [f"{name} is in the model only" for name in own if name not in weights]
    return found + [f"{name} is in the file only" for name in weights if name not in own]


def _fit(name: str, value: Tensor, own: Tensor) -> tuple[Tensor | None, str]:
    """The weight that the model gets and how it was made; or None, and why nothing fits."""
    if CONSTANTS.fullmatch(name):
        return own, "" if torch.equal(value.to(own), own) else "as the config makes it"
    if value.shape == own.shape:
        return value, ""
    return None, _shapes(value, own)


def _fit_rows(rows: Rows, value, own, classes, own_classes) -> tuple[Tensor | None, str]:
    there, here = (x.shape[rows.dim] - rows.closed for x in (value, own))
    by = ""
    if rows.meaning == "classes":
        pairs, by = _class_pairs(there, here, classes, own_classes)
    else:
        pairs = [(i, i) for i in range(min(there, here))]
    how = f"{len(pairs)} of {here} {rows.meaning}{by}{' and no-object' * rows.closed}"
    if rows.closed:
        pairs.append((there, here))
    if not pairs:
        return None, how
    if there == here and pairs == [(i, i) for i in range(own.shape[rows.dim])]:
        return value, ""
    sources, targets = torch.tensor(pairs, device=own.device).T
    kept = value.to(own).index_select(rows.dim, sources)
    return own.index_copy(rows.dim, targets, kept), f"{how} (the file has {there})"


def _class_pairs(there: int, here: int, classes, own_classes) -> tuple[list[tuple[int, int]], str]:
    """(row in the file, row in the model) of each class, and how the classes were matched."""
    named = all(isinstance(names, (list, tuple)) for names in (classes, own_classes))
    if named and (len(classes), len(own_classes)) == (there, here) and classes != own_classes:
        rows = {_plain(name): i for i, name in enumerate(classes)}
        found = [(rows.get(_plain(name)), i) for i, name in enumerate(own_classes)]
        return [(row, i) for row, i in found if row is not None], " by name"
    if there == here:
        return [(i, i) for i in range(here)], ""
    return [], ", whose names are not known on both sides,"


def _plain(class_name: str) -> str:
    return class_name.strip().casefold()


def _same_but(dim: int, value: Tensor, own: Tensor) -> bool:
    """Whether the shapes are the same but for one dimension."""
    shapes = [[*x.shape[:dim], *x.shape[dim + 1 :]] for x in (value, own)]
    return value.dim() == own.dim() and shapes[0] == shapes[1]


def _shapes(value: Tensor, own: Tensor) -> str:
    return f"{tuple(value.shape)} in the file and {tuple(own.shape)} in the model"


def _by_value(notes: dict[str, str]) -> list[tuple[str, list[str]]]:
    names = defaultdict(list)
    for name, note in notes.items():
        names[note].append(name)
    return list(names.items())


def _listed(names: Iterable[str]) -> str:
    """A few names as they are, many as the number of each part of the model."""
    names = list(names)
    if len(names) <= 4:
        return ", ".join(names)
    parts = defaultdict(list)
    for name in names:
        parts[re.match(r"(sem_seg_head\.)?[^.]*", name)[0]].append(name)
    return ", ".join(f"{part} ({len(group)})" for part, group in parts.items())
