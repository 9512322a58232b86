"""The tally of ``make torture``: what was tried, and whether anything was lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from experiments.tables import Result, Table


@dataclass(frozen=True, kw_only=True)
class TortureRow:
    """Trials of one kind."""

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
    kinds: dict[str, TortureRow]

    def tables(self) -> list[Table]:
        """Return one row per kind, and their sum."""
        rows = [asdict(row) for row in self.kinds.values()]
        columns = ("tried", "right", "lost", "tracebacks", "skipped", "seconds")
        total = {column: sum(row[column] for row in rows) for column in columns}
        named = {**{kind: asdict(row) for kind, row in self.kinds.items()}, "**all**": total}
        return [
            Table(
                caption=f"Seed {self.seed}, commit {self.commit[:12]}, "
                f"{self.seconds / 60:.1f} minutes.",
                columns=("kind", *columns),
                rows=tuple(
                    (name, *(f"{row[column]:.0f}" for column in columns))
                    for name, row in named.items()
                ),
            )
        ]
