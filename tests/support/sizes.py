"""How large the tensors are that a computation makes."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Sizes(TorchDispatchMode):
    """Remembers how many values the largest new tensor has: of floats and of integers."""

    def __init__(self):
        super().__init__()
        self.largest = {"float": 0, "integer": 0}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        for x in tree_leaves(found):
            if isinstance(x, torch.Tensor):
                # Expanded tensors have no memory of their own.
                count = min(x.numel(), x.untyped_storage().nbytes() // x.element_size())
                kind = "float" if x.is_floating_point() else "integer"
                self.largest[kind] = max(self.largest[kind], count)
        return found
