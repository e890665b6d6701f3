"""Pickles of numpy arrays, read without running anything that they name."""

import pickle
import re
from collections import OrderedDict

import numpy as np


def load(file):
    """The content of a pickle of dicts, lists, plain values and numpy arrays; else `Refusal`."""
    return _settle(_Unpickler(file, encoding="latin1").load(), {})


class Refusal(Exception):
    """What is said of a file, after its path, when its content is not accepted."""


def untrusted(name):
    return Refusal(
        f"asks for {name}: not a weight file that can be trusted, for a weight file holds arrays "
        "and plain values only; get it from its authors again, or, if you made it yourself, save "
        "the weights alone: torch.save({'model': model.state_dict()}, …)"
    )


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, plain values and numpy arrays.

    The file never gets hold of a real function or class, only of a `_Global`, so there is nothing
    that it could call, subclass or change.
    """

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")  # numpy 2 -> numpy 1
        found = _GLOBALS.get((module, name))
        if found is None:
            raise untrusted(f"{module}.{name}")
        return _Global(found)


class _Global:
    """A name that a weight file may use: it can be called, and nothing else."""

    __slots__ = ("_make",)

    def __init__(self, make):
        self._make = make

    def __call__(self, *args):
        return self._make(*args)

    def __setstate__(self, state):
        raise Refusal("gives a state to something that has none; it is not a weight file")


class _Array:
    """An array or numpy number that the file describes; `value` is our making, from bytes."""

    def __init__(self, value=None):
        self.value = value

    def __setstate__(self, state):
        *_, shape, dtype, fortran, raw = state
        self.value = _from_bytes(raw, dtype, shape, "F" if fortran else "C")


class _DType:
    """A numpy type: numbers, truth values or texts of a fixed size, of either byte order."""

    def __init__(self, spec, *_):
        spec = str(spec)
        if not re.fullmatch(r"[biufcSU]\d{1,9}", spec):
            raise Refusal(
                f"holds an array of the numpy type {spec!r}: only arrays of numbers can be "
                "trusted, not objects or records; save the weights as numbers"
            )
        self.value = np.dtype(spec)

    def __setstate__(self, state):
        self.value = self.value.newbyteorder(state[1])


def _ndarray(*_):
    raise Refusal("makes an array of raw memory; it is not a weight file")


def _reconstruct(kind, *_):
    return _Array()


def _from_buffer(raw, dtype, shape, order, axes=None):
    if axes is None:
        return _Array(_from_bytes(raw, dtype, shape, order))
    return _Array(_from_bytes(raw, dtype, shape, "C").transpose(axes))


def _scalar(dtype, raw):
    return _Array(_from_bytes(raw, dtype, (), "C")[()])


def _from_bytes(raw, dtype, shape, order):
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # a str is what Python 2 had
    array = np.frombuffer(raw, dtype.value).reshape(shape, order=order)
    return array.astype(dtype.value.newbyteorder("="), order="C")  # a copy of its own, native


def _encode(text, encoding):
    if encoding != "latin1":
        raise Refusal(f"encodes bytes as {encoding!r}, which no weight file does")
    return text.encode("latin1")


def _settle(node, done):
    """Put the arrays in the place of their descriptions; each object once, even in a loop."""
    if id(node) in done:
        return done[id(node)]
    if isinstance(node, (_Array, _DType)):
        if node.value is None:
            raise Refusal("has an array without content; it is damaged")
        done[id(node)] = node.value
    elif isinstance(node, dict):
        if getattr(node, "__dict__", {}).keys() - {"_metadata"}:  # what torch's state_dict() has
            raise Refusal("gives attributes to a dict; it is not a weight file")
        done[id(node)] = node
        for key, value in list(node.items()):
            node[key] = _settle(value, done)
    elif isinstance(node, list):
        done[id(node)] = node
        node[:] = [_settle(value, done) for value in node]
    elif isinstance(node, tuple):
        done[id(node)] = tuple(_settle(value, done) for value in node)
    elif isinstance(node, _Global):
        raise Refusal("holds a function or class where a value should be; it is not a weight file")
    else:
        return node
    return done[id(node)]


_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # an empty array, Python 3's protocol 2
}
