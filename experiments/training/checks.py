"""What several groups of options check of their values."""

from __future__ import annotations

import math


def check_at_least(group: object, least: int, *names: str) -> None:
    """Raise ValueError if one of the named options is smaller, or infinite; None is allowed."""
    for name in names:
        value = getattr(group, name)
        # Not the other way round: no comparison with nan is true.
        if value is not None and not least <= value < math.inf:
            finite = " and finite" if value == math.inf else ""
            raise ValueError(f"{name} must be at least {least}{finite}, got {value}")


def check_share(group: object, *names: str) -> None:
    """Raise ValueError unless the named options lie in 0..1; None is allowed."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {value}")
