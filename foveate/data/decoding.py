"""One stored image to pixels: read, brought to a mode and a size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

Encoded: TypeAlias = bytes | Path | np.ndarray | Image.Image
"""File contents, a file, pixels (H, W) or (H, W, 3), or an image that is open already."""

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def decode_image(
    item: Encoded, where: str, mode: str, size: tuple[int, int]
) -> UInt8[np.ndarray, "C H W"]:
    """Return the pixels of one image, its shorter side resized and the center kept.

    Args:
        item: The image as stored.
        where: What an error calls it.
        mode: "L" for one channel, "RGB" for three.
        size: Width and height in pixels.

    Raises:
        ValueError: The image is unreadable or of more than 8 bits.
    """
    with open_image(item, where) as image:
        try:
            converted = image.convert(mode)
        except _UNREADABLE as error:
            raise _unreadable(item, where, error) from error
    if converted.size != size:
        converted = ImageOps.fit(converted, size, Image.Resampling.BICUBIC)
    pixels: np.ndarray = np.asarray(converted).reshape(size[1], size[0], -1).transpose(2, 0, 1)
    return pixels


def open_image(item: Encoded, where: str) -> Image.Image:
    """Open an image, of which nothing but the header need be read.

    Raises:
        ValueError: The image is unreadable or of more than 8 bits.
    """
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    try:
        image = (
            item
            if isinstance(item, Image.Image)
            else Image.open(item if isinstance(item, Path) else io.BytesIO(item))
        )
    except _UNREADABLE as error:
        raise _unreadable(item, where, error) from error
    if image.mode[0] in "IF":
        image.close()
        raise ValueError(
            f"{where} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits"
        )
    return image


def _unreadable(item: Encoded, where: str, error: Exception) -> ValueError:
    place = f" ({item})" if isinstance(item, Path) else ""
    return ValueError(f"cannot read {where}{place}; replace or remove it [{type(error).__name__}]")
