"""The guess as an action: with every fixation the agent says what it takes the image for.

An action has two parts, ``action``, the fixation, and ``prediction``, a logit of every class. The
reward is how far the cross-entropy of the guess falls from one step to the next. A guess comes
with a fixation, hence it rests on what was seen before that one.

Reference: the action spaces of ap_gym, whose two keys these are (its ActiveClassificationEnv).
Differs: it pays minus the loss of every guess, over log K; here the fall of the loss is paid, nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from envs.actions import ROUNDING, checked_actions, zeroed
from envs.checks import check_classes
from envs.image_scan import ImageScanEnv
from envs.output import Observations, to_numpy
from envs.rewards import Reward
from envs.starts import Wanted
from envs.vector import ImageScanVectorEnv
from foveate.choices import told
from foveate.data import ImageSet

MOST = 10.0
"""Largest logit of a flat action, and minus the smallest: clients such as stable-baselines3 take
boxes with bounds alone."""


def nothing(fixation: Any) -> Tensor:
    """Pay 0: the guess alone is paid, less the prices of revisits and saccades."""
    return torch.zeros_like(fixation.after)


@dataclass(frozen=True)
class Guesses:
    """The last guess of every row, and what it was worth."""

    named: Int[np.ndarray, "B"]
    """Class with the largest logit; -1 = there was no guess yet."""
    loss: Float[np.ndarray, "B"]
    """Cross-entropy of the guess, nats; log K before the first, and where there is no label."""
    num_classes: int

    @classmethod
    def none(cls, num_rows: int, num_classes: int) -> Guesses:
        """Return the state before the first guess, in which all classes are equally likely."""
        unknown = math.log(num_classes)
        return cls(np.full(num_rows, -1), np.full(num_rows, unknown), num_classes)

    def forgotten(self, rows: Bool[np.ndarray, "B"]) -> Guesses:
        """Return the state in which the rows that are True have not guessed yet."""
        fresh = Guesses.none(len(rows), self.num_classes)
        named = np.where(rows, fresh.named, self.named)
        return replace(self, named=named, loss=np.where(rows, fresh.loss, self.loss))

    def then(
        self,
        logits: Float[np.ndarray, "B K"],
        labels: Int[np.ndarray, "B"],
        rows: Bool[np.ndarray, "B"],
    ) -> Guesses:
        """Return the state after a new guess in the rows that are True."""
        log_share = log_softmax(logits.astype(np.float64), axis=1)
        loss = -np.take_along_axis(log_share, labels.clip(0)[:, None], 1)[:, 0]
        named = np.where(rows, logits.argmax(1), self.named)
        return replace(self, named=named, loss=np.where(rows & (labels >= 0), loss, self.loss))

    def facts(self, labels: Int[np.ndarray, "B"]) -> dict[str, NDArray[Any]]:
        """Return what ``info`` tells: ``guess``, ``guess_loss`` and ``is_right``, of each row."""
        is_right = (self.named == labels) & (labels >= 0)
        return {"guess": self.named.copy(), "guess_loss": self.loss.copy(), "is_right": is_right}


class GuessingActions:
    """Actions that fixate and guess.

    Args:
        images: whose classes are guessed.
        fixations: space of one fixation.
        flat: False = a dict of ``action`` and ``prediction``; True = both in one box, the gaze
            point first, then the logits, which lie in -MOST..MOST.
        num_classes: logits of a guess; None = the classes that the images name, or have.

    Raises:
        ValueError: the images do not tell two classes apart, or have more than ``num_classes``, or
            ``flat`` without gaze points.
    """

    def __init__(
        self,
        images: ImageSet,
        fixations: gym.spaces.Discrete | gym.spaces.Box,
        flat: bool,
        num_classes: int | None = None,
    ) -> None:
        check_classes(images, None)
        if flat and not isinstance(fixations, gym.spaces.Box):
            raise ValueError("flat=True puts gaze point and guess in one box; add action='gaze'")
        self.fixations, self.flat = fixations, flat
        least = len(images.class_names) or int(images.labels.max()) + 1
        self.num_classes = least if num_classes is None else num_classes
        if not isinstance(self.num_classes, Integral) or self.num_classes < least:
            raise ValueError(
                f"num_classes must be a whole number, at least the {least} classes of "
                f"{images.name}, got {told(num_classes)}"
            )
        limit = MOST if flat else math.inf
        prediction = gym.spaces.Box(-limit, limit, (self.num_classes,), np.float32)
        self.space: gym.Space[Any] = gym.spaces.Dict(
            {"action": fixations, "prediction": prediction}
        )
        if flat:
            self.space = gym.spaces.flatten_space(self.space)

    def split(
        self, actions: object, rows: tuple[int, ...], ignored: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return fixations and logits, checked as a whole; nothing is broadcast or clipped.

        Args:
            actions: of one environment or of a batch.
            rows: ``(num_envs,)`` for a batch, ``()`` for a single environment.
            ignored: rows whose actions may be any numbers (True = ignored); None = no row.

        Raises:
            ValueError: a part is missing, of another shape or kind, outside the space or not
                finite.
        """
        if self.flat:
            shape = (*rows, 2 + self.num_classes)
            whole = checked_numbers("the action", actions, shape, ignored)
            fixations, logits = whole[..., :2], whole[..., 2:]
        elif isinstance(actions, Mapping) and set(actions) == {"action", "prediction"}:
            fixations, logits = actions["action"], actions["prediction"]
        else:
            raise ValueError(
                "the action must be a dict of 'action', the fixation, and 'prediction', a logit "
                f"of each of the {self.num_classes} classes; got {told(actions)}"
            )
        logits = checked_numbers("the prediction", logits, (*rows, self.num_classes), ignored)
        if self.flat and np.abs(logits).max() > MOST * (1 + ROUNDING):
            raise ValueError(
                f"a logit of a flat action must lie in [-{MOST:g}, {MOST:g}], got "
                f"{logits.flat[np.abs(logits).argmax()]}"
            )
        here = fixations.cpu() if isinstance(fixations, Tensor) else fixations
        return np.asarray(checked_actions(here, self.fixations, rows, ignored)), logits


