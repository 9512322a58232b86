"""Rewards: what one fixation was worth.

A reward is a function from a :class:`Fixation` to one number per row. A fixation computes what a
reward asks of it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from envs.recognition import RecognitionProbe
from envs.words import Asked
from foveate.choices import blaming, lookup, told
from foveate.model import AnyOrderTransformer
from foveate.model.decoder import Prediction
from foveate.model.encoder import take
from foveate.targets import PixelsAndFeatures

REVISIT_PENALTY = 0.1
"""Taken from the reward of a fixation that shows nothing new."""


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
    asked: Asked | None = None
    """How surprising a caption of each image is; None = there are no captions."""


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

    @property
    def before(self) -> Float[Tensor, "B"]:
        """Error of what was unseen before the fixation."""
        return self.known_before.error

    @property
    def after(self) -> Float[Tensor, "B"]:
        """Error of what is unseen after it."""
        return self.known_after.error

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
        """Fall of the mean cross-entropy of a caption, nats; 0 where there is none."""
        before, after = self.known_before.asked, self.known_after.asked
        assert before is not None, "an episode refuses rewards without their words"
        assert after is not None, "an episode refuses rewards without their words"
        return before.nats - after.nats


Reward = Callable[[Fixation], Tensor]
"""One number per row, (B,)."""


# Functions, no lambdas: what holds one can be pickled. They take whatever has the numbers of a
# Fixation that they ask for.


def auc(fixation: Any) -> Tensor:
    """Minus the error after the fixation."""
    return -fixation.after


def gain(fixation: Any) -> Tensor:
    """Error before minus error after."""
    return fixation.before - fixation.after


def surprise(fixation: Any) -> Tensor:
    """Error of the opened patches, as they were predicted before they were seen."""
    return fixation.decoded


def ease(fixation: Any) -> Tensor:
    """Minus that error."""
    return -fixation.decoded


def recognition(fixation: Any) -> Tensor:
    """Fall of the probe's cross-entropy, nats."""
    return fixation.recognized


def caption(fixation: Any) -> Tensor:
    """Fall of the mean cross-entropy of a caption, nats."""
    return fixation.told


def auc_pixels(fixation: Any) -> Tensor:
    """Minus the part of the error after the fixation that is of pixels."""
    return -fixation.after_of("pixels")


def auc_features(fixation: Any) -> Tensor:
    """Minus the part of the error after the fixation that is of features."""
    return -fixation.after_of("features")


REWARDS: dict[str, Reward] = {"auc": auc, "gain": gain, "surprise": surprise, "ease": ease}
"""Rewards by name.

``auc`` is the area under the error curve. With ``gain`` and no discount the sum telescopes to the
final error, so that the order of the same patches carries no signal. ``surprise`` seeks noise and
``ease`` flat sky.
"""
REWARDS_OF_CLASSES: dict[str, Reward] = {"recognition": recognition}
"""Rewards that need labels and a probe.

``recognition`` is how far a fixation makes the probe surer of the true class. As ``gain``, it
telescopes without discount: only the last look at the features counts then.
"""

REWARDS_OF_WORDS: dict[str, Reward] = {"caption": caption}
"""Rewards that need captions, and a model that writes them.

``caption`` is how far a fixation makes a caption of the image less surprising. It telescopes, as
``gain``.
"""

PART_REWARDS: dict[str, Reward] = {"auc_pixels": auc_pixels, "auc_features": auc_features}
"""Rewards that look at one part of what a model of pixels and features predicts, as ``auc``."""


def name_of(reward: str | Reward) -> str:
    """Return what an error calls a reward: its name, or that of the function."""
    if isinstance(reward, str):
        return reward
    inner = reward.func if isinstance(reward, partial) else reward
    return str(getattr(inner, "__qualname__", type(inner).__name__))


def reward_named(name: str | Reward) -> Reward:
    """Return a reward by name, or one of your own: ``MODULE:NAME``, or the function itself.

    Raises:
        ValueError: unknown, or nothing that can be called.
    """
    if isinstance(name, str):
        return lookup(
            "reward", name, REWARDS | PART_REWARDS | REWARDS_OF_CLASSES | REWARDS_OF_WORDS
        )
    if not callable(name):
        raise ValueError(
            f"reward must be a name, MODULE:NAME, or a function of a Fixation, got {told(name)}"
        )
    return name


def reward_with_options(reward: str | Reward, options: Mapping[str, object] | None) -> str | Reward:
    """Return a reward whose keyword arguments are these.

    Raises:
        ValueError: options for a reward of ours, which takes none, or no mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"reward_options must be a dict of keyword arguments, got {options!r}")
    if not options:
        return reward
    if isinstance(reward, str) and ":" not in reward:
        raise ValueError(
            f"reward {reward!r} takes no reward_options; they go to a reward of your own, a "
            "function or MODULE:NAME"
        )
    return partial(reward_named(reward), **options)


def reward_with(
    name: str | Reward, probe: RecognitionProbe | None, has_words: bool = False
) -> Reward:
    """Do as :func:`reward_named` does; ValueError if the reward lacks its probe or words."""
    reward = reward_named(name)
    if not isinstance(name, str):
        return reward
    if name in REWARDS_OF_CLASSES and probe is None:
        raise ValueError(
            f"reward {name!r} needs a probe that knows the classes; give as model the folder of a "
            f"run that was trained with --reward {name}, or choose {', '.join(REWARDS)}"
        )
    if name in REWARDS_OF_WORDS and not has_words:
        raise ValueError(
            f"reward {name!r} needs captions as a model writes them; it is for training, by "
            f"python -m experiments.train caption --reward {name}; or choose {', '.join(REWARDS)}"
        )
    return reward


def checked_reward(name: str, reward: Reward, fixation: Fixation) -> Num[Tensor, "B"]:
    """Return the reward of a fixation, one number per row.

    Raises:
        ValueError: the reward raises, or returns something else.
    """
    with blaming("reward", name):
        value = reward(fixation)
    shape, device = tuple(fixation.after.shape), fixation.after.device
    if (
        not isinstance(value, torch.Tensor)
        or value.shape != shape
        or value.device != device
        or value.dtype == torch.bool
        or value.is_complex()
    ):
        raise ValueError(
            f"reward {name!r} must return a real number per row, a tensor of shape {shape} on "
            f"{device}, got {told(value)}"
        )
    # A reward is not learned through, whatever it was computed from.
    return value.detach()
