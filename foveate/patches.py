"""Images as patches: in the units of the model, cut along the grid, and put together again."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foveate.config import PixelUnits

UNSEEN_GRAY = 0.5
"""Shown where nothing is known, in [0, 1]."""
# Fixed, not per data set: a checkpoint needs nothing but its config to read images in [0, 1].
MEAN_AND_DEVIATION: dict[PixelUnits, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "centered": ((0.5,), (0.25,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Of the channels in [0, 1]; one number stands for all channels."""


class PixelScale(nn.Module):
    """From pixels in [0, 1] to the units that a model reads and predicts, and back.

    Args:
        units: a key of MEAN_AND_DEVIATION.
        channels: of the images; the numbers of three channels are averaged for one.
    """

    mean: Float[Tensor, " C"]
    deviation: Float[Tensor, " C"]

    def __init__(self, units: PixelUnits, channels: int) -> None:
        super().__init__()
        for name, each in zip(("mean", "deviation"), MEAN_AND_DEVIATION[units], strict=True):
            values = torch.tensor(each)
            values = values.mean().expand(1) if channels == 1 else values.expand(channels)
            # Not saved: the config says it.
            self.register_buffer(name, values.clone(), persistent=False)

    def normalize(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Scale images in [0, 1] to the units."""
        return (images - self.mean.view(-1, 1, 1)) / self.deviation.view(-1, 1, 1)

    def denormalize(self, patches: Float[Tensor, "*B P"]) -> Float[Tensor, "*B P"]:
        """Scale patches, which list their channels last, back to pixels in [0, 1]."""
        pixels = patches.unflatten(-1, (-1, len(self.mean)))
        return (pixels * self.deviation + self.mean).flatten(-2)


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


def check_readable(images: Tensor, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Raise ValueError unless images are floats of these channels, height and width.

    Those of twice the precision of the model's ``dtype`` are refused, too.
    """
    if tuple(images.shape[1:]) != shape:
        raise ValueError(f"the model takes images of shape {shape}, got {tuple(images.shape[1:])}")
    if not images.is_floating_point():
        raise ValueError(f"the model takes floats in [0, 1], got {images.dtype}; divide by 255")
    if images.dtype == torch.float64 != dtype:
        raise ValueError(
            f"the model is of {dtype}, got images of torch.float64; give images.to({dtype})"
        )
