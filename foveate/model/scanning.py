"""Incremental scanning: reveal patches, predict every position, repeat, with key/value caches.

The stepwise twin of ``AnyOrderTransformer.predict_scan``; tests hold the two to 1e-5. Nothing here
carries gradients: a policy that learns from a scan cannot reach the encoder through it.

A *static* scan does the same with shapes that never change: every step attends to all places of
the cache, behind a mask, and no value is looked at. So a compiler, or a CUDA graph, takes all steps
as one, and the host waits for no GPU. On a CPU a scan that grows is faster.

Reference: the static key/value cache of gpt-fast (meta-pytorch/gpt-fast).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.model.cache import CachePlace, KeyValueCache, empty_caches
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.model.stepping import Decoding, Encoding
from foveate.model.transformer import AnyOrderTransformer

CACHED_VALUES = 2**18
"""Decoder activations of a layer that a CPU works on at once: 1 MB, so that they stay in its cache
(1.4 times as fast as 256 rows of 64 patches in one piece)."""


def bytes_per_row(model: AnyOrderTransformer, num_opened: int) -> int:
    """Return about the bytes that a row of a scan takes, with what is predicted and judged of it.

    Of each patch there are the truth, predictions before and after a step, their errors, and the
    activations of a decoder block, more of them than live at once: 12 D, and the hidden layer of
    its MLP before and after its function. Of each token there are keys and values, old and new.

    Args:
        model: who scans; its numbers take 4 bytes.
        num_opened: patches that are revealed.
    """
    config, decoder = model.config, model.decoder
    num_layers = config.depth + len(decoder.blocks)
    tokens = model.num_always + num_opened + 1
    activations = round((12 + 2 * config.decoder_mlp_ratio) * config.embed_dim)
    patches = model.num_patches * (6 * decoder.head.out_features + activations)
    return 4 * (patches + 4 * num_layers * tokens * config.embed_dim)


@dataclass
class Scan:
    """A batch of scans in progress.

    Start with :meth:`start`, then alternate :meth:`predict` and :meth:`reveal`.
    """

    model: AnyOrderTransformer
    encoding: Encoding
    decoding: Decoding
    patches: Float[Tensor, "B N D"]
    """Embedded patches; each row depends on its own pixels alone."""
    content: Float[Tensor, "B D"]
    """Encoder state of the token revealed last: the causal summary of all that has been seen."""
    content_sum: Float[Tensor, "B D"]
    """Sum of the encoder states of all that has been seen, periphery and patches."""
    encoder_caches: list[KeyValueCache]
    decoder_caches: list[KeyValueCache]
    lengths: Int[Tensor, "B"]
    """Cached tokens of each row."""
    capacity: int
    """Room for tokens in a row; one more place takes the padding."""
    at: CachePlace | None = None
    """Where the newest tokens went; its mask is None as long as all rows are equally long."""
    static: bool = False
    """Whether shapes never change. Then what is revealed beyond the room is not seen: to refuse it,
    the host would have to look."""

    @property
    def mean_content(self) -> Float[Tensor, "B D"]:
        """Mean encoder state of periphery and patches seen; without either the start token's."""
        # The start token is among the lengths, and not in the sum.
        number = (self.lengths - 1).unsqueeze(1)
        return torch.where(number > 0, self.content_sum / number.clamp_min(1), self.content)

    @classmethod
    @torch.no_grad()
    def start(
        cls,
        model: AnyOrderTransformer,
        images: Float[Tensor, "B C H W"],
        budget: int,
        *,
        static: bool = False,
    ) -> Scan:
        """Encode the always-visible tokens; room is made for ``budget`` fixations.

        Raises:
            ValueError: budget is outside 1..N.
        """
        model.check_scannable()
        if not 1 <= budget <= model.num_patches:
            raise ValueError(f"budget must lie in 1..{model.num_patches} fixations, got {budget}")
        always, patches = model.embed(images)
        capacity = model.num_always + budget
        scan = cls(
            model=model,
            encoding=Encoding.of(model.encoder),
            decoding=Decoding.of(model.decoder),
            patches=patches,
            content=always[:, 0],
            content_sum=torch.zeros_like(always[:, 0]),
            encoder_caches=empty_caches(model.encoder, always, capacity + 1),
            decoder_caches=[
                KeyValueCache.empty(always, block.num_heads, capacity + 1)
                for block in model.decoder_blocks()
            ],
            lengths=torch.zeros(len(images), dtype=torch.long, device=images.device),
            capacity=capacity,
        )
        states = scan._append(always, None)
        scan.content_sum = states[:, 1:].sum(1)  # The start token shows nothing.
        if static:
            scan.static, scan.at = True, CachePlace(capacity, None, scan._filled(capacity))
        return scan

    @torch.no_grad()
    def restart(self, rows: Bool[Tensor, "B"], images: Float[Tensor, "R C H W"]) -> None:
        """Forget what the chosen rows have seen, and give them new images (True = restart)."""
        # The model may have learned since; some of what is kept of its weights is computed.
        self.encoding = Encoding.of(self.model.encoder)
        self.decoding = Decoding.of(self.model.decoder)
        always, patches = self.model.embed(images)
        self.patches = self.patches.masked_scatter(rows.view(-1, 1, 1), patches)
        self.lengths = self.lengths.masked_fill(rows, 0)
        for number, token in enumerate(always.split(1, dim=1)):
            tokens = torch.zeros_like(self.patches[:, :1])
            self._append(tokens.masked_scatter(rows.view(-1, 1, 1), token), rows.unsqueeze(1))
            if number == 0:
                self.content_sum = self.content_sum.masked_fill(rows.unsqueeze(1), 0.0)

    @torch.no_grad()
    def reveal(
        self, patches: Int[Tensor, "B K"], present: Bool[Tensor, "B K"] | None = None
    ) -> None:
        """Reveal K patches per image at once, which see one another.

        One patch is a fixation, several are a segment.

        Args:
            patches: what is revealed.
            present: True = real, False = padding; None = all are real.

        Raises:
            ValueError: more is revealed than :meth:`start` made room for.
        """
        if present is not None:
            # What is real comes first in its row, so that the places of a cache fill up in turn.
            first = present.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
            patches, present = patches.gather(1, first), present.gather(1, first)
        self._append(take(self.patches, patches), present)

    @torch.no_grad()
    def predict(self, positions: Int[Tensor, "B K"] | None = None) -> Prediction:
        """Predict patches from what has been revealed.

        Args:
            positions: what is predicted, K patches of each image; None = all N, in raster order.
        """
        num_rows, table = len(self.content), self.model.decoder.position
        num_values = len(table) if positions is None else positions.shape[1]
        num_values *= table.shape[1]
        at_once = max(1, CACHED_VALUES // num_values) if table.is_cpu else num_rows
        parts = [
            self._predict_rows(slice(first, first + at_once), positions)
            for first in range(0, num_rows, at_once)
        ]
        if len(parts) == 1:
            return parts[0]
        return Prediction(
            *(
                torch.cat([getattr(part, field.name) for part in parts])
                for field in fields(parts[0])
            )
        )

    def _predict_rows(self, rows: slice, positions: Int[Tensor, "B K"] | None) -> Prediction:
        assert self.at is not None, "a scan begins with Scan.start"
        mask = None if self.at.may_attend is None else self.at.may_attend[rows]
        memory = [cache.first(self.at.length, rows) for cache in self.decoder_caches]
        return self.decoding.predict(memory, mask, None if positions is None else positions[rows])

    def take(self, rows: Int[Tensor, "R"]) -> Scan:
        """Return an independent scan of the chosen rows; one may be chosen several times."""
        return Scan(
            model=self.model,
            encoding=self.encoding,
            decoding=self.decoding,
            patches=self.patches.index_select(0, rows),
            content=self.content[rows],
            content_sum=self.content_sum[rows],
            encoder_caches=[cache.take(rows) for cache in self.encoder_caches],
            decoder_caches=[cache.take(rows) for cache in self.decoder_caches],
            lengths=self.lengths[rows],
            capacity=self.capacity,
            at=None if self.at is None else self.at.take(rows),
            static=self.static,
        )

    def repeat(self, times: int) -> Scan:
        """Return an independent scan in which every row stands ``times`` times in succession."""
        rows = torch.arange(len(self.content), device=self.content.device)
        return self.take(rows.repeat_interleave(times))

    def make_room(self, num_patches: int) -> None:
        """Make sure that so many more patches can be revealed in every row; not if static."""
        length = 0 if self.at is None else self.at.length
        if self.static or length + num_patches <= self.capacity:
            return
        room = length + num_patches
        for caches in (self.encoder_caches, self.decoder_caches):
            caches[:] = [cache.resized(room + 1) for cache in caches]
        self.capacity = room

    def _append(
        self, tokens: Float[Tensor, "B K D"], present: Bool[Tensor, "B K"] | None
    ) -> Float[Tensor, "B K D"]:
        """Encode new tokens behind those of each row, and return their states."""
        self.at = at = self._place(tokens.shape[1], present)
        layers = self.encoding.append(tokens, self.encoder_caches, at)
        memories = self.model.decoder.memories(layers)
        for reader, cache, memory in zip(
            self.decoding.readers, self.decoder_caches, memories, strict=True
        ):
            reader.remember(memory, cache, at)
        states = layers[-1] if present is None else layers[-1] * present.unsqueeze(-1)
        self.content_sum = self.content_sum + states.sum(1)
        if present is None:
            self.content = layers[-1][:, -1]
        else:
            num_real = present.sum(1)
            rows = torch.arange(len(num_real), device=num_real.device)
            newest = layers[-1][rows, (num_real - 1).clamp_min(0)]
            self.content = torch.where(num_real.unsqueeze(1) > 0, newest, self.content)
        return states

    def _place(self, num_tokens: int, present: Bool[Tensor, "B K"] | None) -> CachePlace:
        """Make room for new tokens behind those of each row."""
        before = 0 if self.at is None else self.at.length
        # Rows that stay equally long need no look at the lengths, which would wait for the device.
        unmasked = self.at is None or self.at.may_attend is None
        aligned = present is None and unmasked and not self.static
        place = None
        if not aligned:
            place = self.lengths.unsqueeze(1) + torch.arange(num_tokens, device=self.lengths.device)
        if present is None:
            self.lengths = self.lengths + num_tokens
        else:
            assert place is not None, "rows with padding are not equally long"
            place = place.masked_fill(~present, self.capacity)
            self.lengths = self.lengths + present.sum(1)
        if self.static:
            assert place is not None, "a static scan names the place of every token"
            # One more place takes the padding, and what there is no room for.
            place, length = place.clamp_max(self.capacity), self.capacity
            self.lengths = self.lengths.clamp_max(self.capacity)
            return CachePlace(length, place, self._filled(length))
        length = before + num_tokens if aligned else int(self.lengths.max())
        if length > self.capacity:
            raise ValueError(
                f"the scan has room for {self.capacity - self.model.num_always} patches; "
                "start it with a larger budget"
            )
        if aligned:
            # What every order sees first is causal, and comes before all else.
            return CachePlace(length, is_causal=before == 0 and num_tokens > 1)
        return CachePlace(length, place, self._filled(length))

    def _filled(self, length: int) -> Bool[Tensor, "B 1 1 L"]:
        """Return which of the first places hold a token of each row."""
        places = torch.arange(length, device=self.lengths.device)
        return (places < self.lengths.unsqueeze(1))[:, None, None]
