"""What is tried: trials of kinds, and what a module needs to list its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trial:
    """One trial."""

    kind: str
    """Kills, inputs, ...: a row of the tally."""
    name: str
    run: Callable[[Path], int | None]
    """Tries it in an empty folder, raises Lost, Traced or Skipped, or returns how often it tried;
    None is once."""


@dataclass(frozen=True)
class Plan:
    """How much is tried, and with what."""

    shared: Path
    """Folder of what trials share and do not change."""
    rng: random.Random
    short: bool = False
    """A little of each kind."""
