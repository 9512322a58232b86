"""What a stage came to, and which cells go on by the rule that was said beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.studies.answers import Answers, read_answers
from experiments.studies.grid import Grid, Screening
from experiments.studies.job import Job
from experiments.studies.result import Stage
from experiments.studies.rows import rows_of
from experiments.studies.runner import Missing


@dataclass(frozen=True)
class Choice:
    """Which cells go on."""

    kept: tuple[str, ...]
    dropped: dict[str, str]
    """And why the others do not."""
    undecided: str | None = None
    """Why nothing can be said yet; then none goes on."""


def stage_of(
    title: str,
    jobs: Sequence[Job],
    missing: Sequence[Missing],
    against: str,
    own: Mapping[str, str] | None = None,
) -> Stage:
    """Gather what the runs of a stage answered.

    Args:
        title: of the stage, in words.
        jobs: all of it.
        missing: those that are not done.
        against: name of the baseline.
        own: a further baseline of some cells.
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
        rows=rows_of(answers, against, own),
        facts={
            cell: tuple(each[seed].facts for seed in sorted(each)) for cell, each in answers.items()
        },
        failed={each.job.name: each.why for each in missing if each.why is not None},
        waiting=tuple(each.job.name for each in missing if each.why is None),
    )


def choose(grid: Grid, rule: Screening, stage: Stage) -> Choice:
    """Apply the rule: a cell goes on unless it is too far behind its baseline, or failed.

    Its baseline is its own, or else the grid's. With a cell that goes on go its own baseline and
    the cells that it needs, unless they failed. References go on with others alone.

    Raises:
        ValueError: the runs have no measure of the rule's name.
    """
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
    # Why cells do not go on, unless one that does takes them along.
    dropped: dict[str, str] = {}
    for cell in grid.cells:
        row = rows.get(cell.name)
        # Its own baseline is the last, if it has one.
        contrasts = () if row is None else row.contrasts(grid.against)[-1:]
        if cell.name in failed:
            dropped[cell.name] = f"it failed in screening, {failed[cell.name]}"
        elif row is None and not cell.reference:
            dropped[cell.name] = f"it has no {rule.by}"
        for each in contrasts:
            if cell.name not in failed and each.better < -rule.within:
                dropped[cell.name] = (
                    f"{rule.by} {each.difference} against {each.against}, more than "
                    f"{rule.within:g} worse"
                )
    kept = {cell.name for cell in grid.cells if not cell.reference} - dropped.keys()
    with_it = {
        cell.name: {cell.against or grid.against, *cell.needs.values()} for cell in grid.cells
    }
    while along := {other for name in kept for other in with_it[name]} - kept - failed.keys():
        kept |= along
    return Choice(
        tuple(cell.name for cell in grid.cells if cell.name in kept),
        {name: why for name, why in dropped.items() if name not in kept},
    )


def cell_of(run: str) -> str:
    """Return the cell of a run, whose name is ``CELL_SEED``."""
    return run.rpartition("_")[0]
