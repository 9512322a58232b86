"""Decoders: position queries that read a memory of what has been encoded.

A decoder is a choice of memory (which encoder layers its blocks read) and of lateral attention
(whether queries see one another). It need not have blocks: then the encoder's own outputs predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from foveate.choices import told
from foveate.config import ModelConfig
from foveate.model.attention import CrossAttentionBlock, SelfAttention, prefix_may_attend
from foveate.model.encoder import take
from foveate.model.memory import make_memory


@dataclass(frozen=True)
class Prediction:
    """What a decoder says of Q positions."""

    values: Float[Tensor, "B Q T"]
    """Predicted target: normalized pixels, logits of colors, features, or pixels and features."""
    log_error: Float[Tensor, "B Q"] | None
    """Log of the error that the model expects of its prediction: its uncertainty. None where it
    learns none (``expects_error`` and ``learns_error`` in ``foveate.config``)."""
    states: Float[Tensor, "B Q D"]
    """Final decoder states of the queries."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        """Return this with every tensor, (B, Q, *), changed alike."""
        log_error = self.log_error
        if log_error is not None:
            log_error = change(log_error.unsqueeze(-1)).squeeze(-1)
        return Prediction(change(self.values), log_error, change(self.states))

    def take(self, index: Int[Tensor, "B K"]) -> Prediction:
        """Return what is said of the queries at ``index``."""
        return self.map(lambda each: take(each, index))

    def repeat(self, times: int) -> Prediction:
        """Return this with every row ``times`` times in succession."""
        return self.map(lambda each: each.repeat_interleave(times, dim=0))


class Decoder(nn.Module):
    """Queries, their blocks, and the heads that read them out."""

    def __init__(
        self, config: ModelConfig, position: Float[Tensor, "N D"], target_dim: int
    ) -> None:
        super().__init__()
        width, heads, ratio = config.embed_dim, config.num_heads, config.decoder_mlp_ratio
        self.lateral = config.lateral
        self.num_always = config.num_always
        if config.decoder_depth > 0:
            self.position = nn.Parameter(position.clone())
            self.memory = make_memory(config)
        self.blocks = nn.ModuleList(
            Block(width, heads, ratio, qkv_bias=True, attn_layer=SelfAttention)
            if self.lateral == "joint"
            else CrossAttentionBlock(width, heads, ratio, lateral=self.lateral == "segment")
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, target_dim)
        learns_error = config.expects_error or config.learns_error
        self.error_head = nn.Linear(width, 1) if learns_error else None
        if config.target == "features":
            nn.Module.register_load_state_dict_pre_hook(self, expect_alike)

    position: nn.Parameter
    """Learned position of every patch, (N, D): a query begins as that of the patch it asks for."""

    def forward(
        self,
        layers: tuple[Float[Tensor, "B S D"], ...],
        positions: Int[Tensor, "B Q"],
        counts: Int[Tensor, "#B Q"],
    ) -> Prediction:
        """Predict the patches at ``positions``, each from the first ``counts`` sorted patches.

        Nothing here looks at a value. A joint decoder takes no counts: all of the memory is visible
        to all of its queries.

        Args:
            layers: outputs of all encoder layers.
            positions: what is predicted.
            counts: how many sorted patches each query may see; one row where all images agree.
        """
        queries = self.position[positions]
        if self.lateral == "joint":
            tokens = torch.cat([layers[-1], queries], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            return self.read_out(tokens[:, -queries.shape[1] :])
        num_sorted = layers[-1].shape[1] - self.num_always
        may_attend = prefix_may_attend(counts, num_sorted, self.num_always)
        lateral = None
        if self.lateral == "segment":
            lateral = (counts.unsqueeze(1) <= counts.unsqueeze(2)).unsqueeze(1)
        readers = cast("list[CrossAttentionBlock]", list(self.blocks))
        for block, memory in zip(readers, self.memories(layers), strict=True):
            queries = block(queries, *block.keys_values(memory), may_attend, lateral)
        return self.read_out(queries)

    def memories(self, layers: tuple[Float[Tensor, "B S D"], ...]) -> list[Float[Tensor, "B S D"]]:
        """Return what each block reads.

        Raises:
            ValueError: a memory of one's own returns something else.
        """
        found, shape = self.memory(layers), layers[-1].shape
        memories = list(found) if isinstance(found, Iterable) else []
        if [getattr(each, "shape", None) for each in memories] != [shape] * len(self.blocks):
            raise ValueError(
                f"memory {type(self.memory).__name__} must return {len(self.blocks)} tensors of "
                f"shape {tuple(shape)}, one for each decoder block, got {told(found)}"
            )
        return memories

    def read_out(self, queries: Float[Tensor, "B Q D"]) -> Prediction:
        """Turn final states into a prediction and its expected error."""
        states = self.norm(queries)
        log_error = None if self.error_head is None else self.error_head(states).squeeze(-1)
        return Prediction(self.head(states), log_error, states)


def expect_alike(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Let a checkpoint of features without an error head expect the same error everywhere."""
    head = module.error_head
    if isinstance(head, nn.Linear) and f"{prefix}head.weight" in state:
        for name, parameter in head.named_parameters(prefix=f"{prefix}error_head"):
            state.setdefault(name, torch.zeros_like(parameter))
