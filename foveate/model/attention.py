"""Attention over patches sorted by rank: who may attend to whom, and the key/value cache.

Sorting tokens by rank turns every order into the same picture: whatever is visible is a *prefix*
of the sequence. A mask is therefore a count, and orders without ties need no mask at all, only
plain causal attention.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def content_may_attend(rank: Int[Tensor, "B N"]) -> Bool[Tensor, "B N N"]:
    """Whether content i may attend to content j: ``rank_j <= rank_i`` (True = may attend).

    Reference: the content mask of SAIM (Qi et al. 2023, arXiv 2212.01610), with ties as
    in RandSAC (2203.12054).
    """
    return rank.unsqueeze(1) <= rank.unsqueeze(2)


def query_may_attend(rank: Int[Tensor, "B N"]) -> Bool[Tensor, "B N N"]:
    """Whether query i may attend to content j: ``rank_j < rank_i`` (True = may attend)."""
    return rank.unsqueeze(1) < rank.unsqueeze(2)


def prefix_may_attend(
    counts: Int[Tensor, "B Q"], num_tokens: int, num_always: int
) -> Bool[Tensor, "R 1 Q K"]:
    """Whether a row may attend to a token: row q sees the first ``counts[q]`` sorted patches.

    Args:
        counts: how many sorted patches each row sees, on top of the always-visible tokens.
        num_tokens: number of sorted patches that stand in the sequence.
        num_always: number of always-visible tokens (start and periphery) that come before them.

    Returns:
        True = may attend. R is 1 when all images agree (no ties, or the same ties), else B.
    """
    if bool((counts == counts[:1]).all()):
        counts = counts[:1]
    token = torch.arange(num_tokens + num_always, device=counts.device)
    return (token < counts.unsqueeze(-1) + num_always).unsqueeze(1)


def prefix_block_mask(counts: Int[Tensor, "B Q"], num_always: int) -> BlockMask:
    """Mask of :func:`prefix_may_attend` in a causal stream, for flex attention.

    Rows and columns are the always-visible tokens, themselves causal, and the sorted patches. Its
    memory grows with the square of the number of *blocks*, where a dense mask has one of tokens.
    """
    rows, length = counts.shape[0], counts.shape[1] + num_always
    seen = torch.arange(1, num_always + 1, device=counts.device).expand(rows, -1)
    reach = torch.cat([seen, counts + num_always], dim=1)

    return create_block_mask(
        lambda b, h, q, k: k < reach[b, q], rows, None, length, length, device=str(counts.device)
    )


FEW_KEYS = 32
"""Up to so many keys, :func:`attend_few` is several times faster than the fused kernel on a CPU."""


def attend(
    queries: Float[Tensor, "B H Q K"],
    keys: Float[Tensor, "B H S K"],
    values: Float[Tensor, "B H S K"],
    may_attend: Bool[Tensor, "#B 1 #Q S"] | BlockMask | None = None,
    is_causal: bool = False,
) -> Float[Tensor, "B H Q K"]:
    """Scaled dot-product attention, by the kernel that suits the device and the mask.

    Args:
        queries: of each head.
        keys: of each head.
        values: of each head.
        may_attend: True = may attend; a block mask goes to flex attention; None = all may.
        is_causal: to those of no later place only; without a mask.
    """
    if isinstance(may_attend, BlockMask):
        return flex(queries)(queries, keys, values, block_mask=may_attend)
    few = queries.is_cpu and keys.shape[2] <= FEW_KEYS and not is_causal
    if few and not torch.is_grad_enabled():
        return attend_few(queries, keys, values, may_attend)
    if queries.is_cpu and queries.dtype == torch.bfloat16:
        # torch's fused kernel is up to thirty times slower backward in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            attended = F.scaled_dot_product_attention(
                queries.float(),
                keys.float(),
                values.float(),
                attn_mask=may_attend,
                is_causal=is_causal,
            )
        return attended.to(queries.dtype)
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=may_attend, is_causal=is_causal
    )


def flex(like: Tensor) -> Callable[..., Tensor]:
    """Return flex attention, compiled where there is a GPU: uncompiled it is dense."""
    return compiled_flex() if like.is_cuda else cast("Callable[..., Tensor]", flex_attention)


@functools.cache
def compiled_flex() -> Callable[..., Tensor]:
    """Return the compiled flex attention."""
    compiled: Callable[..., Tensor] = torch.compile(flex_attention)
    return compiled


def attend_few(
    queries: Float[Tensor, "B H Q K"],
    keys: Float[Tensor, "B H S K"],
    values: Float[Tensor, "B H S K"],
    may_attend: Bool[Tensor, "#B 1 #Q S"] | None = None,
) -> Float[Tensor, "B H Q K"]:
    """Scaled dot-product attention for many queries and few keys, keys first.

    By hand, since torch's fused kernel, and its softmax over a last dimension of a dozen, leave a
    CPU's vector units idle; over the second to last they are full.
    """
    scores = (keys * queries.shape[-1] ** -0.5) @ queries.transpose(-1, -2)
    if may_attend is not None:
        scores = scores.masked_fill(~may_attend.transpose(-1, -2), -torch.inf)
    return scores.softmax(2).transpose(-1, -2) @ values


class SelfAttention(Attention):
    """timm's self-attention, its weights and its results, with :func:`attend` inside."""

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        attn_mask: Bool[Tensor, "#B 1 S S"] | BlockMask | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "B S D"]:
        """Attend among the tokens; ``attn_mask``: True = may attend."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = attend(self.q_norm(queries), self.k_norm(keys), values, attn_mask, is_causal)
        return self.proj(attended.transpose(1, 2).flatten(2))


@dataclass
class KeyValueCache:
    """Keys and values of one attention layer, written in place as tokens arrive.

    keys, values: (B, num_heads, capacity, head_width).
    """

    keys: Float[Tensor, "B H L K"]
    values: Float[Tensor, "B H L K"]

    @classmethod
    def empty(cls, like: Float[Tensor, "B H S K"], capacity: int) -> KeyValueCache:
        """Allocate room for ``capacity`` tokens shaped as those in ``like``."""
        shape = (like.shape[0], like.shape[1], capacity, like.shape[3])
        # Zeros, not whatever lies in memory: a masked NaN is still a NaN after the softmax.
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    def write(
        self,
        place: Int[Tensor, "B S"],
        keys: Float[Tensor, "B H S K"],
        values: Float[Tensor, "B H S K"],
    ) -> None:
        """Write S tokens per row, each at its own place."""
        rows = torch.arange(len(place), device=place.device).unsqueeze(1)
        self.keys[rows, :, place] = keys.transpose(1, 2)
        self.values[rows, :, place] = values.transpose(1, 2)

    def first(self, length: int) -> tuple[Float[Tensor, "B H S K"], Float[Tensor, "B H S K"]]:
        """Return the keys and values at the first ``length`` places."""
        return self.keys[:, :, :length], self.values[:, :, :length]

    def resized(self, capacity: int) -> KeyValueCache:
        """Return this with room for ``capacity`` tokens; those that it holds stay."""
        more = capacity - self.keys.shape[2]
        return KeyValueCache(F.pad(self.keys, (0, 0, 0, more)), F.pad(self.values, (0, 0, 0, more)))

    def repeat(self, times: int) -> KeyValueCache:
        """Return an independent cache in which every row stands ``times`` times in succession."""
        return KeyValueCache(
            self.keys.repeat_interleave(times, dim=0), self.values.repeat_interleave(times, dim=0)
        )


@dataclass(frozen=True)
class CachePlace:
    """Where new tokens are written, and what they and all later queries may attend to."""

    place: Int[Tensor, "B S"]
    length: int
    """Filled places of the longest row, the new tokens included."""
    may_attend: Bool[Tensor, "B 1 1 L"] | None
    """Which of the first places hold a token of the row (True = may attend); None = all do."""


def self_attention(block: Block) -> Attention:
    """Return the self-attention of a timm block, which timm annotates as a plain module."""
    return cast(Attention, block.attn)


def self_keys_values(
    block: Block, tokens: Float[Tensor, "B S D"]
) -> tuple[Float[Tensor, "B H S K"], Float[Tensor, "B H S K"], Float[Tensor, "B H S K"]]:
    """Project tokens to the queries, keys and values of a timm block's self-attention."""
    attn = self_attention(block)
    qkv = attn.qkv(block.norm1(tokens)).unflatten(-1, (3, attn.num_heads, attn.head_dim))
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attn.q_norm(queries), attn.k_norm(keys), values


