"""Observations in the forms that wrappers and policies of other libraries take.

They show what the rich observations of ``envs.observations`` show, in spaces without surprises.
"""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium.spaces import flatten_space
from jaxtyping import Float, UInt8
from torch import Tensor

from envs.episode import Episode
from envs.observations import (
    OBSERVERS,
    CanvasObserver,
    LatentObserver,
    Observer,
    RetinaObserver,
    in_color,
    seen_pixels,
    to_bytes,
)
from foveate.model import AnyOrderTransformer


class Flat:
    """All parts of an observation in one float32 vector, as ``gymnasium.spaces.flatten`` does."""

    def __init__(self, observer: LatentObserver) -> None:
        self.observer = observer
        self.space = flatten_space(observer.space)

    def __call__(self, episode: Episode) -> Float[Tensor, "B V"]:
        """Return one vector per row."""
        told = self.observer(episode)
        return torch.cat([told[name].flatten(1).float() for name in self.observer.space], dim=1)


class BoxMask:
    """``selectable`` as a Box of float32, where VecNormalize and VecFrameStack take boxes alone."""

    def __init__(self, observer: LatentObserver | RetinaObserver) -> None:
        self.observer = observer
        number = observer.space["selectable"].shape
        box = gym.spaces.Box(0, 1, number, np.float32)
        self.space = gym.spaces.Dict({**observer.space.spaces, "selectable": box})

    def __call__(self, episode: Episode) -> dict[str, Tensor]:
        """Return one observation per row."""
        told = self.observer(episode)
        return {**told, "selectable": told["selectable"].float()}


class ChannelsLast:
    """The canvas with its channels last, (H, W, 2C + 1)."""

    def __init__(self, observer: CanvasObserver) -> None:
        self.observer = observer
        channels, height, width = observer.space.shape
        self.space = gym.spaces.Box(0, 255, (height, width, channels), np.uint8)

    def __call__(self, episode: Episode) -> UInt8[Tensor, "B H W C"]:
        """Return one picture per row."""
        return self.observer(episode).permute(0, 2, 3, 1).contiguous()


class PictureObserver:
    """What has been seen as a color picture, (H, W, 3) uint8, gray elsewhere; scaled as the canvas.

    Wrappers that take RGB images alone, such as those to gray, take it for models of any channels.
    """

    def __init__(
        self, model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
    ) -> None:
        canvas = CanvasObserver(model, num_fixations)
        self.factor = canvas.factor
        self.space = gym.spaces.Box(0, 255, (*canvas.space.shape[1:], 3), np.uint8)

    def __call__(self, episode: Episode) -> UInt8[Tensor, "B H W 3"]:
        """Return one picture per row."""
        colors = in_color(seen_pixels(episode))
        wide = to_bytes(F.interpolate(colors, scale_factor=self.factor, mode="nearest"))
        return wide.permute(0, 2, 3, 1).contiguous()


def latent_flat(model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0) -> Flat:
    """Observe ``latent`` as one vector."""
    return Flat(LatentObserver(model, num_fixations, saccade_cost))


def latent_box(
    model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
) -> BoxMask:
    """Observe ``latent`` in boxes alone."""
    return BoxMask(LatentObserver(model, num_fixations, saccade_cost))


def retina_box(
    model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
) -> BoxMask:
    """Observe ``retina`` in boxes alone."""
    return BoxMask(RetinaObserver(model, num_fixations, saccade_cost))


def canvas_hwc(
    model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
) -> ChannelsLast:
    """Observe ``canvas`` with its channels last."""
    return ChannelsLast(CanvasObserver(model, num_fixations, saccade_cost))


FORMS: dict[str, Callable[[AnyOrderTransformer, int, float], Observer]] = {
    "latent_flat": latent_flat,
    "latent_box": latent_box,
    "retina_box": retina_box,
    "canvas_hwc": canvas_hwc,
    "picture": PictureObserver,
}
"""Standard forms by name, made as OBSERVERS are."""
ALL_OBSERVERS = OBSERVERS | FORMS
"""Every observation mode by name."""
