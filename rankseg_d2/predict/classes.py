"""The classes of a model: names, colours, things, own ids, and pairs that a flip swaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml
from detectron2.data import MetadataCatalog

from ..drawing import class_colors
from ..errors import unknown_name


@dataclass(frozen=True, eq=False)
class Classes:
    """The C classes, by class number."""

    names: tuple[str, ...]
    colors: np.ndarray  # (C, 3) uint8
    things: frozenset[int]
    ids: tuple[int, ...]  # in the data set's own label files
    ignore_label: int = 255
    flip_pairs: tuple[tuple[int, int], ...] = ()  # that a flip swaps, such as left and right arm

    @classmethod
    def of(cls, rows: Sequence[dict], ignore_label: int = 255) -> "Classes":
        """From the rows of a checkpoint's description, or {"name": ...} alone."""
        names = tuple(str(row["name"]) for row in rows)
        given = [row.get("color") for row in rows]
        colors = class_colors(names, given if all(given) else None)
        things = frozenset(i for i, row in enumerate(rows) if row.get("isthing"))
        ids = tuple(int(row.get("id", i)) for i, row in enumerate(rows))
        return cls(names, colors, things, ids, ignore_label)

    @classmethod
    def described(cls, said: Mapping[str, Any]) -> "Classes":
        """From the description of a checkpoint or of an exported file."""
        found = cls.of(said["classes"], said.get("ignore_label", 255))
        pairs = said.get("flip_pairs")
        if pairs is None:  # a file of an older version
            pairs = _registered_pairs(found.names, said["config"])
        return replace(found, flip_pairs=tuple((int(a), int(b)) for a, b in pairs))

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, wanted: Sequence[str], argument: str) -> list[int]:
        """The class numbers of names, in any case; KeyError with near names for an unknown one.

        One name stands for all classes that have it.
        """
        if isinstance(wanted, str):
            wanted = [wanted]
        by_name: dict[str, list[int]] = {}
        for number, name in enumerate(self.names):
            by_name.setdefault(name.casefold(), []).append(number)
        found = []
        for name in wanted:
            if not isinstance(name, str) or name.casefold() not in by_name:
                raise unknown_name(argument, str(name), self.names)
            found += by_name[name.casefold()]
        return found

    def own_ids(self, labels: np.ndarray) -> np.ndarray:
        """Labels with the data set's ids for class numbers; no class becomes the ignore label."""
        table = [*self.ids, self.free_id()]
        if not 0 <= min(table) <= max(table) < 2**16:
            raise ValueError(
                f"the data set's own ids go from {min(table)} to {max(table)}, but an image of "
                "labels holds 0 to 65535; take class numbers (own_ids=False)"
            )
        kind = np.uint8 if max(table) < 2**8 else np.uint16
        return np.array(table, kind)[np.minimum(labels, len(self))]

    def free_id(self) -> int:
        """The ignore label, or another value where that is the id of a class."""
        if self.ignore_label not in self.ids:
            return self.ignore_label
        return next(value for value in (255, 65535, max(self.ids) + 1) if value not in self.ids)


def _registered_pairs(names: Sequence[str], config: str) -> Sequence[tuple[int, int]]:
    """The flip pairs of the first data set of a config (yaml) that is registered with the names."""
    datasets = yaml.safe_load(config).get("DATASETS", {})
    for name in (*datasets.get("TRAIN", ()), *datasets.get("TEST", ())):
        metadata = MetadataCatalog.get(name) if name in MetadataCatalog.list() else None
        if metadata is not None and list(metadata.get("stuff_classes") or ()) == list(names):
            return metadata.get("flip_pairs") or ()
    return ()
