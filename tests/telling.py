"""Images of which one patch alone tells the class."""

from __future__ import annotations

import torch

from foveate.data import ImageSet

TELLING = 5
"""That patch, of four in a row."""


def telling_set(num_images: int, seed: int, height: int = 6) -> ImageSet:
    """Noise, 8 pixels wide, of which one patch of 2 x 2 pixels is dark or bright: the class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (num_images, 1, height, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(num_images) % 2
    row, col = divmod(TELLING, 4)
    images[:, :, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2] = 255 * labels.view(-1, 1, 1, 1)
    return ImageSet(images, labels, ("dark", "bright"), "telling")
