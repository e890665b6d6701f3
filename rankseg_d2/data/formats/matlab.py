"""Read MATLAB's .mat files: the old format with scipy, version 7.3 (HDF5) with h5py."""

from pathlib import Path

import numpy as np

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512)  # MATLAB writes a header of 512 bytes first


def is_hdf5(path: Path) -> bool:
    """Whether a .mat file has MATLAB's format 7.3."""
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
            return file[name][()].T  # HDF5 stores columns first
    except OSError as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error
