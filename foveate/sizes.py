"""Numbers that must be whole, at least so much, or shares.

No torch here, as in :mod:`foveate.config`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral


def check_counts(of: object, least: Mapping[str, int]) -> None:
    """Raise ValueError unless attributes are whole numbers of at least so much, by their names."""
    for name, number in least.items():
        if not isinstance(value := getattr(of, name), Integral) or value < number:
            raise ValueError(f"{name} must be at least {number}, a whole number, got {value!r}")


def check_at_least(of: object, least: int, *names: str) -> None:
    """Raise ValueError if one of the named options is smaller, or infinite; None is allowed."""
    for name in names:
        value = getattr(of, name)
        # Not the other way round: no comparison with nan is true.
        if value is not None and not least <= value < math.inf:
            finite = " and finite" if value == math.inf else ""
            raise ValueError(f"{name} must be at least {least}{finite}, got {value}")


def check_share(of: object, *names: str) -> None:
    """Raise ValueError unless the named options lie in 0..1; None is allowed."""
    for name in names:
        value = getattr(of, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {value}")


def check_sides(image_size: object) -> None:
    """Raise ValueError unless an image size is height and width in whole pixels."""
    sides = image_size if isinstance(image_size, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and int(side) >= 1 for side in sides):
        raise ValueError(
            "image_size must be (height, width) in whole pixels, such as (32, 32), "
            f"got {image_size!r}"
        )
