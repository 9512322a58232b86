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


@dataclass(frozen=True)
class CachePlace:
    """Where new tokens are written, and what they and all later queries may attend to."""

    length: int
    """Filled places of the longest row, the new tokens included."""
    place: Int[Tensor, "B S"] | None = None
    """Place of each new token; None = in all rows the last of the first ``length``."""
    may_attend: Bool[Tensor, "B 1 1 L"] | None = None
    """Which of the first places hold a token of the row (True = may attend); None = all do."""
    is_causal: bool = False
    """Whether a new token attends to no new one behind it, in caches that are empty."""

    def take(self, rows: Int[Tensor, "R"]) -> CachePlace:
        """Return the places of the chosen rows."""
        place, mask = (
            None if part is None else part[rows] for part in (self.place, self.may_attend)
        )
        return CachePlace(self.length, place, mask)


@dataclass
class KeyValueCache:
    """Keys and values of one attention layer, written in place as tokens arrive."""

    pairs: Float[Tensor, "2 B H L K"]
    """Keys, then values, at each of L places."""

    @classmethod
    def empty(cls, like: Float[Tensor, "B S D"], num_heads: int, capacity: int) -> KeyValueCache:
        """Allocate room for ``capacity`` tokens shaped as those in ``like``."""
        shape = (2, len(like), num_heads, capacity, like.shape[2] // num_heads)
        # Zeros, not whatever lies in memory: a masked NaN is still a NaN after the softmax.
        return cls(like.new_zeros(shape))

    def write(self, at: CachePlace, pairs: Float[Tensor, "2 B H S K"]) -> None:
        """Write keys and values of S tokens per row, each at its own place."""
        if at.place is None:
            self.pairs[:, :, :, at.length - pairs.shape[3] : at.length] = pairs
        else:
            rows = torch.arange(len(at.place), device=at.place.device).unsqueeze(1)
            # Under autocast what is written is shorter than what is kept, as a slice allows.
            written = pairs.permute(1, 3, 0, 2, 4).to(self.pairs.dtype)
            self.pairs[:, rows, :, at.place] = written

    def first(
        self, length: int, rows: slice | None = None
    ) -> tuple[Float[Tensor, "B H S K"], Float[Tensor, "B H S K"]]:
        """Return the keys and values at the first ``length`` places; of all rows, or some."""
        pairs = self.pairs if rows is None else self.pairs[:, rows]
        keys, values = pairs[:, :, :, :length].unbind(0)
        return keys, values

    def resized(self, capacity: int) -> KeyValueCache:
        """Return this with room for ``capacity`` tokens; those that it holds stay."""
        return KeyValueCache(F.pad(self.pairs, (0, 0, 0, capacity - self.pairs.shape[3])))

    def take(self, rows: Int[Tensor, "R"]) -> KeyValueCache:
        """Return an independent cache of the chosen rows; one may be chosen several times."""
        return KeyValueCache(self.pairs.index_select(1, rows))


def self_attention(block: Block) -> Attention:
    """Return the self-attention of a timm block, which timm annotates as a plain module."""
    return cast(Attention, block.attn)


def empty_caches(
    encoder: VisionTransformer, like: Float[Tensor, "B S D"], capacity: int
) -> list[KeyValueCache]:
    """Make room in every block for ``capacity`` tokens of each row in ``like``."""
    blocks = cast("list[Block]", list(encoder.blocks))
    return [KeyValueCache.empty(like, self_attention(each).num_heads, capacity) for each in blocks]
