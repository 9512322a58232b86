"""Images as patches: in the units of the model, cut along the grid, and put together again."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

# Fixed, not per data set: a checkpoint needs nothing but its weights to read images in [0, 1].
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25


def normalize(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Scale images in [0, 1] to the units that models read and predict."""
    return (images - PIXEL_MEAN) / PIXEL_STD


def patchify(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B N P"]:
    """Cut images into patches of ``size`` x ``size`` pixels, in raster order.

    A patch lists rows, columns, then channels.
    """
    tiles = images.unflatten(2, (-1, size)).unflatten(4, (-1, size))
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(
    patches: Float[Tensor, "B N P"], size: int, grid: tuple[int, int]
) -> Float[Tensor, "B C H W"]:
    """Put patches together again; the inverse of :func:`patchify`."""
    rows, cols = grid
    tiles = patches.reshape(-1, rows, cols, size, size, patches.shape[-1] // size**2)
    return tiles.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
