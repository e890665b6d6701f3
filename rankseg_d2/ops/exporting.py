"""Whether torch.export makes a graph now, in which some operations need other forms."""

import torch

# Since PyTorch 2.7; with an older one, a graph has the operations as they are.
is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)
