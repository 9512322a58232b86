"""Pictures of episodes under way, for ``render``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from envs.episode import Episode
from envs.observations import UNSEEN_GRAY, seen_pixels, to_bytes
from foveate.model.encoder import PIXEL_MEAN, PIXEL_STD

RENDER_PX = 224
"""Side of the panels, at least."""


def draw_episode(episode: Episode) -> tuple[NDArray[np.uint8], ...]:
    """Draw each row: the image with its fixations, what has been seen, the reconstruction."""
    model, unseen = episode.scan.model, episode.unseen.unsqueeze(-1)
    rebuilt = torch.where(unseen, episode.prediction.values, episode.targets)
    truth, rebuilt = (
        model.unpatchify(pixels * PIXEL_STD + PIXEL_MEAN) for pixels in (episode.targets, rebuilt)
    )
    panels = torch.stack([truth, seen_pixels(episode), rebuilt], dim=1).flatten(0, 1)
    factor = -(-RENDER_PX // min(model.config.image_size))
    large = torch.nn.functional.interpolate(panels, scale_factor=factor, mode="nearest")
    colored = to_bytes(large.expand(-1, 3, -1, -1)).transpose(0, 2, 3, 1)
    frames = colored.reshape(len(unseen), 3, *colored.shape[1:])
    side = model.config.patch_size * factor
    for row, step, place in (episode.opened >= 0).nonzero().tolist():
        patch = int(episode.opened[row, step, place])
        top, left = (side * number for number in divmod(patch, model.grid[1]))
        outline(frames[row, 0, top : top + side, left : left + side], step / episode.budget)
    gap = np.full((frames.shape[2], 4, 3), round(255 * UNSEEN_GRAY), np.uint8)
    return tuple(np.hstack([one[0], gap, one[1], gap, one[2]]) for one in frames)


def outline(pixels: NDArray[np.uint8], share: float) -> None:
    """Frame a tile in place, from dark red (first fixation) to yellow (last)."""
    width = max(1, len(pixels) // 12)
    color = np.array([200 + 55 * share, 40 + 200 * share, 40], np.uint8)
    for edge in (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:]):
        edge[:] = color
