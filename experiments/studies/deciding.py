"""What a stage came to, and which cells go on by the rule that was said beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.run_data import learned_from
from experiments.studies.answers import Answers, read_answers
from experiments.studies.grid import Grid, Screening
from experiments.studies.job import Job
from experiments.studies.rows import Contrast, rows_of
from experiments.studies.runner import Missing
from experiments.studies.stage import Stage
from experiments.training.config import TrainConfig
from foveate.data.splits import Fingerprint, changes


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

    Raises:
        ValueError: runs learned from different images of one name.
    """
    check_learned_alike([job.config for job in jobs])
    absent = {each.job.config.run.out for each in missing}
    answers: dict[str, dict[int, Answers]] = {job.cell: {} for job in jobs}
    for job in jobs:
        found = None if job.config.run.out in absent else read_answers(job.config.run.out)
        if found is not None:
            answers[job.cell][job.config.run.seed] = found
    answers = {cell: each for cell, each in answers.items() if each}
    scans = {job.cell: (job.config.scan.budget, job.config.scan.fixation_size) for job in jobs}
    return Stage(
        title=title,
        rows=rows_of(answers, against, own, scans),
        facts={
            cell: tuple(each[seed].facts for seed in sorted(each)) for cell, each in answers.items()
        },
        failed={each.job.name: each.why for each in missing if each.why is not None},
        waiting=tuple(each.job.name for each in missing if each.why is None),
    )


def check_learned_alike(configs: Sequence[TrainConfig]) -> None:
    """Raise ValueError if the images changed between the trainings of a stage.

    Cells may name different data. Of what is not known, as of a run that has not begun, nothing
    is said.
    """
    first: dict[tuple[object, ...], tuple[Path, dict[str, Fingerprint]]] = {}
    for config in configs:
        data, splits = config.data, learned_from(config.run.out)
        if splits is None:
            continue
        named = (data.data, data.image_column, data.split_column, data.caption_column, data.stream)
        former, known = first.setdefault(named, (config.run.out, splits))
        if changed := changes(known, splits):
            raise ValueError(
                f"{config.run.out} learned from other images than {former}, though both name "
                f"{data.data}: {'; '.join(changed)}; remove the runs of the images that are gone, "
                "and the same command trains them anew"
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
    # How far those that may go on are ahead of their own baseline, or else of the grid's.
    ahead: dict[str, Contrast] = {}
    # Why cells do not go on, unless one that does takes them along.
    dropped: dict[str, str] = {}
    for cell in grid.cells:
        row = rows.get(cell.name)
        contrasts = () if row is None else row.contrasts(grid.against)[-1:]
        if cell.name in failed:
            dropped[cell.name] = f"it failed in screening, {failed[cell.name]}"
        elif cell.control and cell.name != grid.against:
            dropped[cell.name] = "it is a control, and nothing that goes on is set against it"
        elif cell.against in failed:
            dropped[cell.name] = f"{cell.against}, which it is set against, failed in screening"
        elif row is None and not cell.reference:
            dropped[cell.name] = f"it has no {rule.by}"
        elif not contrasts and row is not None and cell.name != grid.against:
            dropped[cell.name] = f"its {rule.by} cannot be compared with that of its baseline"
        elif contrasts and contrasts[0].better < -rule.within:
            dropped[cell.name] = f"{said(contrasts[0])}, more than {rule.within:g} worse"
        elif contrasts:
            ahead[cell.name] = contrasts[0]
    furthest = sorted(ahead, key=lambda name: -ahead[name].better)
    for name in furthest[rule.most :] if rule.most is not None else ():
        best = ", ".join(furthest[: rule.most])
        dropped[name] = f"{said(ahead[name])}, less far ahead than {best}"
    chosen = [name for name in furthest if name not in dropped]
    kept = grid.with_company(chosen) - failed.keys()
    return Choice(
        tuple(cell.name for cell in grid.cells if cell.name in kept),
        {name: why for name, why in dropped.items() if name not in kept},
    )


def said(contrast: Contrast) -> str:
    """Write how a cell compares with its baseline."""
    return f"{contrast.measure} {contrast.difference} against {contrast.against}"


def cell_of(run: str) -> str:
    """Return the cell of a run, whose name is ``CELL_SEED``."""
    return run.rpartition("_")[0]
