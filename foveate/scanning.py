"""Incremental scanning: reveal one patch, predict every position, repeat, with key/value caches.

The stepwise twin of ``AnyOrderTransformer.predict_scan``; tests hold the two to 1e-5. Nothing here carries gradients:
a policy that learns from a scan cannot reach the encoder through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.attention import KeyValueCache, append_to_block
from foveate.model import AnyOrderTransformer, Prediction


@dataclass
class Scan:
    """A batch of scans in progress. Start with :meth:`start`, then alternate :meth:`predict` and :meth:`reveal`."""

    model: AnyOrderTransformer
    patches: Float[Tensor, "B N D"]
    """Embedded patches; each row depends on its own pixels alone."""
    content: Float[Tensor, "B D"]
    """Encoder state of the token revealed last: the causal summary of all that has been seen."""
    encoder_caches: list[KeyValueCache]
    decoder_caches: list[KeyValueCache]

    @classmethod
    @torch.no_grad()
    def start(
        cls, model: AnyOrderTransformer, images: Float[Tensor, "B C H W"], budget: int
    ) -> Scan:
        """Encode the always-visible tokens; room is made for ``budget`` fixations.

        Raises:
            ValueError: budget is outside 1..N.
        """
        if not 1 <= budget <= model.num_patches:
            raise ValueError(f"budget must lie in 1..{model.num_patches} fixations, got {budget}")
        always, patches = model.embed(images)
        num_heads, capacity = model.config.num_heads, model.num_always + budget
        like = always.unflatten(-1, (num_heads, -1)).transpose(1, 2)

        def caches(num_layers: int) -> list[KeyValueCache]:
            return [KeyValueCache.empty(like, capacity) for _ in range(num_layers)]

        scan = cls(
            model, patches, always[:, 0], caches(model.config.depth), caches(len(model.decoder))
        )
        for token in always.split(1, dim=1):
            scan._append(token)
        return scan

    @torch.no_grad()
    def reveal(self, patch: Int[Tensor, "B"]) -> None:
        """Reveal one patch per image."""
        rows = torch.arange(len(patch), device=self.patches.device)
        self._append(self.patches[rows, patch].unsqueeze(1))

    @torch.no_grad()
    def predict(self) -> Prediction:
        """Predict all N positions from what has been revealed."""
        queries = self.model.query_position.unsqueeze(0)
        for block, cache in zip(self.model.decoder, self.decoder_caches, strict=True):
            queries = block(queries, *cache.filled())
        return self.model.read_out(queries)

    def repeat(self, times: int) -> Scan:
        """Return an independent scan in which every row stands ``times`` times in succession."""
        return Scan(
            self.model,
            self.patches.repeat_interleave(times, dim=0),
            self.content.repeat_interleave(times, dim=0),
            [cache.repeat(times) for cache in self.encoder_caches],
            [cache.repeat(times) for cache in self.decoder_caches],
        )

    def _append(self, token: Float[Tensor, "B 1 D"]) -> None:
        for block, cache in zip(self.model.encoder.blocks, self.encoder_caches, strict=True):
            token = append_to_block(block, token, cache)
        token = self.model.encoder.norm(token)
        for block, cache in zip(self.model.decoder, self.decoder_caches, strict=True):
            cache.append(*block.keys_values(token))
        self.content = token[:, 0]
