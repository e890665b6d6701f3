"""Multi-label heads: which categories are in the image?"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..dtypes import at_least_float
from ..position_encoding import sine_encoding_2d
from ..transformer_block import Block


class MultiLabelHead(nn.Module):
    """Features (B, N, D_in) -> logits (B, C), by one token per category that reads the features.

    Subclasses say how tokens read features (`mix`). The tokens are the head's own, or, with
    `shared_dim`, the class embedding (C, shared_dim) of another classifier given at each call,
    projected where its width is not hidden_dim.
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        hidden_dim: int = 512,
        dropout: float = 0.1,
        shared_dim: int | None = None,
    ):
        super().__init__()
        heads = max(1, hidden_dim // 64)
        if hidden_dim < 1 or hidden_dim % heads:
            raise ValueError(
                f"hidden_dim must be a multiple of its {heads} attention heads (one per 64 "
                f"channels), such as {heads * 64}; got {hidden_dim}."
            )
        self.num_classes, self.shared_dim = num_classes, shared_dim
        self.proj_dec = self.build_projection(in_dim, hidden_dim)
        if shared_dim is None:
            self.cls_emb = nn.Parameter(torch.empty(1, num_classes, hidden_dim))
            nn.init.trunc_normal_(self.cls_emb, std=0.02)
        else:
            same = shared_dim == hidden_dim
            self.proj_emb = nn.Identity() if same else nn.Linear(shared_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.fc = ClassLinear(num_classes, hidden_dim)
        self.build_mixer(hidden_dim, heads, dropout)

    def build_projection(self, in_dim: int, dim: int) -> nn.Module:
        """The module that gives features (B, N, D_in) the head's width."""
        return nn.Linear(in_dim, dim)

    def build_mixer(self, dim: int, heads: int, dropout: float) -> None:
        """Make the modules that `mix` needs."""

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Tokens (1 or B, C, D) that have read the features (B, N, D): (B, C, D)."""
        raise NotImplementedError

    def forward(self, features: Tensor, class_embedding: Tensor | None = None) -> Tensor:
        tokens = self.class_tokens(class_embedding)  # (1 or B, C, D)
        tokens = self.mix(tokens, self.proj_dec(features))  # (B, C, D)
        return self.fc(self.norm(tokens))

    def class_tokens(self, class_embedding: Tensor | None) -> Tensor:
        """One token per category: (1, C, D), or (B, C, D) of an embedding for each image."""
        if self.shared_dim is None:
            if class_embedding is not None:
                raise ValueError(
                    "This multi-label head has class tokens of its own, but got a class "
                    "embedding. Build it with shared_dim to share one."
                )
            return self.cls_emb
        expected = (self.num_classes, self.shared_dim)
        given = None if class_embedding is None else tuple(class_embedding.shape)
        if given is None or given[-2:] != expected:
            raise ValueError(
                f"A multi-label head with a shared embedding needs one of shape {expected}, "
                f"without no-object; got {given}."
            )
        tokens = self.proj_emb(class_embedding)
        return tokens if tokens.dim() == 3 else tokens.unsqueeze(0)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay: the class tokens."""
        return {"cls_emb"} if self.shared_dim is None else set()


class EncoderHead(MultiLabelHead):
    """The paper's head: features and class tokens in one pre-norm transformer encoder block."""

    def build_mixer(self, dim: int, heads: int, dropout: float) -> None:
        self.block = ClassBlock(dim, heads, dropout)

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        return self.block.tokens(tokens, features)


class DecoderHead(MultiLabelHead):
    """Class tokens query the features in a transformer decoder of two layers (Query2Label)."""

    def build_mixer(self, dim: int, heads: int, dropout: float) -> None:
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        )

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        tokens = tokens.expand(features.shape[0], -1, -1)  # (B, C, D)
        for layer in self.layers:
            tokens = layer(tokens, features)
        return tokens


class PoolingHead(MultiLabelHead):
    """Every class token gets the mean of the features."""

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        return tokens + features.mean(dim=1, keepdim=True)


class SeparableEncoderHead(EncoderHead):
    """The encoder head whose projection is a depthwise and a pointwise convolution."""

    def build_projection(self, in_dim: int, dim: int) -> nn.Module:
        return SeparableProjection(in_dim, dim)


class SeparableProjection(nn.Module):
    """Two 1 x 1 convolutions of features (B, N, D_in), one for each channel and one over them."""

    def __init__(self, in_dim: int, dim: int):
        super().__init__()
        self.depthwise = nn.Conv1d(in_dim, in_dim, 1, groups=in_dim)
        self.pointwise = nn.Linear(in_dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        features = F.relu(self.depthwise(features.mT)).mT  # (B, N, D_in)
        return F.relu(self.pointwise(features))


class Query2LabelHead(MultiLabelHead):
    """Class tokens query a square map in two layers without self-attention, as published."""

    def build_mixer(self, dim: int, heads: int, dropout: float) -> None:
        if dim % CrossAttentionLayer.heads:
            raise ValueError(
                f"hidden_dim must be a multiple of the {CrossAttentionLayer.heads} attention heads "
                f"of the head query2label; got {dim}."
            )
        self.layers = nn.ModuleList(CrossAttentionLayer(dim, dropout) for _ in range(2))

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        side = round(features.shape[1] ** 0.5)
        if side**2 != features.shape[1]:
            raise ValueError(
                f"The head query2label reads a square map, but got {features.shape[1]} cells; set "
                "MODEL.RANKSEG.POOL, such as 16."
            )
        encoding = sine_encoding_2d((side, side), features.shape[2] // 2, device=features.device)
        queries = tokens.expand(len(features), -1, -1)  # (B, C, D)
        read = torch.zeros_like(queries)
        for layer in self.layers:
            read = layer(read, queries, features, encoding.flatten(2).mT)
        return read


class CrossAttentionLayer(nn.Module):
    """A post-norm decoder layer without self-attention; `queries` and `keys` are added."""

    heads = 8

    def __init__(self, dim: int, dropout: float, hidden_dim: int = 2048):
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, self.heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: Tensor, features: Tensor, keys: Tensor) -> Tensor:
        read, _ = self.multihead_attn(
            x + queries, features + keys, features, need_weights=False
        )
        x = self.norm2(x + self.dropout(read))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class BlockHead(EncoderHead):
    """Segmenter's: the first block of its decoder, over pixels and class embeddings.

    Both are changed by it: the classifier goes on with what `joint` returns. Width and tokens are
    the decoder's, whatever `hidden_dim` and `shared_dim` say.
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        hidden_dim: int = 512,
        dropout: float = 0.1,
        shared_dim: int | None = None,
    ):
        super().__init__(in_dim, num_classes, in_dim, dropout, shared_dim=in_dim)

    def build_projection(self, in_dim: int, dim: int) -> nn.Module:
        return nn.Identity()

    def joint(
        self, pixels: Tensor, pooled: Tensor | None, class_embedding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C), pixels (B, N, D) and class embeddings (B, C, D) that go on.

        The block reads the `pooled` pixels (B, M, D), and the pixels go on as they are. Without
        them it reads the pixels, and those that it returns go on.
        """
        tokens = self.class_tokens(class_embedding)
        if pooled is not None:
            tokens = self.block.tokens(tokens, pooled)
        else:
            count = pixels.shape[1]
            both = torch.cat([pixels, tokens.expand(len(pixels), -1, -1)], dim=1)
            pixels, tokens = self.block(both).split([count, self.num_classes], dim=1)
        tokens = self.norm(tokens)
        return self.fc(tokens), pixels, tokens


class ConvPoolingHead(nn.Module):
    """The mean of the features through two layers, as published; it has no tokens."""

    shared_dim = None

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        hidden_dim: int = 512,
        dropout: float = 0.1,
        shared_dim: int | None = None,
    ):
        super().__init__()
        if shared_dim is not None:
            raise ValueError(
                "The head conv_pooling has no class tokens that could be shared; build it without "
                "shared_dim."
            )
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.fc = nn.Linear(hidden_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return at_least_float(self.fc(F.relu(self.hidden(features.mean(dim=1)))))

    def no_weight_decay(self) -> set[str]:
        return set()


class ClassLinear(nn.Module):
    """One linear classifier per category: tokens (B, C, D) -> logits (B, C), float32 or better."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        bound = dim**-0.5
        self.W = nn.Parameter(torch.empty(1, num_classes, dim).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(1, num_classes).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        # a product and a sum, not einsum: autocast would make that a half-precision matmul
        return (at_least_float(tokens) * self.W).sum(dim=-1) + self.b


class ClassBlock(Block):
    """A transformer encoder block over features and class tokens."""

    def tokens(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Class tokens (B or 1, C, D) that have read the features (B, N, D): (B, C, D).

        They are those of the block over both, but only they have queries and a feed-forward; the
        features give keys and values.
        """
        D, attention = features.shape[2], self.attn
        # tokens (1, C, D) are the same for all images: so are their queries, keys and values
        own = attention.qkv(self.norm1(tokens)).expand(len(features), -1, -1)  # (B, C, 3D)
        queries, token_kv = own.split([D, 2 * D], dim=-1)
        weight, bias = attention.qkv.weight[D:], attention.qkv.bias[D:]
        feature_kv = F.linear(self.norm1(features), weight, bias)  # (B, N, 2D)
        keys, values = torch.cat([feature_kv, token_kv], dim=1).chunk(2, dim=-1)  # (B, N+C, D)
        tokens = tokens + attention.read(queries, keys, values)  # (B, C, D)
        return tokens + self.mlp(self.norm2(tokens))


HEADS = {
    "encoder": EncoderHead,
    "decoder": DecoderHead,
    "pooling": PoolingHead,
    "separable": SeparableEncoderHead,
    "query2label": Query2LabelHead,
    "conv_pooling": ConvPoolingHead,
    "block": BlockHead,
}
