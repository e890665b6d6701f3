"""MATLAB's .mat files: the old format through scipy, version 7.3 (which is HDF5) through h5py."""

from pathlib import Path

import numpy as np

HDF5 = b"\x89HDF\r\n\x1a\n"
HDF5_PLACES = (0, 512)  # MATLAB puts 512 bytes of its own first


def is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(max(HDF5_PLACES) + len(HDF5))
    return any(head.startswith(HDF5, place) for place in HDF5_PLACES)


def read_matlab(path: Path, name: str) -> np.ndarray:
    """The matrix of that name: (rows, columns) integers."""
    read = _read_hdf5 if is_hdf5(path) else _read_old
    try:
        matrix = read(path, name)
    except KeyError:
        raise ValueError(f"{path} has no matrix {name}; get it again, whole") from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "uif":
        raise ValueError(f"{path}: {name} is no matrix of numbers but {matrix.dtype}{matrix.shape}")
    return matrix.astype(np.int64)


def _read_old(path: Path, name: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        matrices = loadmat(path, variable_names=[name])
    except Exception as error:  # of a file that was cut off it raises all sorts
        raise ValueError(f"{path} is damaged or no MATLAB file ({error}); get it again") from error
    return matrices[name]


def _read_hdf5(path: Path, name: str) -> np.ndarray:
    try:
        import h5py
    except ImportError:
        raise ImportError(
            f"{path} is in MATLAB's format 7.3, which is HDF5, and reading it needs h5py: "
            "`pip install h5py`"
        ) from None
    try:
        with h5py.File(path) as file:
            return file[name][()].T  # HDF5 holds it column by column
    except OSError as error:
        raise ValueError(f"{path} is damaged ({error}); get it again") from error
