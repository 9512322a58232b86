"""Images at random places on a larger canvas, where no fixed order of fixations wins by habit.

A photographer puts the object into the middle; here it may be anywhere. The canvas around an image
is of one gray, the same for all, which says nothing of the image but where it lies.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from foveate.choices import told
from foveate.data.images import ImageSet
from foveate.devices import send

CANVAS_GRAY = 128 / 255
"""Of every channel of the canvas around an image; of bytes 128."""


def canvas_size(
    image_size: tuple[int, int], factor: int | float, patch_size: int
) -> tuple[int, int]:
    """Return height and width of the canvas: ``factor`` times those of the image, rounded.

    Raises:
        ValueError: factor is not above 1 and finite, the canvas leaves no room to wander in one
            direction, or patch_size does not divide one of its sides.
    """
    if not (isinstance(factor, int | float) and 1 < factor < math.inf):
        raise ValueError(f"wander must be above 1 and finite, such as 1.5, got {told(factor)}")
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")
    height, width = image_size

    def canvas_of(scale: int | float) -> tuple[int, int]:
        return round(scale * height), round(scale * width)

    def fits(scale: int | float) -> bool:
        rows, cols = canvas_of(scale)
        return rows > height and cols > width and not (rows % patch_size or cols % patch_size)

    if not fits(factor):
        # Ends at a whole multiple of patch_size, if not before.
        heights = itertools.count(math.ceil(factor * height / patch_size) * patch_size, patch_size)
        other = next(rows / height for rows in heights if fits(rows / height))
        rows, cols = canvas_of(factor)
        raise ValueError(
            f"wander {factor:g} makes a canvas of {rows} x {cols} pixels for images of {height} x "
            f"{width}; it must be larger than these, and of whole patches of {patch_size} x "
            f"{patch_size}; take {other:.6g}"
        )
    return canvas_of(factor)


def fixed_corners(
    images: UInt8[Tensor, "B C H W"], canvas: tuple[int, int]
) -> Int64[Tensor, "B 2"]:
    """Return where each image lies on its canvas: row and column of its top left pixel.

    A hash of the image's own pixels decides, so that neither its number, nor its split, nor a seed
    moves it. Every place is equally likely.
    """
    room = [length - side + 1 for length, side in zip(canvas, images.shape[2:], strict=True)]
    corners = []
    for pixels in images.cpu().numpy():
        digest = hashlib.sha256(pixels.tobytes()).digest()
        row, col = (int.from_bytes(part) for part in (digest[:8], digest[8:16]))
        corners.append((row % room[0], col % room[1]))
    return torch.tensor(corners)


def random_corners(
    num_images: int,
    image_size: tuple[int, int],
    canvas: tuple[int, int],
    generator: torch.Generator,
) -> Int64[Tensor, "B 2"]:
    """Draw where images lie on their canvas, every place equally likely; as fixed_corners."""
    draws = [
        torch.randint(length - side + 1, (num_images,), generator=generator)
        for length, side in zip(canvas, image_size, strict=True)
    ]
    return torch.stack(draws, dim=1)


def on_canvas(
    images: Shaped[Tensor, "B C h w"], corner_px: Int64[Tensor, "B 2"], canvas: tuple[int, int]
) -> Shaped[Tensor, "B C H W"]:
    """Put each image on a gray canvas, bit by bit; bytes stay bytes, and floats in [0, 1] floats.

    Args:
        images: the images.
        corner_px: row and column of the top left pixel of each.
        canvas: height and width.
    """
    gray = round(255 * CANVAS_GRAY) if images.dtype == torch.uint8 else CANVAS_GRAY
    placed = images.new_full((*images.shape[:2], *canvas), gray)
    top, left = send(corner_px, images.device).view(-1, 2, 1, 1).unbind(1)
    rows = top + torch.arange(images.shape[2], device=images.device).view(1, -1, 1)
    cols = left + torch.arange(images.shape[3], device=images.device).view(1, 1, -1)
    image = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    # Indices apart from one another put what is between them, the channels, last.
    placed[image, :, rows, cols] = images.permute(0, 2, 3, 1)
    return placed


def wandered(images: ImageSet, factor: int | float, patch_size: int) -> ImageSet:
    """Return a set with every image at its fixed place on a canvas; what is known of them stays.

    Args:
        images: the images; their boxes move with them.
        factor: the canvas is so many times as high and wide as they are.
        patch_size: what must divide the sides of the canvas, pixels.

    Raises:
        ValueError: factor does not fit, as canvas_size says.
    """
    canvas = canvas_size(images.image_shape[1:], factor, patch_size)
    corner_px = fixed_corners(images.images, canvas).to(images.images.device)
    boxes_px = images.boxes_px
    if boxes_px is not None:
        boxes_px = boxes_px + torch.nn.functional.pad(corner_px, (0, 2))
    return replace(images, images=on_canvas(images.images, corner_px, canvas), boxes_px=boxes_px)
