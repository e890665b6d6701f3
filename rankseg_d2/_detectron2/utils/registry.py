"""Objects found by name: in a registry that a config names, or by their import path."""

import importlib
from functools import reduce
from typing import Any

from fvcore.common.registry import Registry

__all__ = ["Registry", "locate"]


def locate(name: str) -> Any:
    """The object at the dotted path `name`, such as "torch.nn.Linear"."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module_name = ".".join(parts[:end])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module is there, but something that it imports is missing
            continue
        try:
            return reduce(getattr, parts[end:], module)
        except AttributeError as error:
            raise ImportError(f"cannot locate {name!r}: {error}") from error
    raise ImportError(f"cannot locate {name!r}: there is no module {parts[0]!r}; is it installed?")
