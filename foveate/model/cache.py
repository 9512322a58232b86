"""Key/value caches: new tokens run behind those that were encoded before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor


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

    def take(self, rows: Int[Tensor, "R"]) -> KeyValueCache:
        """Return an independent cache of the chosen rows; one may be chosen several times."""
        return KeyValueCache(self.keys.index_select(0, rows), self.values.index_select(0, rows))


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


def empty_caches(
    encoder: VisionTransformer, like: Float[Tensor, "B S D"], capacity: int
) -> list[KeyValueCache]:
    """Make room in every block for ``capacity`` tokens of each row in ``like``."""
    blocks = cast("list[Block]", list(encoder.blocks))
    return [
        KeyValueCache.empty(
            like.unflatten(-1, (self_attention(block).num_heads, -1)).transpose(1, 2), capacity
        )
        for block in blocks
    ]


def append_to_encoder(
    encoder: VisionTransformer,
    tokens: Float[Tensor, "B K D"],
    caches: list[KeyValueCache],
    at: CachePlace,
) -> tuple[Float[Tensor, "B K D"], ...]:
    """Run all blocks on new tokens behind those in the caches, and return their outputs.

    The new tokens attend to one another and to all that stands there; the last outputs are
    normalized.
    """
    layers = []
    for block, cache in zip(cast("list[Block]", list(encoder.blocks)), caches, strict=True):
        tokens = append_to_block(block, tokens, cache, at)
        layers.append(tokens)
    layers[-1] = encoder.norm(tokens)
    return tuple(layers)
