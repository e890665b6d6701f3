"""Multi-label heads: which categories are in the image?"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..dtypes import at_least_float
from ..position_encoding import sine_encoding_2d
from .head_parts import (
    ClassBlock,
    ClassLinear,
    CrossAttentionLayer,
    DecoderLayers,
    GroupLinear,
    SeparableProjection,
    attention_heads,
)

GROUPS = 100  # of the head group, unless it is told a number


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
        heads = attention_heads(hidden_dim)
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
        self.layers = DecoderLayers(dim, heads, dropout)

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        return self.layers(tokens, features)


class PoolingHead(MultiLabelHead):
    """Every class token gets the mean of the features."""

    def mix(self, tokens: Tensor, features: Tensor) -> Tensor:
        return tokens + features.mean(dim=1, keepdim=True)


class SeparableEncoderHead(EncoderHead):
    """The encoder head whose projection is a depthwise and a pointwise convolution."""

    def build_projection(self, in_dim: int, dim: int) -> nn.Module:
        return SeparableProjection(in_dim, dim)


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
        queries = tokens.expand(features.shape[0], -1, -1)  # (B, C, D)
        read = torch.zeros_like(queries)
        for layer in self.layers:
            read = layer(read, queries, features, encoding.flatten(2).mT)
        return read


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
            both = torch.cat([pixels, tokens.expand(pixels.shape[0], -1, -1)], dim=1)
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


class GroupHead(nn.Module):
    """A few group tokens read the features, each for many categories: for large vocabularies.

    A transformer decoder of two layers; the cost is linear in C, and small. ML-Decoder (2021) has
    such groups too.
    """

    shared_dim = None

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        hidden_dim: int = 512,
        dropout: float = 0.1,
        shared_dim: int | None = None,
        groups: int = 0,
    ):
        """`groups`: the number of tokens, at most num_classes; 0: GROUPS, if there are as many."""
        super().__init__()
        if shared_dim is not None:
            raise ValueError(
                "The head group has a token for several categories, which no class embedding can "
                "replace; build it without shared_dim."
            )
        if not 0 <= groups <= num_classes:
            raise ValueError(
                f"groups must be in [0, {num_classes}], the number of categories (0: {GROUPS}, if "
                f"there are as many); got {groups}."
            )
        groups = groups or min(GROUPS, num_classes)
        self.proj_dec = nn.Linear(in_dim, hidden_dim)
        self.group_emb = nn.Parameter(torch.empty(1, groups, hidden_dim))
        nn.init.trunc_normal_(self.group_emb, std=0.02)
        self.layers = DecoderLayers(hidden_dim, attention_heads(hidden_dim), dropout)
        self.norm = nn.LayerNorm(hidden_dim)
        self.fc = GroupLinear(groups, num_classes, hidden_dim)

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.layers(self.group_emb, self.proj_dec(features))  # (B, G, D)
        return self.fc(self.norm(tokens))

    def no_weight_decay(self) -> set[str]:
        return {"group_emb"}


HEADS = {
    "encoder": EncoderHead,
    "decoder": DecoderHead,
    "pooling": PoolingHead,
    "separable": SeparableEncoderHead,
    "query2label": Query2LabelHead,
    "conv_pooling": ConvPoolingHead,
    "block": BlockHead,
    "group": GroupHead,
}