def append_to_block(
    block: Block, tokens: Float[Tensor, "B S D"], cache: KeyValueCache, at: CachePlace
) -> Float[Tensor, "B S D"]:
    """Run a timm block on new tokens that attend to one another and to all that the cache holds.

    Tokens that must not see one another come one at a time: torch aligns ``is_causal`` with the top
    left corner, which is wrong with a cache.
    """
    queries, keys, values = self_keys_values(block, tokens)
    cache.write(at.place, keys, values)
    attended = F.scaled_dot_product_attention(
        queries, *cache.first(at.length), attn_mask=at.may_attend
    )
    tokens = tokens + block.ls1(self_attention(block).proj(attended.transpose(1, 2).flatten(2)))
    return tokens + block.ls2(block.mlp(block.norm2(tokens)))


class CrossAttentionBlock(nn.Module):
    """Pre-norm decoder block: queries attend to a memory, then an MLP.

    Without lateral attention queries do not interact, so that any number of positions can be
    decoded from one prefix in one pass. With it they first attend to one another, as in a
    transformer decoder.

    Reference: the query blocks of SAIM (arXiv 2212.01610) and the second stack of ARPG
    (hp-l33/ARPG); with lateral attention, the decoder of RandSAC (2203.12054). timm has no
    cross-attention block and torch's TransformerDecoderLayer insists on self-attention, hence
    by hand.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float, lateral: bool = False
    ) -> None:
        super().__init__()
        self.lateral_norm = nn.LayerNorm(embed_dim) if lateral else None
        self.lateral = SelfAttention(embed_dim, num_heads, qkv_bias=True) if lateral else None
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(embed_dim)
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key_value = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = Mlp(embed_dim, int(embed_dim * mlp_ratio))

    def keys_values(
        self, memory: Float[Tensor, "B S D"]
    ) -> tuple[Float[Tensor, "B H S K"], Float[Tensor, "B H S K"]]:
        """Project memory tokens to keys and values."""
        projected = self.key_value(memory).unflatten(-1, (2, self.num_heads, -1))
        keys, values = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return keys, values

    def forward(
        self,
        queries: Float[Tensor, "#B Q D"],
        keys: Float[Tensor, "B H S K"],
        values: Float[Tensor, "B H S K"],
        may_attend: Bool[Tensor, "#B 1 #Q S"] | None = None,
        lateral: Bool[Tensor, "#B 1 Q Q"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Update the queries from the keys and values they may attend to.

        In ``may_attend`` (to the memory) and ``lateral`` (to other queries) True = may attend; None
        = all may. Queries that are the same for all images may come as one row.
        """
        if self.lateral is not None and self.lateral_norm is not None:
            queries = queries + self.lateral(self.lateral_norm(queries), attn_mask=lateral)
        heads = self.query(self.norm1(queries)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        heads = heads.expand(len(keys), -1, -1, -1)
        attended = attend(heads, keys, values, may_attend)
        queries = queries + self.proj(attended.transpose(1, 2).flatten(2))
        return queries + self.mlp(self.norm2(queries))
