"""The any-order autoregressive vision transformer.

An encoder reads the patches seen so far; a decoder of position queries reads what has been revealed
and predicts the rest. What the stream holds, what the decoder reads, and what it predicts are parts
of the config (``foveate.recipes`` lists the published combinations). An order enters only as
``rank``: ``rank = ordering(images); loss = model(images, rank)``.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from foveate.choices import blaming
from foveate.config import ModelConfig
from foveate.errors import expected_error_loss, unseen_error
from foveate.model.asking import AskingPredictor, Emphasis
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.orders import order_to_rank
from foveate.orders.ranks import as_segments, check_steps
from foveate.targets import Features


def check_pixels(images: Float[Tensor, "B C H W"]) -> None:
    """Raise ValueError unless pixels lie in [0, 1], which resizing may leave by a hair."""
    low, high = (float(each) for each in images.aminmax())
    if not -0.01 <= low <= high <= 1.01:
        raise ValueError(
            f"the model takes pixels in [0, 1], got {low:g} to {high:g}; divide 0..255 by 255"
        )


def check_words(config: ModelConfig, words: Tensor | None, *of_words: Tensor | None) -> None:
    """Raise ValueError unless a model takes words, or is given nothing that belongs to them."""
    if words is None and any(each is not None for each in of_words):
        raise ValueError("anchors, word_steps and words_read need words")
    if not (words is None or config.vocabulary):
        raise ValueError("words need a model with a vocabulary")


class AnyOrderTransformer(AskingPredictor):
    """Predict any patch from any set of patches revealed before it.

    Reference: SAIM (Qi et al. 2023, arXiv 2212.01610) for image prediction in any order; ARPG
    (hp-l33/ARPG) for queries that attend to content only. Differs, by default: queries read the
    encoder's last layer, and every prefix predicts several unseen patches instead of the next one.
    """

    # --- training

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        *,
        ties: bool | None = None,
        last_rank: int | None = None,
        num_steps: int | None = None,
        generator: torch.Generator | None = None,
        features: Float[Tensor, "B N F"] | None = None,
        anchors: Int[Tensor, "B K"] | None = None,
        words: Int[Tensor, "B K L"] | None = None,
        emphasis: Emphasis | None = None,
        word_steps: Int[Tensor, "B"] | None = None,
        words_read: Int[Tensor, "B R L"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of predicting patches from those of lower rank, and words about the image.

        With ``queries="own"`` each patch is predicted once, from the ranks before its own. With
        ``"unseen"``, after step t the patches of rank < t are visible and random others are
        predicted; patches of a row's highest rank are never revealed, so ``rank.clamp(max=T)``
        makes a scan of T steps.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0; patches of equal rank are revealed together.
            ties: whether patches before the last rank may tie. False promises that they do not, and
                that all images take equally many steps. A caller who states it vouches for the
                ranks: their values are not checked, and the host does not wait for the device.
                None = look, and check.
            last_rank: the highest rank of every image, if the caller knows it; None = look.
            num_steps: steps supervised per image, drawn at random; None = all, from the
                empty prefix on. Own queries take all.
            generator: randomness of steps and targets, on the CPU; own queries have none.
            features: of each patch, for a target that holds features; None = the teacher's.
            anchors: the patches at which tracks of words start; None = they have no place.
            words: the words of each track; -1 = padding; None = no words.
            emphasis: which of the patches asked count more, or are asked; None = all alike.
            word_steps: the words read the patches of rank < word_steps, -1 = not even the
                periphery; None = all patches.
            words_read: what later words read instead, -1 = nothing, in R = K tracks or in one.

        Raises:
            ValueError: there are no images, rank has another shape than (B, N), negative entries
                or, where ``ties`` says nothing, a gap; or the config's parts do not take this order
                or emphasis, or need features or words.
        """
        config = self.config
        check_words(config, words, anchors, word_steps, words_read)
        order = images, rank, ties, last_rank, num_steps, generator, features, emphasis
        if words is None:
            return self._loss_of_order(*order)
        # The sum of a generative and a reading loss, as iGPT's Sec. 2.3 adds its classifier's.
        loss = torch.zeros((), device=images.device)
        if config.word_weight > 0:
            about = self, images, anchors, words, rank, word_steps, words_read
            loss = config.word_weight * self.reader.loss(*about)
        if config.image_weight > 0:
            loss = loss + config.image_weight * self._loss_of_order(*order)
        return loss

    def _loss_of_order(
        self,
        images: Float[Tensor, "B C H W"],
        rank: Int[Tensor, "B N"],
        ties: bool | None,
        last_rank: int | None,
        num_steps: int | None,
        generator: torch.Generator | None,
        features: Float[Tensor, "B N F"] | None,
        emphasis: Emphasis | None,
    ) -> Float[Tensor, ""]:
        """Mean loss of predicting patches from those of lower rank."""
        if self.config.queries == "own":
            turn = self.predict_in_turn(images, rank, ties=ties, last_rank=last_rank)
            targets = self.targets(images, features)
            weights = None if emphasis is None else self._weights_in_turn(turn, emphasis)
            loss = self.loss(turn.prediction, targets, turn.predicted, weights)
            if turn.seen is not None:
                # The last group is never encoded, hence not visible to anything.
                loss = loss + self.loss(turn.seen, targets, rank < rank.amax(1, keepdim=True))
            return loss
        self._check_rank(images, rank, ties)
        if ties is None:
            check_steps(rank)
        prediction, positions, weights = self.predict_unseen(
            images, rank, ties, last_rank, num_steps, generator, emphasis
        )
        targets = take(self.targets(images, features), positions)
        return self.loss(prediction, targets, weights=weights)

    def targets(
        self, images: Float[Tensor, "B C H W"], features: Float[Tensor, "B N F"] | None = None
    ) -> Num[Tensor, "B N S"]:
        """Return what is to be predicted of every patch.

        Args:
            images: pixels in [0, 1].
            features: those of a target that holds features; None = the teacher's.

        Raises:
            ValueError: the target takes no features, has no teacher, or what it returns is not of
                patches.
        """
        # In half precision the values of flat patches would be amplified noise.
        place = images.device.type
        casts = torch.amp.is_autocast_available(place)
        with torch.autocast(place, enabled=False) if casts else nullcontext():
            if features is None:
                targets = self.target.of(images)
            elif isinstance(self.target, Features):
                targets = self.target.of(images, features)
            else:
                raise ValueError(f"target={self.config.target!r} takes no features")
        if targets.ndim != 3 or targets.shape[:2] != (len(images), self.num_patches):
            wanted = f"({len(images)}, {self.num_patches}, values)"
            raise ValueError(
                f"target {self.config.target!r} must return {wanted} of these images, "
                f"got {tuple(targets.shape)}"
            )
        return targets

    def loss(
        self,
        prediction: Prediction,
        targets: Num[Tensor, "B Q S"],
        predicted: Bool[Tensor, "B Q"] | None = None,
        weights: Float[Tensor, "B Q"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of the predictions, and, if it is expected, the likelihood of its uncertainty.

        ``mean(v e) + w * mean(e.detach() * exp(-s) + s)``: the second term, of
        :func:`~foveate.errors.expected_error_loss`, leaves the gradient of the values alone. The
        weights v do not enter it, so that the expected error is
        that of the patch, whatever it counts.

        Args:
            prediction: of Q patches.
            targets: what they are.
            predicted: which predictions count (True = counts); None = all.
            weights: how much the loss of each counts, mean 1; None = 1.
        """
        own = ":" in self.config.target
        with blaming("target", self.config.target, ", its loss") if own else nullcontext():
            error = self.target.loss(prediction.values.float(), targets)
        if error.shape != targets.shape[:2]:
            raise ValueError(
                f"the loss of target {self.config.target!r} must be one number for each patch, "
                f"{tuple(targets.shape[:2])}, got {tuple(error.shape)}"
            )
        weight = torch.ones_like(error) if predicted is None else predicted.to(error.dtype)
        weight = weight / weight.sum().clamp_min(1)
        total = (error * (weight if weights is None else weight * weights)).sum()
        if prediction.log_error is None:
            return total
        calibration = expected_error_loss(error.detach(), prediction.log_error)
        return total + self.config.error_loss_weight * (calibration * weight).sum()

    # --- evaluation

    def predict_scan(
        self, images: Float[Tensor, "B C H W"], rank: Int[Tensor, "B N"], num_steps: int
    ) -> Float[Tensor, "B S N T"]:
        """Predict every patch after each of the first steps of an order, in one parallel pass.

        Args:
            images: pixels in [0, 1].
            rank: decoding step of every patch, from 0.
            num_steps: steps taken, S = num_steps + 1.

        Returns:
            Values of the target, such as normalized pixels; entry t has seen the patches of
            rank < t.
        """
        self.check_scannable()
        self._check_rank(images, rank, None)
        layers, _, counts = self.encode_after(images, rank, range(num_steps + 1))
        values = self.decode_everywhere(layers, counts).values
        return values.unflatten(1, (num_steps + 1, self.num_patches))

    @torch.no_grad()
    def error_curve(
        self, images: Float[Tensor, "B C H W"], order: Int[Tensor, "B T *K"]
    ) -> Float[Tensor, "B S"]:
        """Error of what is still unseen after 0..T fixations, over that before the first one.

        A fixation is a patch, (B, T), -1 if it showed nothing new, or a segment, (B, T, K), padded
        with -1.

        The target's loss summed over the unseen patches; of raw pixels the squared error of the
        canvas that shows true pixels where the scan has been and the prediction elsewhere. Entry 0
        is 1, or 0 of an image without any error.

        Raises:
            ValueError: pixels do not lie in [0, 1].
        """
        check_pixels(images)
        rank, num_steps = order_to_rank(as_segments(order), self.num_patches), order.shape[1]
        predicted = self.predict_scan(images, rank, num_steps)
        targets, unseen = self.targets(images).unsqueeze(1), ~self._seen(rank, num_steps)
        remaining = unseen_error(self.target, predicted, targets, unseen).sum(-1)
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
        """Draw the canvas after 0..T fixations, in [0, 1]: the truth where seen, else predicted.

        Where features alone are predicted, which cannot be drawn, it is gray instead.

        Raises:
            ValueError: pixels do not lie in [0, 1].
        """
        check_pixels(images)
        rank, num_steps = order_to_rank(as_segments(order), self.num_patches), order.shape[1]
        predicted = self.picture(self.predict_scan(images, rank, num_steps))
        seen = self._seen(rank, num_steps).unsqueeze(-1)
        canvas = torch.where(seen, self.patchify(images).unsqueeze(1), predicted.clamp(0, 1))
        return self.unpatchify(canvas.flatten(0, 1)).unflatten(0, canvas.shape[:2])

    def check_scannable(self) -> None:
        """Raise ValueError unless any position can be predicted, and its error, at any time."""
        if not self.config.scannable:
            raise ValueError(
                "only a causal stream whose decoder predicts raw pixels, or, with "
                "queries='unseen', features, without lateral attention, can scan; this model has "
                f"stream={self.config.stream!r}, decoder_depth={self.config.decoder_depth}, "
                f"lateral={self.config.lateral!r}, target={self.config.target!r}, "
                f"queries={self.config.queries!r}"
            )
