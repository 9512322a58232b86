"""From answers to rows: every measure of every cell, and what sets it against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from experiments.evaluation.intervals import Interval, crossed_interval, of_shares
from experiments.evaluation.knowing.rows import Difference, MeanOverSeeds
from experiments.studies.answers import Answers, is_error

BySeed = Mapping[int, Answers]
Scan = tuple[int, int]
"""Fixations of a scan, and the side of the square that each opens."""
NO_INTERVAL = "no interval"
"""What is said of a difference of one number each, which one run cannot tell from chance."""
TOO_FEW = "too few seeds to say"
"""What is said of a difference of few seeds, whatever its interval."""
BETTER, WORSE, NOT_BETTER = "better", "worse", "not better"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A cell minus a baseline in one measure."""

    cell: str
    measure: str
    against: str
    """The baseline."""
    difference: Difference

    @property
    def _direction(self) -> int:
        return -1 if is_error(self.measure) else 1

    @property
    def better(self) -> float:
        """How much better than the baseline, in the measure's unit."""
        return self.difference.mean * self._direction

    @property
    def most_gained(self) -> float | None:
        """The largest gain over the baseline that the interval allows; None = no interval."""
        interval = self.difference.interval
        return None if interval is None else max(each * self._direction for each in interval)

    def word(self, least_seeds: float = 1) -> str:
        """Say how the cell compares, in a word, or why nothing can be said.

        Args:
            least_seeds: of which fewer say nothing.
        """
        if len(self.difference.per_seed) < least_seeds:
            return TOO_FEW
        if self.difference.interval is None:
            return NO_INTERVAL
        return {1: BETTER, 0: NOT_BETTER, -1: WORSE}[self.difference.sign * self._direction]


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One measure of one cell."""

    cell: str
    measure: str
    value: MeanOverSeeds
    minus_baseline: Difference | None
    """Paired over seeds and images; None = it is the baseline's, or that lacks the measure."""
    seeds: tuple[int, ...]
    """That are done."""
    value_ci95: Interval | None = None
    """Of the value, over seeds and images at once; None = of one seed, of one number a run, of runs
    that were asked about other images, or of an older result, which has it over seeds alone."""
    own_baseline: str | None = None
    """Cell with the same parts; None = it has none besides the grid's baseline."""
    minus_own_baseline: Difference | None = None
    """As ``minus_baseline``."""

    @property
    def interval(self) -> Interval | None:
        """The interval of the value to judge by."""
        return self.value_ci95 or self.value.ci95

    def contrasts(self, baseline: str) -> tuple[Contrast, ...]:
        """Return the differences from the grid's baseline, and from the cell's own.

        Args:
            baseline: of the grid.
        """
        found = ((baseline, self.minus_baseline), (self.own_baseline, self.minus_own_baseline))
        return tuple(
            Contrast(cell=self.cell, measure=self.measure, against=against, difference=each)
            for against, each in found
            if against is not None and each is not None
        )


def rows_of(
    answers: Mapping[str, BySeed],
    against: str,
    own: Mapping[str, str] | None = None,
    scans: Mapping[str, Scan] | None = None,
) -> tuple[CellRow, ...]:
    """Return a row for every measure and cell, each set against baselines of the same seeds.

    Args:
        answers: by cell and seed.
        against: name of the baseline.
        own: a further baseline of some cells.
        scans: of the cells. Areas of different ones are not compared, as four patches that are
            opened at once leave a smaller area than the same four, one after the other.
    """

    def minus(cell: str, baseline: str | None, measure: str) -> Difference | None:
        if baseline is None or baseline == cell:
            return None
        if measure.startswith("area") and scans and scans.get(cell) != scans.get(baseline):
            return None
        return difference(measure, answers[cell], answers.get(baseline, {}))

    measures = dict.fromkeys(
        name for each in answers.values() for run in each.values() for name in run.values
    )
    rows = []
    for measure in measures:
        for cell, each in answers.items():
            seeds = tuple(sorted(seed for seed in each if measure in each[seed].values))
            if not seeds:
                continue
            mine = (own or {}).get(cell)
            runs = [each[seed] for seed in seeds]
            values = stacked(measure, runs)
            every = np.concatenate([run.values[measure] for run in runs])
            in_unit = every.min() >= 0 and every.max() <= 1 and not is_error(measure)
            interval = crossed_interval(values)
            rows.append(
                CellRow(
                    cell=cell,
                    measure=measure,
                    value=MeanOverSeeds.of_correct(values) if in_unit else MeanOverSeeds.of(values),
                    minus_baseline=minus(cell, against, measure),
                    seeds=seeds,
                    value_ci95=of_shares(interval) if in_unit else interval,
                    own_baseline=mine,
                    minus_own_baseline=minus(cell, mine, measure),
                )
            )
    return tuple(rows)


def notes_on(rows: Sequence[CellRow], baseline: str) -> tuple[str, ...]:
    """Say of the rows of a measure which differences are of means alone, and which there are not.

    Args:
        rows: of all cells.
        baseline: of the grid.
    """
    # One number a run, or runs that were asked about other images.
    alone = [
        row.cell
        for row in rows
        if any(each.difference.ci95_images is None for each in row.contrasts(baseline))
    ]
    lacking = [row.cell for row in rows if row.cell != baseline and row.minus_baseline is None]
    told = {"Of means alone, over seeds": alone}
    if any(row.cell == baseline for row in rows):
        told[f"Not compared with {baseline}"] = lacking
    return tuple(f"{what}: {', '.join(cells)}." for what, cells in told.items() if cells)


def difference(measure: str, cell: BySeed, baseline: BySeed) -> Difference | None:
    """Return a cell's values minus the baseline's, paired over the seeds that both have.

    None = there are no such seeds. Where they were asked about different images, be they as many,
    only means are paired, seed by seed.
    """
    seeds = sorted(
        seed
        for seed in cell
        if measure in cell[seed].values and seed in baseline and measure in baseline[seed].values
    )
    if not seeds:
        return None
    runs = [run[seed] for seed in seeds for run in (cell, baseline)]
    values = stacked(measure, runs)
    return Difference.of(values[::2] - values[1::2])


def stacked(measure: str, runs: Sequence[Answers]) -> Float[np.ndarray, "S J"]:
    """Stack the values of runs on the same images; the means alone if the images differ."""
    values = [run.values[measure] for run in runs]
    if len({(run.facts.asked_images, len(run.values[measure])) for run in runs}) > 1:
        return np.array([[each.mean()] for each in values])
    return np.stack(values).astype(float)
