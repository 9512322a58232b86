"""A world in which looking is the only way to win: one cue patch tells where everything else is.

Four by four patches of 2 x 2 pixels. Patch 0 is the cue; its four pixels light up one of four
places. That place (three patches in a row or column) holds noise that nothing predicts; all else is
gray. The noise holds four fifths of the error, the cue's own pixels the rest. With a budget of four
the error falls to 0.80, 0.53, 0.27, 0 when the cue comes first and the place that it names next: an
area of 0.40, the best without luck. An oracle that sees the place beforehand learns the cue from
it: 0.53, 0.27, 0, 0, an area of 0.20.
"""

from __future__ import annotations

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from foveate.choices import check_choice
from foveate.data import ImageSet
from foveate.data.scenes import SPLITS

PLACES = ((3, 7, 11), (12, 13, 14), (5, 6, 2), (8, 9, 10))
"""The patches of each place, on the 4 x 4 grid in raster order."""
CUE = 0
"""The patch of the cue."""
BUDGET = 4
"""Fixations that suffice for the cue and one place."""


def cue_images(
    num_images: int, generator: torch.Generator
) -> tuple[UInt8[Tensor, "B 1 8 8"], Int[Tensor, "B"]]:
    """Draw images and the place that each cue names, 0..3."""
    place = torch.randint(len(PLACES), (num_images,), generator=generator)
    patches = torch.full((num_images, 16, 4), 128, dtype=torch.uint8)
    patches[:, CUE] = 255 * torch.nn.functional.one_hot(place, 4).to(torch.uint8)
    noise = 255 * torch.randint(0, 2, (num_images, 3, 4), generator=generator)
    index = torch.tensor(PLACES)[place].unsqueeze(-1).expand(-1, -1, 4)
    patches.scatter_(1, index, noise.to(torch.uint8))
    tiles = patches.view(num_images, 4, 4, 2, 2).permute(0, 1, 3, 2, 4)
    return tiles.reshape(num_images, 1, 8, 8), place


def cue_set(split: str) -> ImageSet:
    """Return 4,096 training or 500 other images, always the same; labels are the places.

    Raises:
        ValueError: split is not train, val or test.
    """
    check_choice("split", split, SPLITS)
    generator = torch.Generator().manual_seed(SPLITS.index(split))
    images, place = cue_images(4096 if split == "train" else 500, generator)
    return ImageSet(images, place, tuple(f"place {number}" for number in range(4)), "cue")
