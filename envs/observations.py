"""What an agent sees: the model's states, a picture of what has been seen, or a retina.

Nothing in an observation depends on an unseen patch, unless the model has a periphery: then on the
thumbnail that every order sees first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import kornia.geometry.transform
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from envs.episode import Episode
from foveate.devices import send
from foveate.model import AnyOrderTransformer
from foveate.orders.paths import Grid
from foveate.orders.saccades import centers_of
from foveate.patches import UNSEEN_GRAY

MIN_SIDE_PX = 36
"""Smallest side of a picture: what the convolutions of stable-baselines3's NatureCNN need."""
RETINA_LEVELS = 3


class Observer(Protocol):
    """Turns an episode into a batch of observations that lie in ``space``."""

    @property
    def space(self) -> gym.Space[Any]:
        """Space of one observation."""
        ...

    def __call__(self, episode: Episode) -> Tensor | dict[str, Tensor]:
        """Return one observation per row, where the model lies."""
        ...


class LatentObserver:
    """The detached states that the native policy reads.

    ``query_states`` (A, D): decoder state of every fixation; ``content_state`` (D,): encoder state
    of the patch seen last; ``log_error`` (A,): the error that the model expects; ``selectable``
    (A,): 1 = shows something new; ``remaining`` (1,): share of the budget left. With one patch per
    fixation A is the number of patches. Where saccades cost something also ``distance`` (A,): the
    length of the saccade to every fixation, patches, and ``expected_gain`` (A,): what the model
    expects it to add to the rewards to come.
    """

    def __init__(
        self, model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
    ) -> None:
        width = model.config.embed_dim
        spaces: dict[str, gym.Space[Any]] = {
            "query_states": unbounded(num_fixations, width),
            "content_state": unbounded(width),
            "log_error": unbounded(num_fixations),
            "selectable": gym.spaces.MultiBinary(num_fixations),
            "remaining": gym.spaces.Box(0, 1, (1,), np.float32),
        }
        if saccade_cost > 0:
            # Only there: stable-baselines3 refuses a saved agent if its observation space is not
            # the environment's.
            spaces["distance"] = gym.spaces.Box(0, np.inf, (num_fixations,), np.float32)
            spaces["expected_gain"] = gym.spaces.Box(0, np.inf, (num_fixations,), np.float32)
        self.space = gym.spaces.Dict(spaces)

    def __call__(self, episode: Episode) -> dict[str, Tensor]:
        """Return one observation per row."""
        seen = episode.observe(ways="distance" in self.space.spaces)
        told = {
            "query_states": seen.query_states,
            # Copies, as later steps look at these again, whoever writes into what he was told.
            "content_state": seen.content_state.clone(),
            "log_error": seen.log_error.clone(),
            "selectable": seen.selectable.to(torch.int8),
            "remaining": seen.remaining.unsqueeze(1),
            "distance": seen.distance,
            "expected_gain": seen.expected_gain,
        }
        return {
            name: values.float() if values.is_floating_point() else values
            for name, values in told.items()
            if values is not None
        }


class CanvasObserver:
    """A uint8 picture, (2C + 1, H, W), scaled up by the smallest whole factor that NatureCNN takes.

    Channels: what has been seen (gray elsewhere), the reconstruction (the truth where seen), and
    255 where seen.
    """

    def __init__(
        self, model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
    ) -> None:
        height, width = model.config.image_size
        self.factor = math.ceil(MIN_SIDE_PX / min(height, width))
        self.space = gym.spaces.Box(
            0,
            255,
            (2 * model.config.in_chans + 1, height * self.factor, width * self.factor),
            np.uint8,
        )

    def __call__(self, episode: Episode) -> UInt8[Tensor, "B C H W"]:
        """Return one picture per row."""
        model = episode.scan.model
        seen = (~episode.unseen).float().unsqueeze(-1).expand(-1, -1, model.config.patch_dim)
        picture = torch.cat(
            [
                seen_pixels(episode),
                reconstruction(episode),
                model.unpatchify(seen)[:, :1],
            ],
            dim=1,
        )
        return to_bytes(F.interpolate(picture, scale_factor=self.factor, mode="nearest"))


