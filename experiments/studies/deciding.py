"""From answers to rows: cells are set against the baseline, and the rule says which go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from experiments.evaluation.knowing_rows import Difference, Mean
from experiments.studies.answers import Answers, read_answers
from experiments.studies.grid import Grid, Screening, is_error
from experiments.studies.job import Job
from experiments.studies.result import CellRow, Stage
from experiments.studies.runner import Missing

BySeed = Mapping[int, Answers]


@dataclass(frozen=True)
class Choice:
    """Which cells go on."""

    kept: tuple[str, ...]
    dropped: dict[str, str]
    """And why the others do not."""
    undecided: str | None = None
    """Why nothing can be said yet; then none goes on."""


def stage_of(title: str, jobs: Sequence[Job], missing: Sequence[Missing], against: str) -> Stage:
    """Gather what the runs of a stage answered.

    Args:
        title: of the stage, in words.
        jobs: all of it.
        missing: those that are not done.
        against: name of the baseline.
    """
    absent = {each.job.config.run.out for each in missing}
    answers: dict[str, dict[int, Answers]] = {job.cell: {} for job in jobs}
    for job in jobs:
        found = None if job.config.run.out in absent else read_answers(job.config.run.out)
        if found is not None:
            answers[job.cell][job.config.run.seed] = found
    answers = {cell: each for cell, each in answers.items() if each}
    return Stage(
        title=title,
        rows=rows_of(answers, against),
        facts={
            cell: tuple(each[seed].facts for seed in sorted(each)) for cell, each in answers.items()
        },
        failed={each.job.name: each.why for each in missing if each.why is not None},
        waiting=tuple(each.job.name for each in missing if each.why is None),
    )


def rows_of(answers: Mapping[str, BySeed], against: str) -> tuple[CellRow, ...]:
    """Return a row for every measure and cell, each set against the baseline's of the same seeds.

    Args:
        answers: by cell and seed.
        against: name of the baseline.
    """
    measures = dict.fromkeys(
        name for each in answers.values() for run in each.values() for name in run.values
    )
    rows = []
    for measure in measures:
        for cell, each in answers.items():
            seeds = tuple(sorted(seed for seed in each if measure in each[seed].values))
            if not seeds:
                continue
            paired = None
            if cell != against:
                paired = difference(measure, each, answers.get(against, {}))
            values = stacked([each[seed].values[measure] for seed in seeds])
            in_unit = values.min() >= 0 and values.max() <= 1 and not is_error(measure)
            rows.append(
                CellRow(
                    cell=cell,
                    measure=measure,
                    value=Mean.of_correct(values) if in_unit else Mean.of(values),
                    minus_baseline=paired,
                    seeds=seeds,
                )
            )
    return tuple(rows)


def difference(measure: str, cell: BySeed, baseline: BySeed) -> Difference | None:
    """Return a cell's values minus the baseline's, paired over the seeds that both have.

    None = there are no such seeds. Where they were asked about different images, only means are
    paired.
    """
    seeds = sorted(
        seed
        for seed in cell
        if measure in cell[seed].values and seed in baseline and measure in baseline[seed].values
    )
    if not seeds:
        return None
    runs = [run[seed].values[measure] for seed in seeds for run in (cell, baseline)]
    values = stacked(runs)
    return Difference.of(values[::2] - values[1::2])


def stacked(runs: Sequence[Float[np.ndarray, " I"]]) -> Float[np.ndarray, "S J"]:
    """Stack the values of runs on the same images; the means alone if the images differ."""
    if len({len(run) for run in runs}) > 1:
        return np.array([[run.mean()] for run in runs])
    return np.stack(runs).astype(float)


def choose(grid: Grid, rule: Screening, stage: Stage) -> Choice:
    """Apply the rule: a cell goes on unless it is too far behind the baseline, or failed.

    Raises:
        ValueError: the runs have no measure of the rule's name.
    """
    names = [cell.name for cell in grid.cells]
    if stage.waiting:
        count = len(stage.waiting)
        return Choice((), {}, f"{count} of the screening's runs are not done")
    rows = {row.cell: row for row in stage.rows if row.measure == rule.by}
    failed = {name: f"{run}: {why}" for run, why in stage.failed.items() for name in [cell_of(run)]}
    if grid.against in failed:
        return Choice((), {}, f"the baseline failed in screening, {failed[grid.against]}")
    if grid.against not in rows:
        raise ValueError(
            f"screening goes by {rule.by!r}, which was not measured; "
            f"measured: {', '.join(stage.measures) or 'nothing'}"
        )
    dropped: dict[str, str] = {}
    for name in names:
        row = rows.get(name)
        if name in failed:
            dropped[name] = f"it failed in screening, {failed[name]}"
        elif row is None:
            dropped[name] = f"it has no {rule.by}"
        elif row.better is not None and row.better < -rule.within:
            dropped[name] = (
                f"{rule.by} {row.minus_baseline} against {grid.against}, more than "
                f"{rule.within:g} worse"
            )
    return Choice(tuple(name for name in names if name not in dropped), dropped)


def cell_of(run: str) -> str:
    """Return the cell of a run, whose name is ``CELL_SEED``."""
    return run.rpartition("_")[0]
