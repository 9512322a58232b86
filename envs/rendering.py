"""Pictures of episodes under way, for ``render``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from envs.episode import Episode
from envs.observations import in_color, reconstruction, seen_pixels, to_bytes
from envs.output import to_numpy
from foveate.choices import told
from foveate.orders.segments import borders
from foveate.patches import UNSEEN_GRAY

RENDER_PX = 224
"""Side of the panels, at least."""


def check_render_mode(render_mode: object) -> None:
    """Raise ValueError unless frames can be had so; ``human`` is gymnasium's window around them."""
    if render_mode not in (None, "rgb_array"):
        raise ValueError(
            "render_mode must be None, 'rgb_array' or, with gymnasium.make and make_vec, 'human', "
            f"got {told(render_mode)}"
        )


def draw_episode(episode: Episode) -> tuple[NDArray[np.uint8], ...]:
    """Draw each row: the image with its fixations, what has been seen, the reconstruction."""
    model = episode.scan.model
    drawn = [episode.images, seen_pixels(episode), reconstruction(episode)]
    panels = torch.stack(drawn, dim=1).flatten(0, 1)
    factor = -(-RENDER_PX // min(model.config.image_size))
    large = torch.nn.functional.interpolate(panels, scale_factor=factor, mode="nearest")
    colored = to_numpy(to_bytes(in_color(large))).transpose(0, 2, 3, 1)
    frames = colored.reshape(len(episode.images), 3, *colored.shape[1:])
    side = model.config.patch_size * factor
    for row, steps in enumerate(episode.opened.tolist()):
        for step, padded in enumerate(steps):
            segment = [patch for patch in padded if patch >= 0]
            for patch, sides in borders(segment, model.grid).items():
                top, left = (side * number for number in divmod(patch, model.grid[1]))
                tile = frames[row, 0, top : top + side, left : left + side]
                outline(tile, step / episode.budget, sides)
    gap = np.full((frames.shape[2], 4, 3), round(255 * UNSEEN_GRAY), np.uint8)
    return tuple(np.hstack([one[0], gap, one[1], gap, one[2]]) for one in frames)


def outline(pixels: NDArray[np.uint8], share: float, sides: tuple[bool, bool, bool, bool]) -> None:
    """Frame a tile in place, from dark red (first fixation) to yellow (last).

    Args:
        pixels: the tile, (height, width, 3).
        share: of the budget that was spent before.
        sides: which get a line: top, bottom, left, right.
    """
    width = max(1, len(pixels) // 12)
    color = np.array([200 + 55 * share, 40 + 200 * share, 40], np.uint8)
    edges = pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:]
    for edge, is_drawn in zip(edges, sides, strict=True):
        if is_drawn:
            edge[:] = color