def checked_numbers(
    what: str, given: object, shape: tuple[int, ...], ignored: NDArray[np.bool_] | None
) -> NDArray[Any]:
    """Return finite real numbers of a shape as an array, 0 in ignored rows.

    Raises:
        ValueError: they are of another shape or kind, or not finite.
    """
    expected = f"{what} must be an array of shape {shape} with finite numbers"
    try:
        numbers = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise ValueError(f"{expected}; got {told(given)}") from reason
    if numbers.shape != shape or numbers.dtype.kind not in "iuf":
        kind = f"an array of {numbers.dtype} and shape {numbers.shape}"
        raise ValueError(f"{expected}; got {kind}")
    numbers = zeroed(numbers, ignored)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{expected}; got {numbers[~np.isfinite(numbers)].flat[0]}")
    return numbers


class GuessScanVectorEnv(ImageScanVectorEnv):
    """Scan ``num_envs`` images at once and guess the class of each at every step.

    Spaces, termination and arguments are those of :class:`envs.vector.ImageScanVectorEnv`, but:

    ## Action Space
    A dict of ``action``, the fixation as there, and ``prediction``, a finite logit of every class.
    With ``flat=True`` and ``action="gaze"`` one box of gaze point and logits in -MOST..MOST.
    ``num_classes`` says how many logits; give it where a split may lack a class.

    ## Rewards
    Fall of the cross-entropy of the guess, nats: that of the guess before, of the first one
    log K, minus that of this one. Without a label it is 0. Added is what ``reward`` pays, by
    default nothing, less the prices of revisits and saccades. In ``info``: ``guess`` (B,), the
    class named, -1 = none yet; ``guess_loss`` (B,), nats; ``is_right`` (B,).

    ## Version History
    - v0: first registered version.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        reward: str | Reward = nothing,
        flat: bool = False,
        num_classes: int | None = None,
        **options: Any,
    ) -> None:
        """Set up the world.

        Raises:
            ValueError: as the environment without guesses and :class:`GuessingActions` do.
        """
        if options.get("output", "numpy") != "numpy":
            raise ValueError("guesses are judged on the CPU; leave out output='torch' there")
        super().__init__(num_envs, reward=reward, **options)
        self.guessing = GuessingActions(self.images, self.actions.space, flat, num_classes)
        self.single_action_space = self.guessing.space
        self.action_space = batch_space(self.guessing.space, num_envs)
        self.guesses = Guesses.none(num_envs, self.guessing.num_classes)

    def step(
        self, actions: Any
    ) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Guess and make one fixation per row; raise ValueError as the other environment does."""
        begins, made = self._rows_that_begin(), self.num_steps
        fixations, logits = self.guessing.split(actions, (self.num_envs,), begins)
        before, labels = self.guesses, to_numpy(self._under_way().labels)
        after = before.then(logits, labels, ~begins)
        self.guesses = after
        try:
            observation, reward, terminated, truncated, info = super().step(fixations)
        except Exception:
            if self.num_steps is made:
                self.guesses = before
            raise
        return observation, reward + (before.loss - after.loss), terminated, truncated, info

    def _begin(self, rows: NDArray[np.bool_], wanted: Wanted | None = None) -> None:
        super()._begin(rows, wanted)
        self.guesses = self.guesses.forgotten(rows)

    def _info(self) -> dict[str, Any]:
        facts = self.guesses.facts(to_numpy(self._under_way().labels))
        every = np.ones(self.num_envs, np.bool_)
        return {**super()._info(), **facts, **{f"_{name}": every.copy() for name in facts}}


class GuessScanEnv(ImageScanEnv):
    """Scan one image and guess its class at every step: a row of :class:`GuessScanVectorEnv`.

    ## Version History
    - v0: first registered version.
    """

    def __init__(
        self,
        *,
        reward: str | Reward = nothing,
        flat: bool = False,
        num_classes: int | None = None,
        **options: Any,
    ) -> None:
        """Set up the world; the arguments are those of the batched environment."""
        super().__init__(reward=reward, **options)
        images, fixations = self.batch.images, self.batch.actions.space
        self.guessing = GuessingActions(images, fixations, flat, num_classes)
        self.action_space = self.guessing.space
        self.guesses = Guesses.none(1, self.guessing.num_classes)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a scan, of which nothing has been guessed."""
        observation, info = super().reset(seed=seed, options=options)
        self.guesses = Guesses.none(1, self.guessing.num_classes)
        return observation, self._with_guess(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Guess and make one fixation; raise ValueError unless there is such an action."""
        fixation, logits = self.guessing.split(action, ())
        before = self.guesses
        observation, reward, terminated, truncated, info = super().step(fixation)
        self.guesses = before.then(logits[None], info["label"][None], np.ones(1, np.bool_))
        reward += float(before.loss[0] - self.guesses.loss[0])
        return observation, reward, terminated, truncated, self._with_guess(info)

    def _with_guess(self, info: dict[str, Any]) -> dict[str, Any]:
        facts = self.guesses.facts(info["label"][None])
        return {**info, **{name: each[0, ...] for name, each in facts.items()}}
