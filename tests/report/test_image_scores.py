"""The file of scores, and what is no such file."""

import numpy as np
import pytest
import torch

from rankseg_d2.report.image_scores import ImageScores


@pytest.fixture
def images():
    torch.manual_seed(0)
    pixels = torch.randint(0, 3, (4, 2))
    names, files = ("dog", "Straße"), tuple("abcd")
    return ImageScores("mine_val", names, files, 2, torch.randn(4, 2), pixels > 0, pixels)


def test_scores_survive_their_file(tmp_path, images):
    images.save(tmp_path / "new/scores.npz")
    loaded = ImageScores.load(tmp_path / "new/scores.npz")
    for name, value in vars(images).items():
        found = getattr(loaded, name)
        assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scores": np.zeros((3, 2), "f4")}, "scores has the shape"),
        ({"names": np.array("dog")}, "has the shape"),
        ({"images": np.array(list("abc"))}, "has the shape"),
        ({"present": np.zeros((4, 2))}, "kinds"),
        ({"scores": np.array([[None] * 2] * 4)}, "allow_pickle"),
        ({"topk": None}, "topk is not a file"),
    ],
)
def test_other_arrays_are_told(tmp_path, images, change, message):
    images.save(tmp_path / "scores.npz")
    with np.load(tmp_path / "scores.npz") as file:
        arrays = {**file, **change}
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=f"bad.npz is no file of scores .*{message}"):
        ImageScores.load(tmp_path / "bad.npz")


def test_damaged_and_missing_files_are_told(tmp_path, images):
    images.save(tmp_path / "scores.npz")
    content = (tmp_path / "scores.npz").read_bytes()
    for bad in (content[: len(content) // 2], b"", b"hello"):
        (tmp_path / "bad.npz").write_bytes(bad)
        with pytest.raises(ValueError, match=r"bad.npz is no file of scores that `rankseg-d2"):
            ImageScores.load(tmp_path / "bad.npz")
    with pytest.raises(FileNotFoundError, match="none.npz does not exist; `rankseg-d2 kappa"):
        ImageScores.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="is a folder"):
        ImageScores.load(tmp_path)
