"""An image size on the command line: 32 is a square, 32x64 is height x width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from foveate.image_sizes import sides_in


def read_image_size(given: object) -> int | tuple[int, int] | None:
    """Return an image size from text or JSON: a side, or height and width; a square is its side.

    Raises:
        ValueError: it is neither.
    """
    sides: Sequence[object] = given if isinstance(given, list | tuple) else [given]
    if isinstance(given, str):
        if given == "None":
            return None
        sides = sides_in(given)
    if given is None:
        return None
    whole = [side for side in sides if isinstance(side, int) and side >= 1]
    if len(whole) < len(sides) or len(whole) not in (1, 2):
        raise ValueError(
            f"image_size must be a side of at least 1 pixel, such as 32, or height x width, such "
            f"as 32x64; got {given}"
        )
    height, width = whole[0], whole[-1]
    return height if height == width else (height, width)


def written(size: int | tuple[int, int] | None) -> str:
    """Return an image size as the command line has it."""
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


ImageSizeOption = Annotated[
    int | tuple[int, int] | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="SIDE|HxW|None",
        instance_from_str=lambda arguments: read_image_size(arguments[0]),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda value: [written(value)],
    ),
]
"""The type of an option that takes an image size."""
