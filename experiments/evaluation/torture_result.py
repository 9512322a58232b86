"""The tally of ``make torture``: what was tried, and whether anything was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.tables import Result, Table, short_commit

COLUMNS = ("tried", "right", "lost", "tracebacks", "skipped", "seconds")


@dataclass(frozen=True, kw_only=True)
class TortureRow:
    """Trials of one kind."""

    trials: str
    """Their kind: kills, inputs, and so on."""
    tried: int
    """How often it was tried; a trial may kill a run more than once."""
    right: int
    """How often it was as it should be."""
    lost: int
    """Trials in which something was lost, or silently wrong."""
    tracebacks: int
    """Trials that showed a traceback."""
    skipped: int
    """Trials that the machine does not permit, or that no time was left for."""
    seconds: float
    """Time of all its trials, of which two run at once."""


@dataclass(frozen=True, kw_only=True)
class TortureResult(Result):
    """What ``python -m tests.torture`` tried."""

    kind: ClassVar[str] = "torture"

    seed: int
    """Seed of places, moments and inputs."""
    commit: str
    seconds: float
    """From start to end."""
    rows: tuple[TortureRow, ...]

    def tables(self) -> list[Table]:
        """Return one row per kind, and their sum."""
        numbers = {row.trials: [getattr(row, column) for column in COLUMNS] for row in self.rows}
        numbers["**all**"] = [sum(column) for column in zip(*numbers.values(), strict=True)]
        return [
            Table(
                caption=f"Seed {self.seed}, commit `{short_commit(self.commit)}`, "
                f"{self.seconds / 60:.0f} minutes, two trials at a time.",
                columns=("trials", *COLUMNS),
                rows=tuple((name, *(f"{n:.0f}" for n in row)) for name, row in numbers.items()),
            )
        ]
