"""The objects of one image, as named fields of equal length."""

import itertools
from typing import Any

import torch
from torch import Tensor


class Instances:
    """N objects of an image of `image_size` (height, width).

    Fields are read and set as attributes: `instances.scores = ...`; whatever has a length and
    can be indexed may be one.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any):
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, val: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, val)
        else:
            self.set(name, val)

    def __getattr__(self, name: str) -> Any:
        if name == "_fields" or name not in self._fields:  # "_fields": not there while unpickling
            raise AttributeError(f"these Instances have no field {name!r}")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        if self._fields and len(self) != len(value):
            raise ValueError(
                f"field {name!r} has {len(value)} entries, but these Instances have {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """A copy whose fields are moved, those that can be."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item: int | slice | Tensor) -> "Instances":
        """Always Instances: an integer gives a single object."""
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"no object {item}: these Instances have {len(self)}")
            item = slice(item, item + 1 or None)
        picked = Instances(self._image_size)
        for name, value in self._fields.items():
            picked.set(name, value[item])
        return picked

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise TypeError("Instances without any field have no length")

    def __iter__(self):
        raise TypeError("Instances cannot be iterated; index them, or iterate over a field")

    @staticmethod
    def cat(instance_lists: list["Instances"]) -> "Instances":
        """The objects of several Instances of one image, which have the same fields."""
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        sizes = {tuple(instances.image_size) for instances in instance_lists}
        if len(sizes) > 1:
            raise ValueError(f"Instances of different image sizes cannot be joined: {sizes}")
        joined = Instances(first.image_size)
        for name, value in first.get_fields().items():
            values = [instances.get(name) for instances in instance_lists]
            if isinstance(value, Tensor):
                values = torch.cat(values, dim=0)
            elif isinstance(value, list):
                values = list(itertools.chain(*values))
            elif hasattr(type(value), "cat"):
                values = type(value).cat(values)
            else:
                raise ValueError(f"field {name!r} of type {type(value)} cannot be joined")
            joined.set(name, values)
        return joined

    def __repr__(self) -> str:
        count = len(self) if self._fields else 0
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={count}, image_height={self._image_size[0]}, "
            f"image_width={self._image_size[1]}, fields=[{fields}])"
        )
