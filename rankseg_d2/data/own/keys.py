"""Read the keys of a yaml mapping and check their types."""

from pathlib import Path
from typing import Any

from ...errors import short, unknown_name

_REQUIRED = object()


class Keys:
    """One mapping of the yaml `path`; `where` is its name in errors."""

    def __init__(self, values: dict, known: set[str], path: Path, where: str) -> None:
        self.values, self.known, self.path, self.where = values, known, path, where
        for key in values:
            if key not in known:
                raise unknown_name(f"a key of {where}", str(key), known)

    def take(self, key: str, kind: type | tuple, expected: str, default: Any = _REQUIRED) -> Any:
        """The value of a key, of type `kind`; `default` if it is absent or null."""
        value = self.values.get(key)
        if value is None:
            if default is _REQUIRED:
                raise ValueError(f"{self.where}: {key} is missing; it must be {expected}")
            return default
        if isinstance(value, bool) or not isinstance(value, kind):  # a bool is an int in Python
            raise ValueError(f"{self.where}: {key} must be {expected}, got {value!r}")
        return value

    def flag(self, key: str) -> bool:
        """The value of a key that is true or false; False if it is absent."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise ValueError(f"{self.where}: {key} must be true or false, got {value!r}")
        return value

    def with_values(self, values: dict[str, Any]) -> "Keys":
        """These keys and others."""
        return Keys(self.values | values, self.known | values.keys(), self.path, self.where)

    def file(self, key: str, expected: str) -> Path:
        """The file or folder that a key names, relative to the yaml."""
        return self.beside(self.take(key, str, expected))

    def beside(self, name: str) -> Path:
        """A path relative to the yaml."""
        try:
            path = Path(name).expanduser()
        except RuntimeError as error:
            raise ValueError(f"{self.where}: {name} names the home folder of a user who does not "
                             "exist; write the whole path") from error
        is_too_long = len(name) > 4000 or any(len(part) > 255 for part in path.parts)
        if not name or "\0" in name or is_too_long:
            raise ValueError(f"{self.where}: {short(name)} is not the path of a file or folder")
        return self.path.parent / path
