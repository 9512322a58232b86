"""Attention over patches sorted by rank: who may attend to whom, and by which kernel.

Sorting tokens by rank turns every order into the same picture: whatever is visible is a *prefix*
of the sequence. A mask is therefore a count, and orders without ties need no mask at all, only
plain causal attention.

Content i attends to content j where ``rank_j <= rank_i``, a query where ``rank_j < rank_i``.

Reference: the masks of SAIM (Qi et al. 2023, arXiv 2212.01610), with ties as in RandSAC
(2203.12054).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from foveate.model.flex import flex


def shared_counts(counts: Int[Tensor, "B Q"], agree: bool | None = None) -> Int[Tensor, "R Q"]:
    """Return one row of counts where all images agree, so that one mask serves them all.

    Args:
        counts: how many sorted patches each row of each image sees.
        agree: whether all images agree; None = look, for which the host waits for the device.
    """
    if agree is None:
        agree = bool((counts == counts[:1]).all())
    return counts[:1] if agree else counts


def prefix_may_attend(
    counts: Int[Tensor, "R Q"], num_tokens: int, num_always: int
) -> Bool[Tensor, "R 1 Q K"]:
    """Whether a row may attend to a token: row q sees the first ``counts[q]`` sorted patches.

    Args:
        counts: how many sorted patches each row sees, on top of the always-visible tokens; of every
            image, or one row for all (:func:`shared_counts`).
        num_tokens: number of sorted patches that stand in the sequence.
        num_always: number of always-visible tokens (start and periphery) that come before them.

    Returns:
        True = may attend.
    """
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


@dataclass(frozen=True)
class BehindPrefix:
    """Who may attend to whom where tracks stand behind the prefix of their image.

    A track attends to the prefix and, causally, to itself. The tokens of all images are one row:
    first all prefixes, then the M tokens of all tracks, so that padding costs no more than a place
    in the attention.
    """

    prefix: Bool[Tensor, "#B 1 P P"]
    """Among the tokens of a prefix (True = may attend)."""
    visible: Bool[Tensor, "B P"]
    """What of the prefix tracks may attend to (True = may attend)."""
    kept: Int[Tensor, " M"]
    """Where among the places of B x K x L each token of a track stands; no padding does."""
    num_tracks: int
    """Tracks of each image, K."""
    length: int
    """Places of a track, L."""

    def placed(self, tokens: Float[Tensor, "H M D"]) -> Float[Tensor, "B H K L D"]:
        """Put the tokens of tracks at their places, with zeros elsewhere."""
        shape = len(self.visible), self.num_tracks, self.length
        size = shape[0] * shape[1] * shape[2]
        if len(self.kept) < size:
            empty = tokens.new_zeros(tokens.shape[0], size, tokens.shape[2])
            tokens = empty.index_copy(1, self.kept, tokens)
        return tokens.unflatten(1, shape).movedim(0, 1)

    def taken(self, tokens: Float[Tensor, "B H K L D"]) -> Float[Tensor, "H M D"]:
        """Return the tokens of tracks from their places."""
        tokens = tokens.movedim(1, 0).flatten(1, 3)
        return tokens.index_select(1, self.kept) if len(self.kept) < tokens.shape[1] else tokens


FEW_KEYS = 32
"""Up to so many keys, :func:`attend_few` is several times faster than the fused kernel on a CPU."""


def attend(
    queries: Float[Tensor, "B H Q K"],
    keys: Float[Tensor, "B H S K"],
    values: Float[Tensor, "B H S K"],
    may_attend: Bool[Tensor, "#B 1 #Q S"] | BlockMask | BehindPrefix | None = None,
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
    if isinstance(may_attend, BehindPrefix):
        return attend_behind(queries, keys, values, may_attend)
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


def attend_behind(
    queries: Float[Tensor, "1 H S K"],
    keys: Float[Tensor, "1 H S K"],
    values: Float[Tensor, "1 H S K"],
    of: BehindPrefix,
) -> Float[Tensor, "1 H S K"]:
    """Scaled dot-product attention of prefixes, and of the tracks behind each.

    By hand: one softmax over two products. All tracks of an image share the one with the prefix,
    and tracks have none with one another, so that the cost grows with their number, not its square.
    """
    num_images, size = of.visible.shape
    split = num_images * size
    first_asked, first_keys, first_values = (
        each[0, :, :split].unflatten(1, (num_images, size)).transpose(0, 1)
        for each in (queries, keys, values)
    )
    asked, own_keys, own_values = (
        of.placed(each[0, :, split:]) for each in (queries, keys, values)
    )
    asked = asked * queries.shape[-1] ** -0.5
    seen = asked.flatten(2, 3) @ first_keys.transpose(-1, -2)
    seen = seen.masked_fill(~of.visible[:, None, None], -torch.inf)
    later = torch.ones(of.length, of.length, dtype=torch.bool, device=keys.device).triu(1)
    own = (asked @ own_keys.transpose(-1, -2)).masked_fill(later, -torch.inf)
    scores = torch.cat([seen.unflatten(2, (of.num_tracks, of.length)), own], dim=-1)
    share = scores.softmax(-1).to(values.dtype)
    told = share[..., :size].flatten(2, 3) @ first_values
    said = share[..., size:] @ own_values + told.unflatten(2, (of.num_tracks, of.length))
    prefix = attend(first_asked, first_keys, first_values, of.prefix)
    return torch.cat([prefix.transpose(0, 1).flatten(1, 2), of.taken(said)], dim=1).unsqueeze(0)


class SelfAttention(Attention):
    """timm's self-attention, its weights and its results, with :func:`attend` inside."""

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        attn_mask: Bool[Tensor, "#B 1 S S"] | BlockMask | BehindPrefix | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "B S D"]:
        """Attend among the tokens; ``attn_mask``: True = may attend."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = attend(self.q_norm(queries), self.k_norm(keys), values, attn_mask, is_causal)
        return self.proj(attended.transpose(1, 2).flatten(2))


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
