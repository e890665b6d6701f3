"""Transformer encoder and decoder with DETR's parameter names, batch first."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..transformer_block import feed_forward
from .attention import MultiheadAttention, Residual, xavier_init_
from .gradient_checkpointing import run_layer


class _Layer(Residual):
    """Residual blocks with numbered norms; the last block is a feed-forward net."""

    def __init__(self, dim: int, hidden_dim: int, num_norms: int, dropout: float, pre_norm: bool):
        super().__init__(dropout, pre_norm)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        for number in range(1, num_norms + 1):
            self.add_module(f"norm{number}", nn.LayerNorm(dim))

    def feed_forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.linear1, F.relu, self.dropout, self.linear2)


class EncoderLayer(_Layer):
    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dropout: float, pre_norm: bool):
        super().__init__(dim, hidden_dim, 2, dropout, pre_norm)
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        y = self.before(self.norm1, x)
        y = self.self_attn(y + position, y + position, y)
        x = self.after(self.norm1, x + self.dropout(y))
        y = self.feed_forward(self.before(self.norm2, x))
        return self.after(self.norm2, x + self.dropout(y))


class DecoderLayer(_Layer):
    def __init__(self, dim: int, num_heads: int, hidden_dim: int, dropout: float, pre_norm: bool):
        super().__init__(dim, hidden_dim, 3, dropout, pre_norm)
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)
        self.multihead_attn = MultiheadAttention(dim, num_heads, dropout)

    def forward(self, x: Tensor, memory: Tensor, key: Tensor, position: Tensor) -> Tensor:
        y = self.before(self.norm1, x)
        y = self.self_attn(y + position, y + position, y)
        x = self.after(self.norm1, x + self.dropout(y))
        y = self.before(self.norm2, x)
        y = self.multihead_attn(y + position, key, memory)
        x = self.after(self.norm2, x + self.dropout(y))
        y = self.feed_forward(self.before(self.norm3, x))
        return self.after(self.norm3, x + self.dropout(y))


class _Stack(nn.Module):
    def __init__(self, layers: list[nn.Module], norm: nn.Module | None, use_checkpoint: bool):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.use_checkpoint = use_checkpoint

    def run(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        return run_layer(layer, *inputs, use_checkpoint=self.use_checkpoint and self.training)


class Encoder(_Stack):
    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, D), (B, N, D) -> (B, N, D)."""
        for layer in self.layers:
            x = self.run(layer, x, position)
        return x if self.norm is None else self.norm(x)


class Decoder(_Stack):
    def forward(self, x: Tensor, memory: Tensor, key: Tensor, position: Tensor) -> list[Tensor]:
        """The query features (B, Q, D) after each layer, before the last norm."""
        outputs = []
        for layer in self.layers:
            x = self.run(layer, x, memory, key, position)
            outputs.append(x)
        return outputs


class Transformer(nn.Module):
    """An encoder, a decoder or both; a part without layers is None.

    The encoder ends in a norm only in the pre-norm form, the decoder always.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        encoder_layers: int = 0,
        decoder_layers: int = 0,
        dropout: float = 0.1,
        pre_norm: bool = False,
        use_checkpoint: bool = False,
    ):
        super().__init__()
        shape = (dim, num_heads, hidden_dim, dropout, pre_norm)
        self.encoder = self.decoder = None
        if encoder_layers:
            norm = nn.LayerNorm(dim) if pre_norm else None
            layers = [EncoderLayer(*shape) for _ in range(encoder_layers)]
            self.encoder = Encoder(layers, norm, use_checkpoint)
        if decoder_layers:
            layers = [DecoderLayer(*shape) for _ in range(decoder_layers)]
            self.decoder = Decoder(layers, nn.LayerNorm(dim), use_checkpoint)
        xavier_init_(self)
