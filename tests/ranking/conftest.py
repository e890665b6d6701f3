import numpy as np
import pytest
import torch
from support.paths import GOLDEN


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden():
    """Tensors of the reference's ranking, classifier and heads, by name."""
    return {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / "ranking_restrict.npz").items()}
