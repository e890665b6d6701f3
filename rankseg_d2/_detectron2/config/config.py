"""CfgNode, which reads yaml files safely, and `configurable`, which keeps cfg out of classes."""

import functools
import inspect

from fvcore.common.config import CfgNode as _FvcoreNode

from ..._yaml import merge_chain, pop_version, read_chain
from ..utils.file_io import PathManager
from .defaults import DEFAULTS


class CfgNode(_FvcoreNode):
    """fvcore's node, whose files hold plain values only: Python tags are refused, never run."""

    @classmethod
    def _open_cfg(cls, filename):
        return PathManager.open(filename, "r")

    @classmethod
    def load_yaml_with_base(cls, filename, allow_unsafe=False):
        """The keys of a yaml file on top of its `_BASE_` files, as a dict."""
        return merge_chain(read_chain(filename, cls._open_cfg))

    def merge_from_file(self, cfg_filename, allow_unsafe=True):
        """Merge a yaml file. `allow_unsafe` has no effect: no file is trusted."""
        keys = self.load_yaml_with_base(cfg_filename)
        pop_version(keys, cfg_filename)
        self.merge_from_other_cfg(type(self)(keys))


def get_cfg() -> CfgNode:
    """All keys with their defaults."""
    return CfgNode(DEFAULTS)  # which copies them


def configurable(init_func=None, *, from_config=None):
    """Let a callable take either its own arguments or a cfg that `from_config` turns into them.

    On `__init__` of a class, as `@configurable`: the class has a classmethod
    `from_config(cls, cfg, ...)` that returns the keyword arguments. On a function, as
    `@configurable(from_config=...)`. Beside a cfg, arguments that `from_config` has go to it;
    the other keywords override what it returns.
    """
    if inspect.isfunction(init_func) and init_func.__name__ == "__init__" and from_config is None:

        @functools.wraps(init_func)
        def init(self, *args, **kwargs):
            method = getattr(type(self), "from_config", None)
            if not inspect.ismethod(method):
                raise TypeError(
                    f"{type(self).__name__} has a @configurable __init__ and therefore needs a "
                    "classmethod from_config(cls, cfg)"
                )
            args, kwargs = _explicit(method, args, kwargs)
            init_func(self, *args, **kwargs)

        return init

    if init_func is not None or not inspect.isroutine(from_config):
        raise TypeError(
            "write @configurable on the __init__ of a class, or "
            f"@configurable(from_config=function) on a function; got {init_func or from_config!r}"
        )

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            args, kwargs = _explicit(from_config, args, kwargs)
            return function(*args, **kwargs)

        call.from_config = from_config
        return call

    return decorate


def _explicit(from_config, args, kwargs):
    """The arguments to call with: as given, or made by `from_config` from a cfg."""
    first = args[0] if args else None
    if not any(isinstance(value, _FvcoreNode) for value in (first, kwargs.get("cfg"))):
        return args, kwargs
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"{from_config.__qualname__} must take 'cfg' as its first argument")
    takes_all = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
    own = {key: value for key, value in kwargs.items() if takes_all or key in parameters}
    overrides = {key: value for key, value in kwargs.items() if key not in own}
    explicit = from_config(*args, **own)
    if not isinstance(explicit, dict):
        raise TypeError(
            f"{from_config.__qualname__} must return a dict of arguments, got {explicit!r}"
        )
    return (), explicit | overrides
