"""Rewards: what one fixation was worth.

A reward is a function from a :class:`Fixation` to one number per row. A fixation computes what a
reward asks of it and nothing else.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor

from envs.fixation import Fixation
from envs.rankme import rankme
from envs.recognition import RecognitionProbe
from envs.reference import progress, reducible
from foveate.choices import blaming, lookup, told

REVISIT_PENALTY = 0.1
"""Taken from the reward of a fixation that shows nothing new."""


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
    """Fall of the mean cross-entropy of captions, nats."""
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

REWARDS_OF_REFERENCE: dict[str, Callable[..., Tensor]] = {
    "reducible": reducible,
    "progress": progress,
}
"""Rewards of the opened patches that compare a model with another, their option ``reference``.

``reducible`` seeks what can still be learned, and wants a reference that was trained on held-out
images (RHO-LOSS, Mindermann et al. 2022). ``progress`` wants the average of the weights over time:
what was learned since. With the same reference one is exactly minus the other, so that
``reducible`` against the average seeks what was unlearned since. Unlike ``surprise`` they do not
seek noise, which is equally hard for both.
"""
REWARDS_OF_BATCHES: dict[str, Reward] = {"rankme": rankme}
"""Rewards that set the scans of a batch against one another: in training alone, not by name.

``rankme`` is how far a fixation makes the features of an image differ from those of the others.
"""
REWARDS_OF_WORDS: dict[str, Reward] = {"caption": caption}
"""Rewards that need captions, and a model that writes them.

``caption`` is how far a fixation makes captions of the image less surprising. It telescopes, as
``gain``.
"""

PART_REWARDS: dict[str, Reward] = {"auc_pixels": auc_pixels, "auc_features": auc_features}
"""Rewards that look at one part of what a model of pixels and features predicts, as ``auc``."""

ALL_REWARDS: Mapping[str, Callable[..., Tensor]] = ChainMap(
    REWARDS_OF_WORDS,
    REWARDS_OF_BATCHES,
    REWARDS_OF_REFERENCE,
    REWARDS_OF_CLASSES,
    PART_REWARDS,
    REWARDS,
)
"""Every reward by name, REWARDS first and as they are now; what one needs may not be there."""


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
        return lookup("reward", name, ALL_REWARDS)
    if not callable(name):
        raise ValueError(
            f"reward must be a name, MODULE:NAME, or a function of a Fixation, got {told(name)}"
        )
    return name


def reward_with_options(reward: str | Reward, options: Mapping[str, object] | None) -> str | Reward:
    """Return a reward whose keyword arguments are these.

    Raises:
        ValueError: options for a reward of ours, of which those of REWARDS_OF_REFERENCE alone take
            one, ``reference``; or no mapping.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"reward_options must be a dict of keyword arguments, got {told(options)}")
    if not options:
        return reward
    is_ours = isinstance(reward, str) and ":" not in reward
    if is_ours and (reward not in REWARDS_OF_REFERENCE or set(options) != {"reference"}):
        raise ValueError(
            f"reward {reward!r} takes no reward_options; they go to a reward of your own, a "
            "function or MODULE:NAME"
        )
    return partial(reward_named(reward), **options)


def reward_with(
    name: str | Reward, probe: RecognitionProbe | None, has_words: bool = False
) -> Reward:
    """Return a reward as :func:`reward_named` does.

    Raises:
        ValueError: as there, or it lacks its probe, its reference, its words or its batch.
    """
    reward = reward_named(name)
    if not isinstance(name, str):
        return reward
    if name in REWARDS_OF_REFERENCE:
        raise ValueError(
            f"reward {name!r} needs a model to compare with; give reward_options={{'reference': "
            "model}, in training --reward-reference, and elsewhere a function, such as "
            f"functools.partial(envs.reference.{name}, reference=model)"
        )
    if name in REWARDS_OF_BATCHES:
        raise ValueError(
            f"reward {name!r} sets the images of a batch against one another, and an environment's "
            f"rows are apart; it is for training (--reward {name}, or the function "
            f"envs.rankme.{name}), or choose {', '.join(REWARDS)}"
        )
    if name in REWARDS_OF_CLASSES and probe is None:
        raise ValueError(
            f"reward {name!r} needs a probe that knows the classes; give as model the folder of a "
            f"run that was trained with --reward {name}, or choose {', '.join(REWARDS)}"
        )
    if name in REWARDS_OF_WORDS and not has_words:
        raise ValueError(
            f"reward {name!r} needs captions as a model writes them; give as model the folder of a "
            "run of recipe caption, and images with captions, or choose "
            f"{', '.join(REWARDS)}"
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
