"""MATLAB files that are small and unpack to much."""

import tracemalloc

import numpy as np
import pytest
from scipy.io import savemat
from support.odd_images import make_pipe

from rankseg_d2.data.formats.matlab import read_matlab


@pytest.mark.parametrize("compressed", [True, False])
def test_a_label_map_is_read(tmp_path, compressed):
    values = np.arange(35, dtype=np.uint16).reshape(5, 7)
    savemat(tmp_path / "a.mat", {"S": values}, do_compression=compressed)
    np.testing.assert_array_equal(read_matlab(tmp_path / "a.mat", "S"), values)


def test_a_file_that_unpacks_to_much_is_refused_with_little_memory(tmp_path):
    path = tmp_path / "bomb.mat"
    savemat(path, {"S": np.zeros((12_000, 12_000), np.uint8)}, do_compression=True)
    assert path.stat().st_size < 1e6
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.mat .*unpacks to more than"):
        read_matlab(path, "S")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_large_matrix_of_hdf5_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "bomb.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("S", (30_000, 30_000), "u2", chunks=True)
        file.create_group("G")
    for name in ("S", "G"):
        with pytest.raises(ValueError, match=rf"bomb\.mat is damaged \({name} is no matrix"):
            read_matlab(path, name)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_matlab_file(tmp_path):
    with pytest.raises(ValueError, match="is a pipe"):
        read_matlab(tmp_path / make_pipe(tmp_path / "a.mat"), "S")
