"""One self-contained HTML page of a study: it asks no host for anything.

Question, answer, tables, curves, scans under a slider, signs of collapse, compute, and all that did
not work. ``page.html`` holds the style and the script.
"""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from experiments.studies.answers import Picture
from experiments.studies.charts import Points, line_chart
from experiments.studies.result import GridResult
from experiments.studies.stage import Stage
from experiments.studies.summary import summary_of
from experiments.tables import Table, written_whole

TEMPLATE = Path(__file__).with_name("page.html")
COUNTED = ("fixations", "iterations")
"""What an x axis shows in whole numbers."""
KNOWN_AFTER = re.compile(r"known after (\d+) of (.+)")


def write_page(path: Path, result: GridResult, tables: Iterable[Table] = ()) -> None:
    """Write the page of what a grid found, see :func:`page_of`."""
    with written_whole(path) as partial:
        partial.write_text(page_of(result, tables), encoding="utf-8")


def page_of(result: GridResult, tables: Iterable[Table] = ()) -> str:
    """Return the page of what a grid found, be it not whole yet.

    Args:
        result: all of it.
        tables: of a result of the grid's own, which come first.
    """
    sections = {
        "Answer": deciding(result) + listing(result.answer(), "answer") + overview(result),
        "Other measures": listing(result.other_measures()),
        "What the data exclude": listing(result.exclusions()),
        "Tables": "".join(map(table_html, tables)) + stage_tables(result),
        "Curves over compute": loss_charts(result.last),
        "Curves over fixations": fixation_charts(result.last),
        "Scanpaths": scan_section(result.scans),
        "Signs of collapse": signs_section(result.last),
        "Compute": compute_section(result),
        "Negative results": listing(result.negatives()) or "<p>None so far.</p>",
        "How it was made": how_section(result),
    }
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(f"Study {result.name}"),
        question=paragraph(result.question) if result.question else "",
        links=" ".join(f'<a href="#{anchor(name)}">{name}</a>' for name in sections),
        sections="".join(
            f'<section id="{anchor(name)}"><h2>{name}</h2>{content or NOTHING}</section>'
            for name, content in sections.items()
        ),
        # What would end the script element does not stand in it.
        scans=json.dumps(asdict(result)["scans"]).replace("<", "\\u003c"),
    )


NOTHING = "<p>Not measured in this study, or not yet.</p>"


def anchor(name: str) -> str:
    """Return the id of a section."""
    return name.lower().replace(" ", "-")


def paragraph(text: str) -> str:
    """Write a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def listing(lines: Iterable[str], style: str = "") -> str:
    """Write a list; nothing of no lines."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="{style}">{items}</ul>' if items else ""


def table_html(table: Table) -> str:
    """Write a table that a narrow screen scrolls, by keyboard as well."""
    label = html.escape(table.caption or table.columns[0], quote=True)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"{table.to_html()}</div>"
    )


def deciding(result: GridResult) -> str:
    """Say which measure the answer is about."""
    stage = result.last
    if stage is None or not stage.rows:
        return ""
    own = " A cell that has a baseline of its own, of the same parts, is judged against that."
    return paragraph(f"The measure that decides: {result.measures_of(stage)[0]}.{own}")


def overview(result: GridResult) -> str:
    """Write each cell beside its baseline, with its cost, of the last stage."""
    stage = result.last
    return "" if stage is None or not stage.rows else table_html(summary_of(result, stage))


def stage_tables(result: GridResult) -> str:
    """Write the tables of both stages; those of compute have a section of their own."""
    parts = []
    for stage in (result.final, result.screened):
        if stage is not None:
            parts.append(f"<h3>{html.escape(stage.title)}</h3>")
            tables = result.tables_of(stage)
            parts += [table_html(each) for each in tables if each.columns[0] != "compute"]
    return "".join(parts)


def compute_section(result: GridResult) -> str:
    """Write what the runs of both stages took."""
    stages = [each for each in (result.final, result.screened) if each is not None and each.facts]
    return "".join(table_html(result.compute_table(stage)) for stage in stages)


def figure(lines: Mapping[str, Points], *, x: str, y: str, title: str) -> str:
    """Write a chart with its title."""
    drawn = line_chart(lines, x=x, y=y, title=title, counts=x in COUNTED)
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{drawn}</figure>"


