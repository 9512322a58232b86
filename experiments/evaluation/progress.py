"""How far a long evaluation is, with an estimate of the time left, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TypeVar

from tqdm import tqdm

SECONDS_PER_LINE = 10.0
"""Time between two lines, where there is no terminal."""

Part = TypeVar("Part")
Advance = Callable[[int], None]
"""Told of so many units of work, as they are done."""


def unheard(units: int) -> None:
    """Tell nobody."""


class Progress:
    """A bar where standard error is a terminal, elsewhere a line every 10 s.

    Args:
        name: of the evaluation.
        total: units of work that it takes, as an estimate of its cost.
        unit: what is counted.
    """

    def __init__(self, name: str, total: int, unit: str = "patch") -> None:
        self.name, self.total = name, max(1, total)
        self.done = 0
        self.started = self.said = time.perf_counter()
        self.has_bar = sys.stderr.isatty()
        self.bar = tqdm(
            total=self.total, desc=name, unit=unit, unit_scale=True, disable=not self.has_bar
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, units: int) -> None:
        """Count work that is done."""
        self.done += units
        self.bar.update(units)
        now = time.perf_counter()
        if self.has_bar or now - self.said < SECONDS_PER_LINE:
            return
        self.said, spent = now, now - self.started
        left = spent * max(0, self.total - self.done) / self.done
        sys.stderr.write(
            f"{self.name}: {min(1.0, self.done / self.total):.0%} after {spent:.0f} s, "
            f"about {left:.0f} s left\n"
        )


def progress(parts: Sequence[Part], name: str, unit: str) -> Iterator[Part]:
    """Yield parts of about equal cost, and say how many of them are done."""
    with Progress(name, len(parts), unit) as shown:
        for part in parts:
            yield part
            shown.advance(1)
