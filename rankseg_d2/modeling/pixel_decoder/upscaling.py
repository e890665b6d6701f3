"""EoMT's pixel decoder: a ViT's patches, enlarged to stride 4 by transposed convolutions."""

from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 4  # of the mask features


class Upscaling(nn.Sequential):
    """(B, D, h, w) with a stride -> (B, D, H/4, W/4), by doubling; at least once."""

    def __init__(self, dim: int, stride: int):
        doublings = max(1, (stride // STRIDE).bit_length() - 1)
        super().__init__(*(Doubling(dim) for _ in range(doublings)))


class Doubling(nn.Module):
    """(B, D, h, w) -> (B, D, 2h, 2w)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        self.norm = nn.LayerNorm(dim, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(F.gelu(self.conv1(x)))  # (B, D, 2h, 2w)
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
