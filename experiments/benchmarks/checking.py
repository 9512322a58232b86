"""Checks that pass or fail: a difference, and the most that it may be. Measurements beside them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

PASS, FAIL, SKIPPED, MEASURED, BROKE = "PASS", "FAIL", "skipped", "measured", "broke"
COLUMNS = ("line", "verdict", "found", "allowed")
Row: TypeAlias = tuple[str, str, str, str]
"""One cell for each of COLUMNS."""


class NotPossible(Exception):
    """A check or measurement that cannot be made here; its message says why."""


@dataclass(frozen=True)
class Compared:
    """What a comparison found."""

    difference: float
    tolerance: float
    """The most that the difference may be."""

    @property
    def passes(self) -> bool:
        """Whether the difference is within the tolerance; one that is no number is not."""
        return self.difference <= self.tolerance


Check = Callable[[], Mapping[str, Compared]]
"""Compares, and returns what it found by what was compared; the empty name = the check's own."""


def distance(measured: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of what was expected, in double precision on the CPU."""
    one, other = (each.detach().double().cpu().flatten() for each in (measured, expected))
    return float((one - other).norm() / other.norm().clamp_min(1e-12))


def told_error(reason: Exception) -> str:
    """Print where an error comes from, to stderr; return its kind and its first line."""
    traceback.print_exception(reason)
    return f"{type(reason).__name__}: {str(reason).strip().partition(chr(10))[0]}"


def say(row: Row) -> None:
    """Print a row at once: who ends the command early has what it found."""
    print("  ".join(filter(None, row)), flush=True)


def judged(name: str, check: Check) -> list[Row]:
    """Run one check, and return its lines; whatever it raises makes one line that fails."""
    try:
        found = check()
    except NotPossible as reason:
        return [(name, SKIPPED, str(reason), "")]
    except Exception as reason:
        # Whatever fails, the other checks say what works.
        return [(name, FAIL, told_error(reason), "")]
    return [
        (
            f"{name}: {what}" if what else name,
            PASS if each.passes else FAIL,
            f"{each.difference:.2g}",
            f"{each.tolerance:.2g}",
        )
        for what, each in found.items()
    ]
