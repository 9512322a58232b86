"""Incremental scanning: reveal patches, predict every position, repeat, with key/value caches.

The stepwise twin of ``AnyOrderTransformer.predict_scan``; tests hold the two to 1e-5. Nothing here
carries gradients: a policy that learns from a scan cannot reach the encoder through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.attention import KeyValueCache, append_to_block
from foveate.model import AnyOrderTransformer, Prediction


@dataclass
class Scan:
    """A batch of scans in progress.

    Start with :meth:`start`, then alternate :meth:`predict` and :meth:`reveal`.
    """

    model: AnyOrderTransformer
    patches: Float[Tensor, "B N D"]
    """Embedded patches; each row depends on its own pixels alone."""
    content: Float[Tensor, "B D"]
    """Encoder state of the token revealed last: the causal summary of all that has been seen."""
    encoder_caches: list[KeyValueCache]
    decoder_caches: list[KeyValueCache]
    present: Bool[Tensor, "B 1 1 L"] | None = None
    """Which cached tokens are real and which padding (True = real); None = all are."""

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
    def reveal(
        self, patches: Int[Tensor, "B K"], present: Bool[Tensor, "B K"] | None = None
    ) -> None:
        """Reveal K patches per image at once, which see one another.

        One patch is a fixation, several are a segment.

        Args:
            patches: what is revealed.
            present: True = real, False = padding, last in its row; None = all are real.
        """
        index = patches.unsqueeze(-1).expand(-1, -1, self.patches.shape[-1])
        self._append(self.patches.gather(1, index), present)

    @torch.no_grad()
    def predict(self) -> Prediction:
        """Predict all N positions from what has been revealed."""
        queries = self.model.query_position.unsqueeze(0)
        for block, cache in zip(self.model.decoder_blocks(), self.decoder_caches, strict=True):
            queries = block(queries, *cache.filled(), self.present)
        return self.model.read_out(queries)

    def repeat(self, times: int) -> Scan:
        """Return an independent scan in which every row stands ``times`` times in succession."""
        return Scan(
            self.model,
            self.patches.repeat_interleave(times, dim=0),
            self.content.repeat_interleave(times, dim=0),
            [cache.repeat(times) for cache in self.encoder_caches],
            [cache.repeat(times) for cache in self.decoder_caches],
            None if self.present is None else self.present.repeat_interleave(times, dim=0),
        )

    def _append(
        self, tokens: Float[Tensor, "B K D"], present: Bool[Tensor, "B K"] | None = None
    ) -> None:
        if present is not None or self.present is not None:
            length = self.encoder_caches[0].length
            before = tokens.new_ones(len(tokens), 1, 1, length, dtype=torch.bool)
            now = (
                tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if present is None else present
            )
            earlier = before if self.present is None else self.present
            self.present = torch.cat([earlier, now[:, None, None]], dim=-1)
        for block, cache in zip(self.model.encoder_blocks(), self.encoder_caches, strict=True):
            tokens = append_to_block(block, tokens, cache, self.present)
        tokens = self.model.encoder.norm(tokens)
        for layer, cache in zip(self.model.decoder_blocks(), self.decoder_caches, strict=True):
            cache.append(*layer.keys_values(tokens))
        if present is None:
            self.content = tokens[:, -1]
        else:
            last = present.sum(1)
            rows = torch.arange(len(last), device=last.device)
            newest = tokens[rows, (last - 1).clamp_min(0)]
            self.content = torch.where(last.unsqueeze(1) > 0, newest, self.content)
