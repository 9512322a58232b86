"""One table of a stage of a study: each cell beside its baseline, and its cost."""

from __future__ import annotations

from statistics import fmean

from experiments.studies.result import GridResult, said_teraflops
from experiments.studies.rows import CellRow
from experiments.studies.stage import Stage
from experiments.tables import Table, marked, with_interval

BESIDE = ("linear, full", "k-NN, full")
"""Measures that the table shows beside the one that decides, of those that were measured."""


def summary_of(result: GridResult, stage: Stage) -> Table:
    """Return a row for each cell, best first in the measure that decides.

    Args:
        result: of which the stage is.
        stage: that is shown.
    """
    rows = {(row.cell, row.measure): row for row in stage.rows}
    measures = result.measures_of(stage)
    shown = [name for name in measures if name in (measures[0], *BESIDE)]
    cells = [row.cell for row in stage.of(shown[0])] if shown else []
    lines = []
    for cell in cells:
        facts = stage.facts[cell]
        values = [
            text
            for name in shown
            for text in value_and_difference(rows.get((cell, name)), result.baseline)
        ]
        minutes = fmean(each.train_seconds for each in facts) / 60
        label = marked(cell, result.baseline)
        cost = (said_teraflops(facts), str(facts[0].images), f"{minutes:.1f}")
        lines.append((label, result.ideas[cell], *values, *cost))
    headings = [heading for name in shown for heading in (name, f"{name}: minus its baseline")]
    return Table(
        columns=("cell", "what it tries", *headings, "TFLOP", "images", "minutes"),
        rows=tuple(lines),
        caption=f"{stage.title}; 95% intervals over seeds and images.",
    )


def value_and_difference(row: CellRow | None, baseline: str) -> tuple[str, str]:
    """Write a measure of a cell, and how far it is from its baseline, which is named.

    A dash stands for what could not be measured. The interval is over seeds and images, as the
    caption says; where there is none of these, the mean stands alone.
    """
    if row is None:
        return "-", ""
    contrasts = row.contrasts(baseline)
    said = f"{contrasts[-1].difference} ({contrasts[-1].against})" if contrasts else ""
    interval = row.value_ci95
    mean = row.value.mean
    return f"{mean:.3f}" if interval is None else with_interval(mean, interval), said
