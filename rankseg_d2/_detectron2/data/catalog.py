"""The two tables of data sets: name -> function that loads it, name -> what is known of it."""

import difflib
import types
from collections import UserDict

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class _Catalog(UserDict):
    def list(self):
        """All names."""
        return list(self)

    def remove(self, name):
        """The same as `pop(name)`, without a result."""
        self.pop(name)

    def __repr__(self):
        return f"{type(self).__name__.strip('_')}({', '.join(self)})"


class _DatasetCatalog(_Catalog):
    """Data set name -> function without arguments that returns its list of dicts."""

    def register(self, name, func):
        """Say how data set `name` is loaded; a name can be registered once."""
        assert callable(func), f"register {name!r} with a function that loads it, not {func!r}"
        assert name not in self, f"data set {name!r} is registered already: remove() it first"
        self[name] = func

    def get(self, name):
        """Load data set `name`: call its function."""
        if name not in self:
            near = difflib.get_close_matches(str(name), self, n=5, cutoff=0.5)
            near = f"did you mean {' or '.join(map(repr, near))}?" if near else "no name is near;"
            raise KeyError(
                f"data set {name!r} is not registered; {near} {len(self)} are registered "
                "(DatasetCatalog.list()), and one of your own must be registered before its use"
            )
        return self[name]()


class Metadata(types.SimpleNamespace):
    """What is known of one data set, as attributes; each can be set once (or again to the same)."""

    name = "N/A"

    def __getattr__(self, key):
        known = ", ".join(self.__dict__) or "nothing"
        raise AttributeError(f"the metadata of data set {self.name!r} has {known}, but no {key!r}")

    def __setattr__(self, key, val):
        assert key not in self.__dict__ or self.__dict__[key] == val, (
            f"the metadata of data set {self.name!r} has {key!r} already, and it cannot change "
            f"from {self.__dict__[key]!r} to {val!r}"
        )
        super().__setattr__(key, val)

    def as_dict(self):
        """All attributes, as a copy."""
        return dict(self.__dict__)

    def set(self, **kwargs):
        """Set several attributes; returns itself."""
        for key, val in kwargs.items():
            setattr(self, key, val)
        return self

    def get(self, key, default=None):
        """The attribute, or `default` where there is none."""
        return getattr(self, key, default)


class _MetadataCatalog(_Catalog):
    """Data set name -> Metadata."""

    def get(self, name):
        """The Metadata of `name`, a new one on first use."""
        assert name, f"a data set's name cannot be empty, got {name!r}"
        return self.setdefault(name, Metadata(name=name))


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
