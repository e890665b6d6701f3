import numpy as np
import pytest
from support.evaluation_data import confusion_of

from rankseg_d2 import pair_counts
from rankseg_d2.evaluation.confusion import Confusion


def random_runs(random, count, size):
    true, predicted = random.integers(0, count, size), random.integers(0, count + 1, size)
    return true, predicted, random.integers(1, 2**33, size)


@pytest.mark.parametrize("waiting", [0, 10, 10**6])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_sums_equal_those_of_a_table(waiting, dtype, monkeypatch):
    monkeypatch.setattr(pair_counts, "_WAITING", waiting)
    random, found, table = np.random.default_rng(0), Confusion(200), np.zeros((200, 201), np.int64)
    for size, count in ((0, 200), (500, 200), (30, 200), (500, 6), (500, 200)):
        true, predicted, pixels = random_runs(random, count, size)
        add = found.add_runs if count == 6 else found.add
        add(true.astype(dtype), predicted.astype(dtype), pixels)
        np.add.at(table, (true, predicted), pixels)
    assert found.hits().tolist() == table.diagonal().tolist()
    assert found.true_pixels().tolist() == table.sum(1).tolist()
    assert found.predicted_pixels().tolist() == table.sum(0)[:-1].tolist()
    true, predicted, pixels = found.pairs()
    assert len(pixels) == (table > 0).sum() and (table[true, predicted] == pixels).all()
    assert found.shares().tolist() == (pixels / table.sum(1)[true]).tolist()


def test_what_is_saved_is_loaded(tmp_path):
    found = confusion_of(np.array([[6, 2, 0], [0, 5, 5]]))
    found.save(tmp_path / "a.npz", ["sky", "cat"])
    loaded, names = Confusion.load(tmp_path / "a.npz")
    assert names == ["sky", "cat"]
    assert np.array_equal(loaded.pairs(), [[0, 0, 1, 1], [0, 1, 1, 2], [6, 2, 5, 5]])


def test_ten_thousand_categories_take_the_memory_of_their_pairs():
    found = Confusion(10_000)
    found.add(*random_runs(np.random.default_rng(0), 10_000, 1000))
    assert sum(part.nbytes for part in found.pairs()) <= 3 * 8 * 1000
    assert found.predicted_pixels().shape == (10_000,)
