"""The model as plain functions of its weights, for steps of scans: same weights, same results.

A step of one scan is a hundred operations on a few numbers. The calls of modules around them took
longer than the arithmetic; here their weights are looked up once per scan. What weights do not say
(adapters, other activations) is refused, and hooks are warned of.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from foveate.model.attention import CrossAttentionBlock, SelfAttention, attend
from foveate.model.cache import CachePlace, KeyValueCache, self_attention
from foveate.model.decoder import Decoder, Prediction


def check_plain(module: nn.Module, *kinds: type[nn.Module]) -> None:
    """Raise ValueError unless a module does what one of these kinds does; warn of its hooks."""
    module = getattr(module, "_orig_mod", module)  # What torch.compile wraps.
    name = f"{type(module).__module__}.{type(module).__name__}"
    if getattr(module.forward, "__func__", None) not in [kind.forward for kind in kinds]:
        raise ValueError(
            f"{name} is not known where a model scans, which reads the weights of plain layers "
            "alone; merge adapters into the weights, or use model.error_curve"
        )
    # FSDP2 gathers weights by hooks of its own, on modules that it gives this method.
    if (module._forward_hooks or module._forward_pre_hooks) and not hasattr(module, "unshard"):
        warnings.warn(
            f"hooks of {name} do not run where a model scans, which reads the weights alone; what "
            "they change is seen by model.error_curve",
            stacklevel=2,
        )


class Norm(NamedTuple):
    """A LayerNorm."""

    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, module: nn.Module) -> Norm:
        """Take the weights of a module; as others here, raises as :func:`check_plain` does."""
        check_plain(module, nn.LayerNorm, LayerNorm)
        norm = cast(nn.LayerNorm, module)
        return cls(norm.weight, norm.bias, norm.eps)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Normalize the last dimension."""
        # What torch.nn.functional wraps: the wrapper takes as long as a small norm.
        return torch.layer_norm(tokens, self.weight.shape, self.weight, self.bias, self.eps)


class Affine(NamedTuple):
    """A linear layer."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, module: nn.Module) -> Affine:
        """Take the weights of a module."""
        check_plain(module, nn.Linear)
        linear = cast(nn.Linear, module)
        return cls(linear.weight, linear.bias)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Multiply and add."""
        return F.linear(tokens, self.weight, self.bias)


class ResidualMlp(NamedTuple):
    """The second half of a block."""

    norm: Norm
    up: Affine
    down: Affine

    @classmethod
    def of(cls, norm: nn.Module, mlp: nn.Module) -> ResidualMlp:
        """Take the weights of timm's MLP, and of the norm before it."""
        check_plain(mlp, Mlp)
        inner = cast(Mlp, mlp)
        check_plain(inner.act, nn.GELU)
        check_plain(inner.norm, nn.Identity)
        return cls(Norm.of(norm), Affine.of(inner.fc1), Affine.of(inner.fc2))

    def __call__(self, tokens: Tensor) -> Tensor:
        """Add what the MLP makes of the tokens."""
        return tokens + self.down(F.gelu(self.up(self.norm(tokens))))


class Writer(NamedTuple):
    """A block of the encoder, which reads new tokens and remembers them."""

    norm: Norm
    qkv: Affine
    proj: Affine
    mlp: ResidualMlp
    num_heads: int

    @classmethod
    def of(cls, block: Block) -> Writer:
        """Take the weights of a timm block."""
        attn = self_attention(block)
        check_plain(block, Block)
        for scale in (block.ls1, block.ls2):
            check_plain(scale, nn.Identity)
        check_plain(attn, SelfAttention)
        mlp = ResidualMlp.of(block.norm2, block.mlp)
        return cls(
            Norm.of(block.norm1), Affine.of(attn.qkv), Affine.of(attn.proj), mlp, attn.num_heads
        )

    def append(
        self, tokens: Float[Tensor, "B S D"], cache: KeyValueCache, at: CachePlace
    ) -> Float[Tensor, "B S D"]:
        """Run new tokens, which attend to what the cache holds, and to one another as ``at`` says.

        Behind others, tokens that must not see one another come one at a time: torch aligns
        ``is_causal`` with the top left corner, which is wrong with a cache.
        """
        num_rows, length, width = tokens.shape
        qkv = self.qkv(self.norm(tokens)).view(num_rows, length, 3, self.num_heads, -1)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        cache.write(at, qkv[1:])
        attended = F.scaled_dot_product_attention(
            qkv[0], *cache.first(at.length), attn_mask=at.may_attend, is_causal=at.is_causal
        )
        attended = attended.transpose(1, 2).reshape(num_rows, length, width)
        return self.mlp(tokens + self.proj(attended))


