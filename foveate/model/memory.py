"""Memories: what each decoder block reads of the encoder's layers.

A memory is found by its name in MEMORIES, or is a class of your own, ``MODULE:NAME``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.choices import blaming, lookup
from foveate.config import ModelConfig

NUM_TAPS = 4


class EncoderMemory(nn.Module, ABC):
    """What each decoder block reads: one (B, S, D) memory per block.

    Each token of a memory comes from the same token of the encoder's layers alone, so that a scan
    can add to it token by token. One of your own is a subclass that is made from the config.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_blocks = config.decoder_depth

    @abstractmethod
    def forward(self, layers: tuple[Float[Tensor, "B S D"], ...]) -> list[Float[Tensor, "B S D"]]:
        """Return the memory of every decoder block from the outputs of all encoder layers."""


class LastLayer(EncoderMemory):
    """Every block reads the encoder's output."""

    def forward(self, layers: tuple[Float[Tensor, "B S D"], ...]) -> list[Float[Tensor, "B S D"]]:
        """Return the encoder's output for every block."""
        return [layers[-1]] * self.num_blocks


class EvenLayers(EncoderMemory):
    """Each block reads an encoder layer of its own, at even distances.

    Reference: the query stream of SAIM (Qi et al. 2023, arXiv 2212.01610), query_depth = decoder
    depth. Differs: memory has LayerNorms of its own, where SAIM's queries and memory share one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        step = config.depth // config.decoder_depth
        self.read = tuple(range(step - 1, config.depth, step))
        self.norms = nn.ModuleList(nn.LayerNorm(config.embed_dim) for _ in self.read)

    def forward(self, layers: tuple[Float[Tensor, "B S D"], ...]) -> list[Float[Tensor, "B S D"]]:
        """Return one normalized layer for every block."""
        return [norm(layers[index]) for norm, index in zip(self.norms, self.read, strict=True)]


class MixedLayers(EncoderMemory):
    """Each block reads a learned sum of all encoder layers.

    Reference: the trainable skip connections of RandSAC (Hua et al. 2023, arXiv 2203.12054), whose
    start was not found: the mean of all layers here. Differs: LayerNorms of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.weight = nn.Parameter(torch.full((self.num_blocks, config.depth), 1 / config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(config.embed_dim) for _ in range(self.num_blocks))

    def forward(self, layers: tuple[Float[Tensor, "B S D"], ...]) -> list[Float[Tensor, "B S D"]]:
        """Return one normalized sum for every block."""
        mixed = torch.einsum("lk,kbsd->lbsd", self.weight, torch.stack(layers))
        return [norm(part) for norm, part in zip(self.norms, mixed, strict=True)]


class Taps(EncoderMemory):
    """Each block reads a projection of up to four layers of the encoder's upper half.

    Reference: D-iGPT (Ren et al. 2024, arXiv 2312.02147), blocks 6, 8, 10 and 12 of 12. Differs:
    other depths are tapped in proportion (OliverRensu/D-iGPT taps these blocks at any depth).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width, depth = config.embed_dim, config.depth
        self.read = tuple(sorted({depth - 1 - i * depth // 6 for i in range(NUM_TAPS)}))
        self.project = nn.Linear(len(self.read) * width, self.num_blocks * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.read)

    def forward(self, layers: tuple[Float[Tensor, "B S D"], ...]) -> list[Float[Tensor, "B S D"]]:
        """Return one projection for every block."""
        taps = [norm(layers[index]) for norm, index in zip(self.norms, self.read, strict=True)]
        return list(self.project(torch.cat(taps, dim=-1)).chunk(self.num_blocks, dim=-1))


MEMORIES: dict[str, type[EncoderMemory]] = {
    "last": LastLayer,
    "layers": EvenLayers,
    "mixed": MixedLayers,
    "taps": Taps,
}
"""Memories by name; the names stand in ``foveate.config`` as well, which imports no torch."""


def make_memory(config: ModelConfig) -> EncoderMemory:
    """Make the memory that a config names.

    Raises:
        ValueError: there is no such memory.
    """
    memory = lookup("memory", config.memory, MEMORIES, subclass_of=EncoderMemory)
    with blaming("memory", config.memory):
        made = memory(config)
        if "_modules" not in vars(made):
            raise ValueError("its __init__ must call super().__init__(config)")
        return made
