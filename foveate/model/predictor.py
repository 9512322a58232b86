"""Predictions in an order: each patch from any set of patches revealed before it.

The encoder reads the patches seen so far, in rank order; a decoder of position queries reads what
has been revealed and predicts the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foveate.config import ModelConfig
from foveate.model.attention import CrossAttentionBlock, shared_counts
from foveate.model.decoder import Decoder, Prediction
from foveate.model.encoder import PatchEncoder
from foveate.model.initialization import start_as_xavier
from foveate.model.tracks import TrackReader
from foveate.orders import check_rank, rank_to_order
from foveate.patches import UNSEEN_GRAY


@dataclass(frozen=True)
class InTurn:
    """Predictions of all patches, in raster order, each from the ranks before its own."""

    prediction: Prediction
    predicted: Bool[Tensor, "B N"]
    """True = there is a prediction; elsewhere its values mean nothing."""
    seen: Prediction | None
    """What the second decoder says of each patch from its own rank on; None without one."""


class AnyOrderPredictor(PatchEncoder):
    """An encoder and the decoders that read it: predictions for a given order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        position = self.start_and_position()[1].detach()[0, 1:]
        self.decoder = Decoder(config, position, self.target.dim)
        if config.visible_decoder:
            self.visible_decoder = Decoder(config, position, self.target.dim)
        if config.vocabulary:
            self.reader = TrackReader(config.embed_dim, len(config.vocabulary), config.max_words)
        if config.init == "xavier":
            # All but the target, whose start is its own.
            start_as_xavier(*(part for part in self.children() if part is not self.target))

    def decoder_blocks(self) -> list[CrossAttentionBlock]:
        """Return the decoder's blocks, of one that is not joint."""
        return cast("list[CrossAttentionBlock]", list(self.decoder.blocks))

    def decode(
        self,
        layers: tuple[Float[Tensor, "B S D"], ...],
        positions: Int[Tensor, "B Q"],
        counts: Int[Tensor, "B Q"],
    ) -> Prediction:
        """Predict the patches at ``positions``, each from the first ``counts`` sorted patches.

        Looks whether all images agree in their counts, for which the host waits for the device.
        """
        prediction: Prediction = self.decoder(layers, positions, shared_counts(counts))
        return prediction

    def picture(self, values: Float[Tensor, "*B T"]) -> Float[Tensor, "*B P"]:
        """Return predicted patches as pixels in [0, 1], not clamped; gray if none are predicted."""
        pixels = self.target.pixels_in(values)
        if pixels is None:
            return values.new_full((*values.shape[:-1], self.config.patch_dim), UNSEEN_GRAY)
        return self.denormalize(pixels)

    # --- each patch in turn

    def predict_in_turn(
        self,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        *,
        ties: bool | None = None,
        last_rank: int | None = None,
    ) -> InTurn:
        """Predict each patch once, from the patches of lower rank.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0.
            ties: as of :meth:`forward`.
            last_rank: as of :meth:`forward`.

        Raises:
            ValueError: the parts do not take this order: without a decoder a causal stream decodes
                one patch per step; a masked stream and a joint decoder know only ranks 0 (visible)
                and 1 (hidden); or they predict nothing of it.
        """
        self._check_rank(images, rank, ties)
        if ties is None:
            self._check_turns(rank)
        always, patches = self.embed(images)
        first_is_predicted = self.config.predict_first
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        counts = torch.searchsorted(sorted_rank, sorted_rank)
        seen: Prediction | None = None
        if self.config.stream == "masked":
            prediction = self._fill_in(always, patches, rank)
            return InTurn(prediction, rank > 0, None)
        if self.config.decoder_depth == 0:
            prediction = self._predict_next(always, patches, order, counts, ties)
        else:
            length = self._num_before_last(counts, ties, last_rank)
            layers = self.encode_first(always, patches, order, sorted_rank, length, ties)
            # A joint decoder holds the visible patches themselves, not queries for them.
            num_left_out = length if self.config.lateral == "joint" else 0
            first_is_predicted = first_is_predicted and not num_left_out
            agree = None if ties is None else not ties
            prediction = self.decoder(
                layers, order[:, num_left_out:], shared_counts(counts[:, num_left_out:], agree)
            )
            # Empty predictions stand for those that are left out.
            prediction = prediction.map(lambda each: F.pad(each, (0, 0, num_left_out, 0)))
            if self.config.visible_decoder:
                through = torch.searchsorted(sorted_rank, sorted_rank, right=True)
                seen = self.visible_decoder(layers, order, shared_counts(through, agree))
        place = rank_to_order(order)
        return InTurn(
            prediction.take(place),
            torch.ones_like(rank, dtype=torch.bool) if first_is_predicted else rank > 0,
            None if seen is None else seen.take(place),
        )

    def _check_rank(self, images: Tensor, rank: Tensor, ties: bool | None) -> None:
        """Refuse what is no rank of the images; who states the ties vouches for the values."""
        if ties is None or rank.shape[1:] != (self.num_patches,):
            check_rank(rank, self.num_patches)
        if not len(images):
            raise ValueError("the model takes one image or more, got none")
        if len(rank) != len(images):
            raise ValueError(
                f"rank must have a row for each of {len(images)} images, got {len(rank)}; "
                "repeat one for all: rank.expand(len(images), -1)"
            )

    def _check_turns(self, rank: Int[Tensor, "B N"]) -> None:
        """Refuse ranks of which the parts predict nothing, or that they do not know."""
        if not self.config.predict_first and not bool((rank > 0).any()):
            raise ValueError(
                "there is nothing to predict: all patches come first, and what comes first is not "
                "predicted; use a finer grid or another order"
            )
        if self.config.ranks == "two" and bool((rank > 1).any()):
            raise ValueError(
                "a masked stream and a joint decoder know ranks 0 (visible) and 1 (hidden) only; "
                "use an order with two ranks, as random_subset"
            )

    def _num_before_last(
        self, counts: Int[Tensor, "B N"], ties: bool | None, last_rank: int | None
    ) -> int:
        """Return how many patches come before the last rank, at most: those that are encoded.

        Raises:
            ValueError: images differ in it, and the decoder is joint.
        """
        if ties is False and last_rank is not None:
            return last_rank
        fewest, most = torch.stack(counts[:, -1].aminmax()).tolist()
        if self.config.lateral == "joint" and fewest != most:
            raise ValueError(
                "a joint decoder predicts one group of patches from one visible group, of "
                "one size in all images; use an order with two ranks, as random_subset"
            )
        return int(most)

    def _predict_next(
        self,
        always: Float[Tensor, "B A D"],
        patches: Float[Tensor, "B N D"],
        order: Int[Tensor, "B N"],
        counts: Int[Tensor, "B N"],
        ties: bool | None,
    ) -> Prediction:
        """Predict, without a decoder, each patch from the state of the one before it.

        Raises:
            ValueError: patches tie.
        """
        places = torch.arange(self.num_patches, device=order.device)
        if ties is not False and bool((counts != places).any()):
            raise ValueError(
                "without a decoder patches are decoded one by one: "
                "the order must not hold patches of equal rank"
            )
        layers = self.encode_tokens(always, patches, order, counts[:, 1:], False)
        return self.decoder.read_out(layers[-1][:, self.num_always - 1 :])

    def _fill_in(
        self,
        always: Float[Tensor, "B A D"],
        patches: Float[Tensor, "B N D"],
        rank: Int[Tensor, "B N"],
    ) -> Prediction:
        """Predict in place what a mask token hides."""
        _, position = self.start_and_position()
        hidden = (rank > 0).unsqueeze(-1)
        tokens = torch.where(hidden, self.mask_token + position[:, 1:], patches)
        layers = self.run_blocks(torch.cat([always, tokens], dim=1), None)
        return self.decoder.read_out(layers[-1][:, self.num_always :])

    def encode_first(
        self,
        always: Float[Tensor, "B A D"],
        patches: Float[Tensor, "B N D"],
        order: Int[Tensor, "B N"],
        sorted_rank: Int[Tensor, "B N"],
        length: int,
        ties: bool | None = None,
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Encode the first ``length`` patches in rank order, ties seeing one another.

        Args:
            always: embedded always-visible tokens, see :meth:`embed`.
            patches: embedded patches.
            order: patches by rank.
            sorted_rank: their ranks.
            length: patches that are encoded.
            ties: whether any tie; None = not known.
        """
        counts = torch.searchsorted(sorted_rank, sorted_rank[:, :length].contiguous(), right=True)
        return self.encode_tokens(always, patches, order, counts.clamp(max=length), ties)

    def encode_after(
        self, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"], after: Sequence[int]
    ) -> tuple[tuple[Float[Tensor, "B S D"], ...], Int[Tensor, "B N"], Int[Tensor, "B K"]]:
        """Encode the always-visible tokens and what a scan sees, in one causal pass.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0.
            after: numbers of steps.

        Returns:
            The tokens after every block; the patches by rank; and how many of these are visible
            after each number of steps.
        """
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        counts = torch.searchsorted(
            sorted_rank, torch.tensor([*after], device=rank.device).repeat(len(rank), 1)
        )
        layers = self.encode_first(*self.embed(images), order, sorted_rank, int(counts.max()))
        return layers, order, counts

    def decode_everywhere(
        self, layers: tuple[Float[Tensor, "B S D"], ...], counts: Int[Tensor, "B K"]
    ) -> Prediction:
        """Predict all N patches from each of K prefixes of the encoded patches, (B, K N, ...)."""
        places = torch.arange(self.num_patches, device=counts.device).repeat(counts.shape[1])
        visible = counts.repeat_interleave(self.num_patches, dim=1)
        return self.decode(layers, places.expand(len(counts), -1), visible)
