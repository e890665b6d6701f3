"""Read MATLAB's .mat files: the old format with scipy, version 7.3 (HDF5) with h5py."""

import struct
import zlib
from pathlib import Path

import numpy as np

from ...files import check_regular

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_BYTES = 2**26  # of a label map; 8192 x 8192 pixels
_HDF5_OFFSETS = (0, 512)  # MATLAB writes a header of 512 bytes first


def is_hdf5(path: Path) -> bool:
    """Whether a .mat file has MATLAB's format 7.3."""
    check_regular(path)
    with open(path, "rb") as file:
        head = file.read(max(_HDF5_OFFSETS) + len(_HDF5))
    return any(head.startswith(_HDF5, offset) for offset in _HDF5_OFFSETS)


def read_matlab(path: Path, name: str) -> np.ndarray:
    """The matrix of that name: (rows, columns) integers."""
    read = _read_hdf5 if is_hdf5(path) else _read_old
    try:
        matrix = read(path, name)
    except KeyError:
        raise ValueError(f"{path} has no matrix {name}; download it again") from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "uif":
        raise ValueError(f"{path}: {name} must be a matrix of numbers, got {matrix.dtype} "
                         f"of shape {matrix.shape}; download it again")
    return matrix.astype(np.int64)


def _read_old(path: Path, name: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        _check_uncompressed(path)
        matrices = loadmat(path, variable_names=[name])
    except Exception as error:  # scipy raises many types for a truncated file
        raise ValueError(
            f"{path} is damaged or no MATLAB file ({error}); download it again"
        ) from error
    return matrices[name]


def _read_hdf5(path: Path, name: str) -> np.ndarray:
    try:
        import h5py
    except ImportError:
        raise ImportError(
            f"{path} is in MATLAB's format 7.3, which is HDF5; reading it needs h5py: "
            "`pip install h5py`"
        ) from None
    try:
        with h5py.File(path) as file:
            matrix = file[name]
            if not isinstance(matrix, h5py.Dataset) or matrix.nbytes > _MOST_BYTES:
                raise OSError(f"{name} is no matrix of at most {_MOST_BYTES} bytes")
            return matrix[()].T  # HDF5 stores columns first
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error


def _check_uncompressed(path: Path) -> None:
    """ValueError if a file of the old format unpacks to more than a label map can have.

    Behind 128 bytes it is a row of elements: type, size, content; type 15 is compressed.
    """
    total, content = 0, path.read_bytes()
    order = "<" if content[126:128] == b"IM" else ">"
    position = 128
    while position + 8 <= len(content):
        kind, size = struct.unpack(order + "II", content[position : position + 8])
        if kind == 15:
            stream, rest = zlib.decompressobj(), content[position + 8 : position + 8 + size]
            while rest and not stream.eof:
                total += len(stream.decompress(rest, 2**20))
                rest = stream.unconsumed_tail
                if total > _MOST_BYTES:
                    raise ValueError(f"it unpacks to more than {_MOST_BYTES} bytes")
        position += 8 + size
