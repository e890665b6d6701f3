"""Read pickles of numpy arrays without running what they name, in memory of the file's size."""

import os
import pickle
import re
import struct
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np


def load(file: BinaryIO) -> Any:
    """The content of a pickle of dicts, lists, plain values and numpy arrays; else `Refusal`."""
    return _settle(_Unpickler(file).load(), {})


class Refusal(Exception):
    """Why the content of a file is not accepted; the message follows the file's path."""


def untrusted(name: str) -> Refusal:
    """The refusal of a file that names a function or class other than numpy's arrays."""
    return Refusal(
        f"asks for {name}, so it cannot be trusted: a weight file holds only arrays and plain "
        "values. Get it from its authors again or, if you made it yourself, save only the "
        "weights: torch.save({'model': model.state_dict()}, …)"
    )


class _Unpickler(pickle._Unpickler):
    """Builds dicts, lists, plain values and numpy arrays.

    The file gets no real function or class, only a `_Global`, so it has nothing to call, subclass
    or change. This is Python's reader: C's reserves as much memory as a file asks for.
    """

    def __init__(self, file):
        self._size = os.fstat(file.fileno()).st_size
        super().__init__(_Bounded(file, self._size), encoding="latin1")
        # The bytes of an array may be in the file as text, become bytes, and then numbers.
        self._bytes_left = 3 * self._size

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")  # numpy 2 -> numpy 1
        found = _GLOBALS.get((module, name))
        if found is None:
            raise untrusted(f"{module}.{name}")
        return _Global(found, self._spend)

    def _spend(self, count):
        """Refuse a file that makes more out of the same bytes again and again."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise Refusal("makes more bytes than it has, so it is not a weight file")

    def load_setitem(self):
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self):
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self):
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_bytearray8(self):
        (length,) = struct.unpack("<Q", self.read(8))
        if length > self._size:
            raise Refusal("ends too early, so it is truncated or damaged")
        self.append(bytearray(self.read(length)))

    def refuse_set(self):
        raise Refusal("holds a set, so it is not a weight file")

    dispatch = pickle._Unpickler.dispatch | {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.EMPTY_SET[0]: refuse_set,
        pickle.FROZENSET[0]: refuse_set,
    }


class _Bounded:
    """A file that is never asked for more than it has, as memory is reserved before it is read."""

    def __init__(self, file, size):
        self._file = file
        self._size = size
        self.readline = file.readline

    def read(self, count):
        return self._file.read(min(count, self._size))


class _Global:
    """A function or class that a weight file may use; it can only be called."""

    __slots__ = ("_make", "_spend")

    def __init__(self, make, spend):
        self._make = make
        self._spend = spend

    def __call__(self, *args):
        return self._make(self._spend, *args)

    def __setstate__(self, state):
        raise Refusal("sets the state of a function or class, so it is not a weight file")


class _Array:
    """An array or numpy number that the file describes; we make its `value` from bytes."""

    def __init__(self, spend, value=None):
        self.spend = spend
        self.value = value

    def __setstate__(self, state):
        *_, shape, dtype, fortran, raw = state
        self.value = _from_bytes(self.spend, raw, dtype, shape, "F" if fortran else "C")


class _DType:
    """A numpy type: numbers, booleans or text of fixed size, in either byte order."""

    def __init__(self, spend, spec, *_):
        spec = str(spec)
        if not re.fullmatch(r"[biufcSU]\d{1,9}", spec):
            raise Refusal(
                f"holds an array of the numpy type {spec!r}: only arrays of numbers can be "
                "trusted, not objects or records. Save the weights as numbers."
            )
        self.value = np.dtype(spec)

    def __setstate__(self, state):
        self.value = self.value.newbyteorder(state[1])


def _check_keys(keys):
    # To hash a tuple of tuples of ... takes as long as all of them written out.
    if not all(isinstance(key, str | bytes | int | float | None) for key in keys):
        raise Refusal("has a dict whose keys are no names, so it is not a weight file")


def _ordered_dict(spend, pairs=()):
    _check_keys([key for key, _ in pairs])
    spend(len(pairs))
    return OrderedDict(pairs)


def _ndarray(*_):
    raise Refusal("makes an array of raw memory, so it is not a weight file")


def _reconstruct(spend, kind, *_):
    return _Array(spend)


def _from_buffer(spend, raw, dtype, shape, order, axes=None):
    if axes is None:
        return _Array(spend, _from_bytes(spend, raw, dtype, shape, order))
    return _Array(spend, _from_bytes(spend, raw, dtype, shape, "C").transpose(axes))


def _scalar(spend, dtype, raw):
    return _Array(spend, _from_bytes(spend, raw, dtype, (), "C")[()])


def _from_bytes(spend, raw, dtype, shape, order):
    spend(len(raw))
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # a str in files of Python 2
    array = np.frombuffer(raw, dtype.value).reshape(shape, order=order)
    return array.astype(dtype.value.newbyteorder("="), order="C")  # a copy, in native byte order


def _encode(spend, text, encoding):
    if encoding != "latin1":
        raise Refusal(f"encodes bytes as {encoding!r}, which no weight file does")
    spend(len(text))
    return text.encode("latin1")


def _settle(node, done):
    """Replace descriptions by their arrays; each object once, even if it contains itself."""
    if id(node) in done:
        return done[id(node)]
    if isinstance(node, (_Array, _DType)):
        if node.value is None:
            raise Refusal("has an array without content, so it is damaged")
        done[id(node)] = node.value
    elif isinstance(node, dict):
        if getattr(node, "__dict__", {}).keys() - {"_metadata"}:  # set by torch's state_dict()
            raise Refusal("gives attributes to a dict, so it is not a weight file")
        done[id(node)] = node
        for key, value in list(node.items()):
            node[key] = _settle(value, done)
    elif isinstance(node, list):
        done[id(node)] = node
        node[:] = [_settle(value, done) for value in node]
    elif isinstance(node, tuple):
        done[id(node)] = tuple(_settle(value, done) for value in node)
    elif isinstance(node, _Global):
        raise Refusal("holds a function or class instead of a value, so it is not a weight file")
    else:
        return node
    return done[id(node)]


_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda spend: b"",  # an empty array, Python 3's protocol 2
}
