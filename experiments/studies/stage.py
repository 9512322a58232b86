"""What all cells of a grid came to in one setting."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.studies.answers import Facts, is_error
from experiments.studies.rows import CellRow


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All cells in one setting."""

    title: str
    """In words: which setting, split and seeds."""
    rows: tuple[CellRow, ...]
    facts: dict[str, tuple[Facts, ...]]
    """Of the runs that are done, by cell and in the order of seeds."""
    failed: dict[str, str]
    """Why a run failed, by ``CELL_SEED``."""
    waiting: tuple[str, ...]
    """Runs that are not done."""

    def of(self, measure: str) -> list[CellRow]:
        """Return the rows of one measure, best first."""
        rows = [row for row in self.rows if row.measure == measure]
        return sorted(rows, key=lambda row: row.value.mean * (1 if is_error(measure) else -1))

    @property
    def measures(self) -> tuple[str, ...]:
        """All measures, in the order in which they were asked."""
        return tuple(dict.fromkeys(row.measure for row in self.rows))
