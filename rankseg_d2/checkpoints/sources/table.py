"""How the parameters of another library's model are called here, in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def same(x: Tensor) -> Tensor:
    return x


def transposed(x: Tensor) -> Tensor:
    """(out, in) <-> (in, out)."""
    return x.mT


@dataclass(frozen=True)
class Rule:
    """The parameters of one kind: templates in which {NAME} stands for any part without a dot.

    Several names of theirs are one parameter here, one after the other in its first dimension.
    """

    ours: str
    theirs: str | tuple[str, ...]
    to_ours: Function = same
    to_theirs: Function = same
    shares: tuple[int, ...] | None = None  # of several names, in the first dimension; None: equal

    @cached_property
    def parts(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    def split(self, value: Tensor) -> Sequence[Tensor]:
        """Our parameter as theirs, one for each of `parts`."""
        value = self.to_theirs(value)
        if len(self.parts) == 1:
            return [value]
        shares = self.shares or (1,) * len(self.parts)
        unit = len(value) // sum(shares)
        return value.split([unit * share for share in shares])


@dataclass(frozen=True)
class Table:
    """The names of a library's model; `marks` are names by which its files are known."""

    name: str  # of the library, as `rankseg-d2 convert --to` takes it
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    unused: tuple[str, ...] = ()  # templates of what our model does not have

    def is_of(self, names: Iterable[str]) -> bool:
        """Whether a file with these names is of this library and model."""
        return set(self.marks) <= set(names)

    def knows(self, names: Iterable[str]) -> bool:
        """Whether each of our names has one of theirs."""
        return all(any(_fits(rule.ours, name) for rule in self.rules) for name in names)

    def to_ours(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under our names; what no rule knows keeps its name, and is reported later."""
        left, found = dict(weights), {}
        for rule in self.rules:
            for name in [name for name in left if _fits(rule.parts[0], name)]:
                fields = _match(rule.parts[0], name)
                names = [_fill(part, fields) for part in rule.parts]
                if all(one in left for one in names):
                    values = [left.pop(one) for one in names]
                    whole = values[0] if len(values) == 1 else torch.cat(values)
                    found[_fill(rule.ours, fields)] = rule.to_ours(whole)
        dropped = {name for name in left if any(_fits(one, name) for one in self.unused)}
        return found | {name: left[name] for name in left if name not in dropped}

    def to_theirs(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights under their names; KeyError for one that no rule knows."""
        found = {}
        for name, value in weights.items():
            rule = next((rule for rule in self.rules if _fits(rule.ours, name)), None)
            if rule is None:
                raise KeyError(f"{name} has no name in a file of {self.name}")
            fields = _match(rule.ours, name)
            for part, theirs in zip(rule.split(value), rule.parts, strict=True):
                found[_fill(theirs, fields)] = part
        return found


def _fits(template: str, name: str) -> bool:
    return _pattern(template).fullmatch(name) is not None


def _match(template: str, name: str) -> dict[str, str]:
    """The parts of a name that fits a template, which its fields stand for."""
    return _pattern(template).fullmatch(name).groupdict()


_PATTERNS: dict[str, re.Pattern] = {}


def _pattern(template: str) -> re.Pattern:
    if template not in _PATTERNS:
        text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^.]+)", re.escape(template))
        _PATTERNS[template] = re.compile(text)
    return _PATTERNS[template]


def _fill(template: str, fields: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda field: fields[field[1]], template)
