"""The any-order autoregressive vision transformer.

An encoder reads the patches seen so far; a decoder of position queries reads what has been revealed
and predicts the rest. What the stream holds, what the decoder reads, and what it predicts are parts
of the config (``foveate.recipes`` lists the published combinations). An order enters only as
``rank``: ``rank = ordering(images); loss = model(images, rank)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from foveate.config import ModelConfig
from foveate.model.attention import CrossAttentionBlock
from foveate.model.decoder import Decoder, Prediction
from foveate.model.encoder import PIXEL_MEAN, PIXEL_STD, PatchEncoder, take
from foveate.model.tracks import TrackReader
from foveate.orders import check_rank, order_to_rank, rank_to_order
from foveate.targets import blur, color_error, cosine_error, normalize_patches, squared_error


@dataclass(frozen=True)
class InTurn:
    """Predictions of all patches, in raster order, each from the ranks before its own."""

    prediction: Prediction
    predicted: Bool[Tensor, "B N"]
    """True = there is a prediction; elsewhere its values mean nothing."""
    seen: Prediction | None
    """What the second decoder says of each patch from its own rank on; None without one."""


class AnyOrderTransformer(PatchEncoder):
    """Predict any patch from any set of patches revealed before it.

    Reference: SAIM (Qi et al. 2023, arXiv 2212.01610) for image prediction in any order; ARPG
    (hp-l33/ARPG) for queries that attend to content only. Differs, by default: queries read the
    encoder's last layer, and every prefix predicts several unseen patches instead of the next one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        position = self.start_and_position()[1].detach()[0, 1:]
        self.decoder = Decoder(config, position)
        if config.visible_decoder:
            self.visible_decoder = Decoder(config, position)
        if config.vocabulary:
            self.reader = TrackReader(config.embed_dim, len(config.vocabulary), config.max_words)

    def decoder_blocks(self) -> list[CrossAttentionBlock]:
        """Return the decoder's blocks, of one that is not joint."""
        return cast("list[CrossAttentionBlock]", list(self.decoder.blocks))

    def decode(
        self,
        layers: tuple[Float[Tensor, "B S D"], ...],
        positions: Int[Tensor, "B Q"],
        counts: Int[Tensor, "B Q"],
    ) -> Prediction:
        """Predict the patches at ``positions``, each from the first ``counts`` sorted patches."""
        prediction: Prediction = self.decoder(layers, positions, counts)
        return prediction

    # --- each patch in turn

    def predict_in_turn(self, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"]) -> InTurn:
        """Predict each patch once, from the patches of lower rank.

        Raises:
            ValueError: the parts do not take this order: without a decoder a causal stream decodes
                one patch per step; a masked stream and a joint decoder know only ranks 0 (visible)
                and 1 (hidden); or they predict nothing of it.
        """
        check_rank(rank, self.num_patches)
        always, patches = self.embed(images)
        first_is_predicted = self.config.predict_first
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        counts = torch.searchsorted(sorted_rank, sorted_rank)
        seen: Prediction | None = None
        if not first_is_predicted and not bool((rank > 0).any()):
            raise ValueError(
                "there is nothing to predict: all patches come first, and what comes first is not "
                "predicted; use a finer grid or another order"
            )
        if self.config.ranks == "two" and bool((rank > 1).any()):
            raise ValueError(
                "a masked stream and a joint decoder know ranks 0 (visible) and 1 (hidden) only; "
                "use an order with two ranks, as random_subset"
            )
        if self.config.stream == "masked":
            prediction = self._fill_in(always, patches, rank)
            return InTurn(prediction, rank > 0, None)
        if self.config.decoder_depth == 0:
            if bool((counts != torch.arange(self.num_patches, device=rank.device)).any()):
                raise ValueError(
                    "without a decoder patches are decoded one by one: "
                    "the order must not hold patches of equal rank"
                )
            layers = self.encode_tokens(always, patches, order, counts[:, 1:])
            prediction = self.decoder.read_out(layers[-1][:, self.num_always - 1 :])
        else:
            length = int(counts.max())
            layers = self._encode_first(always, patches, order, sorted_rank, length)
            # A joint decoder holds the visible patches themselves, not queries for them.
            num_left_out = length if self.config.lateral == "joint" else 0
            first_is_predicted = first_is_predicted and not num_left_out
            prediction = self.decode(layers, order[:, num_left_out:], counts[:, num_left_out:])
            # Empty predictions stand for those that are left out.
            prediction = prediction.map(lambda each: F.pad(each, (0, 0, num_left_out, 0)))
            if self.config.visible_decoder:
                through = torch.searchsorted(sorted_rank, sorted_rank, right=True)
                seen = self.visible_decoder(layers, order, through)
        place = rank_to_order(order)
        return InTurn(
            prediction.take(place),
            torch.ones_like(rank, dtype=torch.bool) if first_is_predicted else rank > 0,
            None if seen is None else seen.take(place),
        )

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

    def _encode_first(
        self,
        always: Float[Tensor, "B A D"],
        patches: Float[Tensor, "B N D"],
        order: Int[Tensor, "B N"],
        sorted_rank: Int[Tensor, "B N"],
        length: int,
    ) -> tuple[Float[Tensor, "B S D"], ...]:
        """Encode the first ``length`` patches in rank order, ties seeing one another."""
        counts = torch.searchsorted(sorted_rank, sorted_rank[:, :length].contiguous(), right=True)
        return self.encode_tokens(always, patches, order, counts.clamp(max=length))

    # --- training

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        *,
        num_steps: int | None = None,
        generator: torch.Generator | None = None,
        features: Float[Tensor, "B N F"] | None = None,
        anchors: Int[Tensor, "B K"] | None = None,
        words: Int[Tensor, "B K L"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of predicting patches from those of lower rank, and words at some of them.

        With ``queries="own"`` each patch is predicted once, from the ranks before its own. With
        ``"unseen"``, after step t the patches of rank < t are visible and random others are
        predicted; patches of a row's highest rank are never revealed, so ``rank.clamp(max=T)``
        makes a scan of T steps.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0; patches of equal rank are revealed together.
            num_steps: steps supervised per image, drawn at random; None = all, from the
                empty prefix on. Own queries take all.
            generator: randomness of steps and targets, on the CPU; own queries have none.
            features: what is predicted of each patch with target="features".
            anchors: the patches at which tracks of words start; None = no words.
            words: the words of each track; -1 = padding.

        Raises:
            ValueError: rank has another shape than (B, N) or negative entries, the config's parts
                do not take this order or need features, or anchors come without words.
        """
        check_rank(rank, self.num_patches)
        if (anchors is None) != (words is None):
            raise ValueError("anchors and words go together")
        if anchors is not None and words is not None:
            # The sum of a generative and a reading loss, as iGPT's Sec. 2.3 adds its classifier's.
            reading = self.reader.loss(self, images, anchors, words)
            return reading + self(
                images, rank, num_steps=num_steps, generator=generator, features=features
            )
        if self.config.queries == "own":
            turn = self.predict_in_turn(images, rank)
            targets = self.all_targets(images, features)
            loss = self.loss(turn.prediction, targets, turn.predicted)
            if turn.seen is not None:
                # The last group is never encoded, hence not visible to anything.
                loss = loss + self.loss(turn.seen, targets, rank < rank.amax(1, keepdim=True))
            return loss
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        last = sorted_rank[:, -1:]
        steps = torch.arange(int(last.max()) + 1, device=rank.device).expand(len(rank), -1)
        if num_steps is not None and num_steps < steps.shape[1]:
            noise = torch.rand(steps.shape, generator=generator)
            steps = noise.topk(num_steps, dim=1).indices.to(rank.device)
        # Whatever the ties, what is visible after t steps is a prefix of the patches in rank order.
        counts = torch.searchsorted(sorted_rank, torch.minimum(steps, last))
        positions = order.gather(1, self._unseen_places(counts, generator).flatten(1))

        layers = self._encode_first(*self.embed(images), order, sorted_rank, int(counts.max()))
        prediction = self.decode(
            layers, positions, counts.repeat_interleave(self.config.num_targets, dim=1)
        )
        return self.loss(prediction, take(self.all_targets(images, features), positions))

    def _unseen_places(
        self, counts: Int[Tensor, "B S"], generator: torch.Generator | None
    ) -> Int[Tensor, "B S M"]:
        """Draw M of the sorted places that follow the first ``counts``.

        They are spread evenly, with one random shift for all M.
        """
        shift = torch.rand(*counts.shape, 1, generator=generator).to(counts.device)
        spacing = (
            torch.arange(self.config.num_targets, device=counts.device) / self.config.num_targets
        )
        unseen = (self.num_patches - counts).unsqueeze(-1)
        offset = ((shift + spacing) % 1 * unseen).long()
        return counts.unsqueeze(-1) + torch.minimum(offset, unseen - 1)

    def all_targets(
        self, images: Float[Tensor, "B C H W"], features: Float[Tensor, "B N F"] | None = None
    ) -> Num[Tensor, "B N T"]:
        """Return what is to be predicted of every patch: pixel values, color ids, or features."""
        kind = self.config.target
        if (kind == "features") != (features is not None):
            raise ValueError(
                f"target={kind!r} {'needs features' if features is None else 'takes no features'}"
            )
        if features is not None:
            return features
        if kind == "colors":
            return self.color_ids(images)
        pixels = self.normalize(images)
        if kind == "pixels":
            return self.patchify(pixels)
        # A convolution in half precision would be amplified on flat patches.
        with torch.autocast(images.device.type, enabled=False):
            return normalize_patches(self.patchify(blur(pixels) if kind == "blurred" else pixels))

    def patch_loss(
        self, values: Float[Tensor, "B Q T"], targets: Num[Tensor, "B Q S"]
    ) -> Float[Tensor, "B Q"]:
        """Loss of each prediction: squared error, ``2 - 2 cos``, or cross-entropy in nats."""
        values = values.float()
        if self.config.target == "colors":
            return color_error(values, targets, self.config.label_smoothing)
        if self.config.target == "features":
            return cosine_error(values, targets)
        return squared_error(values, targets)

    def loss(
        self,
        prediction: Prediction,
        targets: Num[Tensor, "B Q S"],
        predicted: Bool[Tensor, "B Q"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of the predictions, and, of raw pixels, the likelihood of its uncertainty.

        ``mean(e) + w * mean(e.detach() * exp(-s) + s)``: the second term is smallest at
        s = log E[e], the expected error itself (an exponential likelihood), and leaves the pixels'
        gradient alone.

        Args:
            prediction: of Q patches.
            targets: what they are.
            predicted: which predictions count (True = counts); None = all.
        """
        error = self.patch_loss(prediction.values, targets)
        weight = torch.ones_like(error) if predicted is None else predicted.to(error.dtype)
        weight = weight / weight.sum().clamp_min(1)
        total = (error * weight).sum()
        if prediction.log_error is None:
            return total
        log_error = prediction.log_error.clamp(min=-8.0)
        calibration = ((error.detach() * (-log_error).exp() + log_error) * weight).sum()
        return total + self.config.error_loss_weight * calibration

    # --- evaluation

    def predict_scan(
        self, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"], num_steps: int
    ) -> Float[Tensor, "B S N P"]:
        """Predict every patch after each of the first steps of an order, in one parallel pass.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0.
            num_steps: steps taken, S = num_steps + 1.

        Returns:
            Normalized pixels; entry t has seen the patches of rank < t.
        """
        self.check_scannable()
        check_rank(rank, self.num_patches)
        order = rank_to_order(rank)
        sorted_rank = rank.gather(1, order)
        steps = torch.arange(num_steps + 1, device=rank.device).repeat(len(rank), 1)
        counts = torch.searchsorted(sorted_rank, steps)
        layers = self._encode_first(*self.embed(images), order, sorted_rank, int(counts.max()))
        positions = torch.arange(self.num_patches, device=rank.device).repeat(num_steps + 1)
        values = self.decode(
            layers,
            positions.expand(len(rank), -1),
            counts.repeat_interleave(self.num_patches, dim=1),
        ).values
        return values.unflatten(1, (num_steps + 1, self.num_patches))

    @torch.no_grad()
    def error_curve(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T *K"]
    ) -> Float[Tensor, "B S"]:
        """Error of what is still unseen after 0..T fixations, over that before the first one.

        A fixation is a patch, (B, T), or a segment, (B, T, K), padded with -1.

        Squared raw-pixel error summed over the unseen patches: the error of the canvas that shows
        true pixels where the scan has been and the prediction elsewhere. Entry 0 is 1.
        """
        rank, num_steps = order_to_rank(order, self.num_patches), order.shape[1]
        targets = self.patchify(self.normalize(images)).unsqueeze(1)
        error = (self.predict_scan(images, rank, num_steps) - targets).square().mean(-1)
        remaining = (error * ~self._seen(rank, num_steps)).sum(-1)
        return remaining / remaining[:, :1].clamp_min(1e-12)

    @staticmethod
    def _seen(rank: Int[Tensor, "B N"], num_steps: int) -> Bool[Tensor, "B S N"]:
        """Which patches have been seen after 0..num_steps steps (True = seen)."""
        steps = torch.arange(num_steps + 1, device=rank.device).view(1, -1, 1)
        return rank.unsqueeze(1) < steps

    @torch.no_grad()
    def reconstructions(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T *K"]
    ) -> Float[Tensor, "B S C H W"]:
        """Draw the canvas after 0..T fixations, in [0, 1]: the truth where seen, else predicted."""
        rank, num_steps = order_to_rank(order, self.num_patches), order.shape[1]
        predicted = self.predict_scan(images, rank, num_steps) * PIXEL_STD + PIXEL_MEAN
        seen = self._seen(rank, num_steps).unsqueeze(-1)
        canvas = torch.where(seen, self.patchify(images).unsqueeze(1), predicted.clamp(0, 1))
        return self.unpatchify(canvas.flatten(0, 1)).unflatten(0, canvas.shape[:2])

    def check_scannable(self) -> None:
        """Raise ValueError unless any position can be predicted, as pixels, after any fixation."""
        if not self.config.scannable:
            raise ValueError(
                "only a causal stream whose decoder predicts raw pixels, without lateral "
                "attention, can scan; this model has "
                f"stream={self.config.stream!r}, decoder_depth={self.config.decoder_depth}, "
                f"lateral={self.config.lateral!r}, target={self.config.target!r}"
            )
