"""Adapt a checkpoint to a model with other classes, queries or ranks.

Weights are dicts of names and tensors, as in `state_dict()`; `own` are the model's.
"""

import copy
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Buffers that the config defines; the file's are not loaded.
_CONSTANTS = re.compile(r"criterion\.empty_weight|.*\.relative_position_index")


@dataclass(frozen=True)
class Rows:
    """The meaning of a weight's rows along `dim`; with `closed` the last row is no-object.

    Rows that stand for places have `resize`, which makes the file's weight as long as the model's.
    """

    meaning: str  # classes, queries, ranks or offsets
    dim: int = 0
    closed: bool = False
    resize: Callable[[Tensor], Tensor] | None = None


@dataclass
class Adaptation:
    """The weights of a file that a model can load."""

    weights: dict[str, Tensor]  # those that fit, and those that the model does not have
    adapted: dict[str, str] = field(default_factory=dict)  # name -> how it was adapted
    refused: dict[str, str] = field(default_factory=dict)  # name -> why it does not fit

    def taken(self, own: Collection[str]) -> list[str]:
        """The model's weights that come from the file, wholly or in part."""
        return [name for name in self.weights if name in own and not _CONSTANTS.fullmatch(name)]


def adapt(
    weights: dict[str, Tensor],
    own: dict[str, Tensor],
    classes: Sequence[str] | None = None,
    own_classes: Sequence[str] | None = None,
    rows: Mapping[str, Rows] | None = None,
) -> Adaptation:
    """Fit the file's weights to the model; rows without a counterpart keep the model's values.

    Classes are matched by name if the names of both sides are known, else by index if both sides
    have the same number. Queries and ranks are matched by index, no-object to no-object. `rows`
    names the weights that have such rows (`checkpoint_rows` of the model).
    """
    result = Adaptation(copy.copy(weights))  # an OrderedDict keeps its attribute, the versions
    for name in [name for name in weights if name in own]:
        kind = rows.get(name) if rows else None
        if kind and kind.resize is not None:
            fitted, note = _resize_rows(kind, weights[name], own[name])
        elif kind and _same_but(kind.dim, weights[name], own[name]):
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
    """A line of counts and, unless all weights were loaded as they are, a line for each group.

    `fresh` are the model's weights that the file lacks, `unknown` the file's that the model lacks.
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
        refused = [("of shapes that differ from the model's", result.refused)]
    lines += [f"  unused, {why}: {_listed(names)}" for why, names in refused]
    return "\n".join(line for line in lines if not line.endswith(": "))


def differences(weights: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """The names and shapes in which the weights differ from the model's."""
    found = [
        f"{name} is {_shapes(weights[name], own[name])}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    found += [f"{name} is in the model only" for name in own if name not in weights]
    return found + [f"{name} is in the file only" for name in weights if name not in own]


def _fit(name: str, value: Tensor, own: Tensor) -> tuple[Tensor | None, str]:
    """(weight for the model, how it was adapted), or (None, why it does not fit)."""
    if _CONSTANTS.fullmatch(name):
        return own, "" if torch.equal(value.to(own), own) else "as the config defines it"
    if value.shape == own.shape:
        return value, ""
    return None, _shapes(value, own)


def _fit_rows(
    rows: Rows,
    value: Tensor,
    own: Tensor,
    classes: Sequence[str] | None,
    own_classes: Sequence[str] | None,
) -> tuple[Tensor | None, str]:
    in_file, in_model = (x.shape[rows.dim] - rows.closed for x in (value, own))
    by = ""
    if rows.meaning == "classes":
        pairs, by = _class_pairs(in_file, in_model, classes, own_classes)
    else:
        pairs = [(i, i) for i in range(min(in_file, in_model))]
    how = f"{len(pairs)} of {in_model} {rows.meaning}{by}{' and no-object' * rows.closed}"
    if rows.closed:
        pairs.append((in_file, in_model))
    if not pairs:
        return None, how
    if in_file == in_model and pairs == [(i, i) for i in range(own.shape[rows.dim])]:
        return value, ""
    sources, targets = torch.tensor(pairs, device=own.device).T
    kept = value.to(own).index_select(rows.dim, sources)
    return own.index_copy(rows.dim, targets, kept), f"{how} (the file has {in_file})"


def _resize_rows(rows: Rows, value: Tensor, own: Tensor) -> tuple[Tensor | None, str]:
    if value.shape == own.shape:
        return value, ""
    if value.dim() != own.dim():
        return None, _shapes(value, own)
    in_file, in_model = (x.shape[rows.dim] for x in (value, own))
    try:
        resized = rows.resize(value)
    except ValueError as error:
        return None, str(error)
    if resized.shape != own.shape:
        return None, _shapes(value, own)
    return resized, f"resized from {in_file} to {in_model} {rows.meaning}"


def _class_pairs(
    in_file: int,
    in_model: int,
    classes: Sequence[str] | None,
    own_classes: Sequence[str] | None,
) -> tuple[list[tuple[int, int]], str]:
    """(row in the file, row in the model) of each class, and how the classes were matched."""
    named = all(isinstance(names, (list, tuple)) for names in (classes, own_classes))
    if named and (len(classes), len(own_classes)) == (in_file, in_model) and classes != own_classes:
        rows = {_plain(name): i for i, name in enumerate(classes)}
        found = [(rows.get(_plain(name)), i) for i, name in enumerate(own_classes)]
        return [(row, i) for row, i in found if row is not None], " by name"
    if in_file == in_model:
        return [(i, i) for i in range(in_model)], ""
    return [], ", whose names are not known on both sides,"


def _plain(class_name: str) -> str:
    return class_name.strip().casefold()


def _same_but(dim: int, value: Tensor, own: Tensor) -> bool:
    """Whether the shapes differ in one dimension at most."""
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
    """Up to four names; of more, the number in each part of the model."""
    names = list(names)
    if len(names) <= 4:
        return ", ".join(names)
    parts = defaultdict(list)
    for name in names:
        parts[re.match(r"(sem_seg_head\.)?[^.]*", name)[0]].append(name)
    return ", ".join(f"{part} ({len(group)})" for part, group in parts.items())