class MemoryReader(NamedTuple):
    """A block of the decoder without lateral attention, which reads what was remembered."""

    norm: Norm
    query: Affine
    key_value: Affine
    proj: Affine
    mlp: ResidualMlp
    num_heads: int

    @classmethod
    def of(cls, block: CrossAttentionBlock) -> MemoryReader:
        """Take the weights of a block."""
        check_plain(block, CrossAttentionBlock)
        return cls(
            Norm.of(block.norm1),
            Affine.of(block.query),
            Affine.of(block.key_value),
            Affine.of(block.proj),
            ResidualMlp.of(block.norm2, block.mlp),
            block.num_heads,
        )

    def remember(
        self, memory: Float[Tensor, "B S D"], cache: KeyValueCache, at: CachePlace
    ) -> None:
        """Write keys and values of new memory tokens."""
        pairs = self.key_value(memory).view(*memory.shape[:2], 2, self.num_heads, -1)
        cache.write(at, pairs.permute(2, 0, 3, 1, 4))

    def asked(self, queries: Float[Tensor, "*B Q D"]) -> Float[Tensor, "*B Q D"]:
        """Return what the queries ask for, of all heads."""
        return self.query(self.norm(queries))

    def read(
        self,
        queries: Float[Tensor, "#B Q D"],
        asked: Float[Tensor, "#B Q D"],
        keys: Float[Tensor, "B H S K"],
        values: Float[Tensor, "B H S K"],
        may_attend: Bool[Tensor, "#B 1 #Q S"] | None,
    ) -> Float[Tensor, "B Q D"]:
        """Update the queries from the keys and values; True = may attend, None = all may."""
        heads = asked.view(*asked.shape[:2], self.num_heads, -1).transpose(1, 2)
        attended = attend(heads.expand(len(keys), -1, -1, -1), keys, values, may_attend)
        attended = attended.transpose(1, 2).reshape(len(keys), *queries.shape[1:])
        return self.mlp(queries + self.proj(attended))


@dataclass(frozen=True)
class Encoding:
    """Encoder blocks behind caches."""

    writers: list[Writer]
    norm: Norm

    @classmethod
    def of(cls, encoder: VisionTransformer) -> Encoding:
        """Take the weights of a timm encoder."""
        blocks = cast("list[Block]", list(encoder.blocks))
        return cls([Writer.of(block) for block in blocks], Norm.of(encoder.norm))

    def append(
        self, tokens: Float[Tensor, "B S D"], caches: list[KeyValueCache], at: CachePlace
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Run all blocks on new tokens, and return their outputs, the last ones normalized."""
        layers = []
        for writer, cache in zip(self.writers, caches, strict=True):
            tokens = writer.append(tokens, cache, at)
            layers.append(tokens)
        layers[-1] = self.norm(tokens)
        return tuple(layers)


@dataclass(frozen=True)
class Decoding:
    """The decoder over caches, one for each of its blocks."""

    readers: list[MemoryReader]
    norm: Norm
    head: Affine
    error_head: Affine | None
    position: Float[Tensor, "N D"]
    """Learned position of every patch: a query begins as that of the patch it asks for."""
    first_asked: Float[Tensor, "N D"]
    """What each of them asks of the first block: the same in all images, at all steps."""

    @classmethod
    def of(cls, decoder: Decoder) -> Decoding:
        """Take the weights of a decoder that has blocks and no lateral attention."""
        check_plain(decoder, Decoder)
        readers = [MemoryReader.of(cast(CrossAttentionBlock, block)) for block in decoder.blocks]
        error_head = None if decoder.error_head is None else Affine.of(decoder.error_head)
        position = decoder.position.detach()
        return cls(
            readers,
            Norm.of(decoder.norm),
            Affine.of(decoder.head),
            error_head,
            position,
            readers[0].asked(position),
        )

    def predict(
        self,
        memory: list[tuple[Float[Tensor, "B H S K"], Float[Tensor, "B H S K"]]],
        may_attend: Bool[Tensor, "#B 1 #Q S"] | None,
        positions: Int[Tensor, "B Q"] | None,
    ) -> Prediction:
        """Predict patches from the keys and values of every block; None = all, in raster order."""
        at = slice(None) if positions is None else positions
        queries, asked = self.position[at], self.first_asked[at]
        if positions is None:
            # One row of queries serves all images as long as these do not differ.
            queries, asked = queries.unsqueeze(0), asked.unsqueeze(0)
        for number, (reader, pairs) in enumerate(zip(self.readers, memory, strict=True)):
            asked = reader.asked(queries) if number else asked
            queries = reader.read(queries, asked, *pairs, may_attend)
        states = self.norm(queries)
        log_error = None if self.error_head is None else self.error_head(states).squeeze(-1)
        return Prediction(self.head(states), log_error, states)
