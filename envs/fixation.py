"""A fixation, and what is known before and after it: all that a reward may look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.recognition import RecognitionProbe
from envs.words import CaptionQuestion
from foveate.model import AnyOrderTransformer
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.targets import PixelsAndFeatures


@dataclass(frozen=True)
class Knowledge:
    """What an episode knows between two fixations."""

    error: Float[Tensor, "B"]
    """Error summed over the unseen patches, over the image's own error before the first fixation:
    of raw pixels the squared error, else the loss of the model's target."""
    prediction: Prediction
    """What the model predicts of Q patches."""
    predicted: Int[Tensor, "B Q"]
    """The patches that are predicted: all of them, in raster order, unless candidates are drawn."""
    patch_errors: Float[Tensor, "B Q"]
    """Error of each predicted patch; 0 where seen."""
    content: Float[Tensor, "B D"]
    """Encoder state of the patch seen last: the causal summary of all that has been seen."""
    mean_content: Float[Tensor, "B D"]
    """Mean encoder state of periphery and patches seen; without either the start token's."""
    asked: CaptionQuestion | None = None
    """How surprising captions of each image are; None = there are no captions."""


@dataclass(frozen=True)
class Fixation:
    """One fixation in every row, as a reward sees it."""

    known_before: Knowledge
    known_after: Knowledge
    patches: Int[Tensor, "B S"]
    """The patches that the fixation opened; -1 = padding."""
    is_new: Bool[Tensor, "B S"]
    """Which of them had not been seen before (False at the padding)."""
    initial_error: Float[Tensor, "B"]
    """Error summed over all patches before the first fixation, which errors are divided by."""
    images: Float[Tensor, "B C H W"]
    """The true images in [0, 1]."""
    targets: Float[Tensor, "B N T"]
    """What the model is to predict of every patch: the true pixels, normalized, or features."""
    model: AnyOrderTransformer
    """The world."""
    labels: Int[Tensor, "B"]
    """Class of each image; -1 = unknown."""
    probe: RecognitionProbe | None
    """Frozen classifier of ``mean_content``; None = there is none."""
    opened: Int[Tensor, "B L K"]
    """New patches of each of the L steps of a scan, those of this fixation last; -1 = not yet, or
    padding."""
    group: int
    """Scans of each image, in succession along the batch."""

    @property
    def before(self) -> Float[Tensor, "B"]:
        """Error of what was unseen before the fixation; a copy, into which a reward may write."""
        return self.known_before.error.clone()

    @property
    def after(self) -> Float[Tensor, "B"]:
        """Error of what is unseen after it; a copy."""
        return self.known_after.error.clone()

    @cached_property
    def decoded(self) -> Float[Tensor, "B"]:
        """Error of the opened patches, as they were predicted before they were seen."""
        known = self.known_before
        # Once each, even if several candidates hold the patch; the padding has no error.
        match = known.predicted.unsqueeze(2) == self.patches.unsqueeze(1)
        errors = (known.patch_errors.unsqueeze(2) * match).sum(1) / match.sum(1).clamp_min(1)
        return errors.sum(1) / self.initial_error

    def after_of(self, part: str) -> Float[Tensor, "B"]:
        """Error after the fixation that is of ``pixels``, or of ``features``; both sum to all.

        Raises:
            ValueError: the model does not predict both.
        """
        known, target = self.known_after, self.model.target
        if not isinstance(target, PixelsAndFeatures):
            raise ValueError(
                "needs a model with target='pixels_features', got "
                f"target={target.config.target!r}; auc is of all that a model predicts"
            )
        truth = take(self.targets, known.predicted.clamp_min(0))
        errors = target.parts(known.prediction.values, truth)[part] * (known.patch_errors > 0)
        return self.after * errors.sum(1) / known.patch_errors.sum(1).clamp_min(1e-12)

    @property
    def features_before(self) -> Float[Tensor, "B D"]:
        """The encoder's summary of what had been seen before the fixation."""
        return self.known_before.content

    @property
    def features_after(self) -> Float[Tensor, "B D"]:
        """The encoder's summary of what has been seen after it."""
        return self.known_after.content

    @cached_property
    def recognized(self) -> Float[Tensor, "B"]:
        """Fall of the probe's cross-entropy, nats; 0 where there is no label."""
        assert self.probe is not None, "an episode refuses rewards that lack their probe"
        before, after = (
            self.probe.cross_entropy(known.mean_content, self.labels)
            for known in (self.known_before, self.known_after)
        )
        return before - after

    @property
    def told(self) -> Float[Tensor, "B"]:
        """Fall of the mean cross-entropy of captions, nats; 0 where there is none."""
        before, after = self.known_before.asked, self.known_after.asked
        assert before is not None, "an episode refuses rewards without their words"
        assert after is not None, "an episode refuses rewards without their words"
        return before.nats - after.nats
