"""An image size as text: 32 is a square, 192x256 is height x width. No torch here."""

from __future__ import annotations

import re


def sides_in(text: str) -> tuple[int, ...]:
    """Return the height and width that a text names, pixels; nothing if it is no image size."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    return (int(found[1]), int(found[2] or found[1])) if found else ()