class RetinaObserver:
    """A foveated look: crops around the fixation, each twice as wide as the one before.

    ``retina`` (3C, 36, 36) uint8: a quarter of the image, half of it, and all of its width, around
    the gaze, at one resolution; only what has been seen is drawn, on gray, or on the thumbnail if
    the model has a periphery. ``gaze`` (2,): x and y in [-1, 1], the center before the first
    fixation. ``selectable`` and ``remaining`` as in the latent observation.
    """

    def __init__(
        self, model: AnyOrderTransformer, num_fixations: int, saccade_cost: float = 0.0
    ) -> None:
        side = MIN_SIDE_PX
        self.space = gym.spaces.Dict(
            {
                "retina": gym.spaces.Box(
                    0, 255, (RETINA_LEVELS * model.config.in_chans, side, side), np.uint8
                ),
                "gaze": gym.spaces.Box(-1, 1, (2,), np.float32),
                "selectable": gym.spaces.MultiBinary(num_fixations),
                "remaining": gym.spaces.Box(0, 1, (1,), np.float32),
            }
        )

    def __call__(self, episode: Episode) -> dict[str, Tensor]:
        """Return one observation per row."""
        model = episode.scan.model
        gaze = gaze_points(episode)
        height, width = model.config.image_size
        size_px = send(torch.tensor([width, height]), gaze.device)
        center = (gaze + 1) / 2 * size_px - 0.5
        corners = send(
            torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]), gaze.device
        )
        # Around gray, so that what lies beyond the border is gray as well.
        picture = seen_pixels(episode, thumbnail=True) - UNSEEN_GRAY
        levels = []
        for level in range(RETINA_LEVELS):
            side_px = max(height, width) / 2 ** (RETINA_LEVELS - 1 - level)
            boxes = center.unsqueeze(1) + corners * side_px
            levels.append(
                kornia.geometry.transform.crop_and_resize(
                    picture, boxes, (MIN_SIDE_PX, MIN_SIDE_PX)
                )
            )
        return {
            "retina": to_bytes(torch.cat(levels, 1) + UNSEEN_GRAY),
            "gaze": gaze.float(),
            "selectable": episode.selectable.to(torch.int8),
            "remaining": episode.remaining.float().unsqueeze(1),
        }


OBSERVERS: dict[str, Callable[[AnyOrderTransformer, int, float], Observer]] = {
    "latent": LatentObserver,
    "canvas": CanvasObserver,
    "retina": RetinaObserver,
}
"""Observation modes by name, made for a model, a number of fixations and a cost of saccades."""


def gaze_points(episode: Episode) -> Float[Tensor, "B 2"]:
    """Where each row looked last, x and y in [-1, 1]; the center before the first fixation."""
    return points_of(episode.newest, episode.scan.model.grid)


def points_of(segments: Int[Tensor, "B S"], grid: Grid) -> Float[Tensor, "B 2"]:
    """Return the middle of each segment's patches, x and y in [-1, 1]; of an empty one the center.

    Args:
        segments: patches in raster order; -1 = padding.
        grid: rows and columns of patches.
    """
    size = send(torch.tensor(grid), segments.device)
    row_col = (centers_of(segments, grid) + 0.5) / size * 2 - 1
    return row_col.flip(-1).nan_to_num(0.0)


def seen_pixels(episode: Episode, *, thumbnail: bool = False) -> Float[Tensor, "B C H W"]:
    """Draw what has been seen, in [0, 1]: gray elsewhere, or the model's thumbnail of the image."""
    model = episode.scan.model
    truth = model.patchify(episode.images)
    behind = torch.full_like(truth, UNSEEN_GRAY)
    if thumbnail and model.config.periphery:
        side = model.config.periphery * model.config.patch_size
        small = F.interpolate(episode.images, (side, side), mode="area")
        wide = F.interpolate(small, model.config.image_size, mode="bilinear")
        behind = model.patchify(wide)
    return model.unpatchify(torch.where(episode.unseen.unsqueeze(-1), behind, truth))


def reconstruction(episode: Episode) -> Float[Tensor, "B C H W"]:
    """Draw what is predicted, not clamped, and the truth where seen; gray if features alone are."""
    model, unseen = episode.scan.model, episode.unseen.unsqueeze(-1)
    predicted = model.picture(episode.prediction.values)
    return model.unpatchify(torch.where(unseen, predicted, model.patchify(episode.images)))


def in_color(pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
    """Show images of any channels as RGB: the first three, of two the second as green and blue."""
    if pixels.shape[1] >= 3:
        return pixels[:, :3]
    first, last = pixels[:, :1], pixels[:, -1:]
    return torch.cat([first, last, last], dim=1)


def unbounded(*shape: int) -> gym.spaces.Box:
    """Return a space of float32 arrays."""
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)


def to_bytes(pixels: Float[Tensor, "B C H W"]) -> UInt8[Tensor, "B C H W"]:
    """Turn pixels in [0, 1] into uint8."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
