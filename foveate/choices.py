"""Names that a user may choose from, and the complaint about one that is not among them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_choice(kind: str, name: str, choices: Iterable[str]) -> None:
    """Raise ValueError with a suggestion unless ``name`` is one of the choices."""
    known = list(choices)
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        raise ValueError(
            f"unknown {kind} {name!r}; did you mean {close[0]!r}? known: {', '.join(known)}"
        )