def loss_charts(stage: Stage | None) -> str:
    """Draw the loss on held-out images over compute, mean over seeds."""
    by_unit: dict[str, dict[str, Points]] = {}
    for cell, runs in ({} if stage is None else stage.facts).items():
        curves = [run.loss_curve for run in runs if run.loss_curve]
        counted = all(run.teraflops is not None for run in runs)
        if curves:
            mean = [
                (fmean(x for x, _ in points), fmean(y for _, y in points))
                for points in zip(*curves, strict=False)
            ]
            unit = "operations, 10^12" if counted else "iterations"
            by_unit.setdefault(unit, {})[cell] = mean
    return "".join(
        figure(
            lines,
            x=unit,
            y="loss on held-out images",
            title=f"Loss on held-out images over {unit}, mean over seeds. Targets of another kind "
            "have another unit of loss.",
        )
        for unit, lines in by_unit.items()
    )


def fixation_charts(stage: Stage | None) -> str:
    """Draw what is still wrong, and what is known, over fixations: a chart for every order."""
    errors: dict[str, dict[str, Points]] = {}
    known: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cell, runs in ({} if stage is None else stage.facts).items():
        for order in dict.fromkeys(name for run in runs for name in run.error_curves):
            curves = [run.error_curves[order] for run in runs if order in run.error_curves]
            means = [fmean(each) for each in zip(*curves, strict=False)]
            errors.setdefault(order, {})[cell] = [(float(k), y) for k, y in enumerate(means)]
    for row in () if stage is None else stage.rows:
        if found := KNOWN_AFTER.fullmatch(row.measure):
            lines = known.setdefault(found[2], {})
            lines.setdefault(row.cell, []).append((float(found[1]), row.value.mean))
    drawn = [
        figure(
            lines,
            x="fixations",
            y="error",
            title=f"Error of the reconstruction after fixations of order {order}; lower is better.",
        )
        for order, lines in errors.items()
    ]
    drawn += [
        figure(
            lines,
            x="fixations",
            y="accuracy",
            title=f"Images whose class is known after fixations of order {order}.",
        )
        for order, lines in known.items()
    ]
    return "".join(drawn)


def scan_section(scans: Mapping[str, list[Picture]]) -> str:
    """Write the slider over fixations and room for the sheet, which the script fills."""
    if not scans:
        return ""
    most = max(len(scan.opened) for each in scans.values() for scan in each)
    cells = "".join(f"<option>{html.escape(cell)}</option>" for cell in scans)
    return (
        '<noscript><p>The scans need JavaScript.</p></noscript><div class="controls">'
        f'<label for="cell">Cell</label><select id="cell">{cells}</select>'
        '<label for="fixations">Fixations</label>'
        f'<input type="range" id="fixations" min="0" max="{most}" value="{most}" step="1">'
        '<output id="after" for="fixations"></output></div>'
        '<div id="sheet"></div>'
    )


def signs_section(stage: Stage | None) -> str:
    """Write what the scans of each run's policy say of collapse."""
    parts = []
    for cell, runs in ({} if stage is None else stage.facts).items():
        for number, run in enumerate(runs):
            if run.signs:
                name = html.escape(f"{cell}, run {number + 1} of {len(runs)}")
                parts.append(f"<h3>{name}</h3>{listing(run.signs)}")
    return "".join(parts)


def how_section(result: GridResult) -> str:
    """Write the rule, the cells, and what could not be asked."""
    ideas = tuple(
        (cell, idea, result.trainings.get(cell, "")) for cell, idea in result.ideas.items()
    )
    stages = [stage for stage in (result.screened, result.final) if stage is not None]
    notes = dict.fromkeys(
        note
        for stage in stages
        for runs in stage.facts.values()
        for run in runs
        for note in run.notes
    )
    commits = dict.fromkeys(
        run.commit for stage in stages for runs in stage.facts.values() for run in runs
    )
    made = f"Gathered at commit {result.commit}; asked at {', '.join(commits) or 'none'}."
    rule = "" if result.rule is None else paragraph(result.rule)
    given = ", ".join(f"{name} {value}" for name, value in result.options.items())
    options = paragraph(f"Options of all cells: {given}.") if given else ""
    cells = table_html(Table(("cell", "what it tries", "experiments.train"), ideas))
    return rule + options + cells + listing(notes) + paragraph(made)
