"""What a grid found: every measure of every cell, set against the baseline, and what did not go on.

Every sentence of the answer follows from an interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from experiments.studies.answers import Facts, Picture, is_error
from experiments.studies.rows import (
    BETTER,
    NO_INTERVAL,
    NOT_BETTER,
    TOO_FEW,
    WORSE,
    Contrast,
    notes_on,
)
from experiments.studies.stage import Stage
from experiments.tables import Result, Table, marked, plural, short_commit, signed, with_interval

VERDICTS = {
    BETTER: "better than",
    WORSE: "WORSE than",
    NOT_BETTER: "NOT better than",
    NO_INTERVAL: f"{NO_INTERVAL} against",
    TOO_FEW: f"{TOO_FEW}, against",
}
"""How an answer says each word of a contrast, in its order."""
OTHERS, EXCLUDED = "other measures", "what the data exclude"
"""Titles of tables of sentences."""


@dataclass(frozen=True, kw_only=True)
class GridResult(Result):
    """A whole study."""

    kind: ClassVar[str] = "grid"

    name: str
    question: str
    baseline: str
    ideas: dict[str, str]
    """What each cell tries."""
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Cells whose runs a cell needs, of those that need some; their operations come on top."""
    rule: str | None
    """By which cells go on, said beforehand; None = all do."""
    measure: str = ""
    """Which decides, said beforehand; empty = the first that was asked."""
    trainings: dict[str, str] = field(default_factory=dict)
    """Words of experiments.train of each cell; of those that are a config there are none."""
    options: dict[str, str] = field(default_factory=dict)
    """Of experiments.train for all cells, as the command gave them."""
    screened: Stage | None
    final: Stage | None
    """None = it has not begun."""
    dropped: dict[str, str]
    """Why a cell did not go on."""
    undecided: str | None = None
    """Why the rule cannot be applied yet."""
    verdict_seeds: int = 1
    """Seeds of which fewer call no cell better or worse; none of a screening do."""
    scans: dict[str, list[Picture]] = field(default_factory=dict)
    """Scans of a few test images, of the cells that have some."""
    threads: int
    device: str = "cpu"
    """Of the runs of the last call; of a GPU its name."""
    commit: str

    @property
    def last(self) -> Stage | None:
        """The final stage, or else the screening."""
        return self.final or self.screened

    @property
    def failures(self) -> dict[str, str]:
        """Why runs of any stage failed."""
        stages = [stage for stage in (self.screened, self.final) if stage is not None]
        return {run: why for stage in stages for run, why in stage.failed.items()}

    def measures_of(self, stage: Stage) -> tuple[str, ...]:
        """Return the measures of a stage, first the one that decides."""
        return tuple(sorted(stage.measures, key=lambda measure: measure != self.measure))

    def answer(self) -> tuple[str, ...]:
        """Say what the intervals of the measure that decides say, and what is missing."""
        lines = []
        stage = self.last
        if self.final is None:
            why = self.undecided or "the final runs have not begun"
            lines.append(f"No answer yet: {why}.")
        elif self.final.waiting:
            lines.append(f"Not whole yet: {plural(len(self.final.waiting), 'run')} to go.")
        if stage is None:
            return (*lines, "No run is done.")
        nothing = "Nothing was measured." if stage.facts else "No run has answered."
        lines += self._verdicts(stage, self.measures_of(stage)[0]) if stage.rows else [nothing]
        lines += [
            f"{cell} took more than its own operations: it needs {cost}."
            for cell in stage.facts
            if (cost := self._cost_of_needs(stage, cell))
        ]
        if self.dropped:
            lines.append(f"Did not go on: {', '.join(self.dropped)}.")
        if stage.failed:
            lines.append(f"Failed: {', '.join(stage.failed)}.")
        return tuple(lines)

    def other_measures(self) -> tuple[str, ...]:
        """Say what the intervals of all other measures say."""
        stage = self.last
        if stage is None:
            return ()
        others = self.measures_of(stage)[1:]
        return tuple(line for each in others for line in self._verdicts(stage, each))

    def _cost_of_needs(self, stage: Stage, cell: str) -> str:
        """Say which runs a run of the cell needs, and their operations; nothing of most."""
        return ", ".join(
            f"{name}, {said_teraflops(stage.facts.get(name, ()))} TFLOP"
            for name in self.needs.get(cell, ())
        )

    def _verdicts(self, stage: Stage, measure: str) -> list[str]:
        """Say how cells compare in a measure: with the baseline, and with their own ones."""
        rows = stage.of(measure)
        contrasts = [each for row in rows for each in row.contrasts(self.baseline)]
        plain = [each for each in contrasts if each.against == self.baseline]
        own = [each for each in contrasts if each.against != self.baseline]
        if not contrasts:
            row = rows[0]
            value = with_interval(row.value.mean, row.interval)
            return [f"{measure}: {row.cell} {value}; nothing to set it against."]
        lines = [f"{measure}, same parts: {self._said(own, stage)}."] if own else []
        lines += [f"{measure}: {self._said(plain, stage)}."] if plain else []
        alone = [row.cell for row in rows if not row.contrasts(self.baseline)]
        apart = ", ".join(name for name in alone if name != self.baseline)
        return lines + (
            [f"{measure}: not compared with {self.baseline}: {apart}."] if apart else []
        )

    def _said(self, contrasts: Sequence[Contrast], stage: Stage) -> str:
        said: dict[tuple[str, str], list[str]] = {}
        for word in VERDICTS:
            for each in contrasts:
                if self._word(each, stage) == word:
                    said.setdefault((word, each.against), []).append(
                        f"{each.cell} {each.difference}"
                    )
        return "; ".join(
            f"{VERDICTS[word]} {against}: {', '.join(cells)}"
            for (word, against), cells in said.items()
        )

    def _word(self, contrast: Contrast, stage: Stage) -> str:
        """Say how a cell compares; what is screened is chosen by few seeds, and not judged."""
        return contrast.word(math.inf if stage is self.screened else self.verdict_seeds)

    def exclusions(self) -> tuple[str, ...]:
        """Say of each measure who is closest to a gain, and which gains the data exclude.

        Each cell is set against its own baseline, or else against the grid's. What was dropped is
        in the screening alone.
        """
        lines = []
        for stage in (self.final, self.screened):
            for measure in () if stage is None else self.measures_of(stage):
                assert stage is not None, "measures are of a stage"
                rows = stage.of(measure)
                found = [each for row in rows for each in row.contrasts(self.baseline)[-1:]]
                prefix = "In screening, " if stage is self.screened else ""
                lines += [prefix + self._excluded(stage, found)] if found else []
        return tuple(lines)

    def _excluded(self, stage: Stage, contrasts: Sequence[Contrast]) -> str:
        best = max(contrasts, key=lambda each: each.better)
        gain = "largest gain" if best.better > 0 else "closest to a gain"
        bounds = {
            each.cell: max(0.0, each.most_gained)
            for each in contrasts
            if each.most_gained is not None and self._word(each, stage) != TOO_FEW
        }
        highest_first = sorted(bounds, key=lambda cell: -bounds[cell])
        listed = ", ".join(f"{bounds[cell]:.3f} of {cell}" for cell in highest_first)
        end = f"the data exclude gains above {listed}" if bounds else f"{TOO_FEW} what they exclude"
        return f"{best.measure}: {gain}: {best.cell} {best.difference} over {best.against}; {end}."

    def negatives(self) -> tuple[str, ...]:
        """Say all that did not work, and what the data exclude."""
        lines = [f"{cell} did not go on: {why}." for cell, why in self.dropped.items()]
        lines += [f"{run} failed: {why}" for run, why in self.failures.items()]
        stage = self.last
        if stage is None:
            return tuple(lines)
        for each in (each for row in stage.rows for each in row.contrasts(self.baseline)):
            word, bound = self._word(each, stage), each.most_gained
            if word in (WORSE, NOT_BETTER) and bound is not None:
                lines.append(
                    f"{each.cell} is {word} than {each.against} in {each.measure}: "
                    f"{each.difference}; the data exclude a gain above {max(0.0, bound):.3f}."
                )
        return tuple(lines)

    def tables(self) -> list[Table]:
        """Return the answer, what it excludes, and the tables of each stage, last first."""
        listed = {OTHERS: self.other_measures(), EXCLUDED: self.exclusions()}
        said = [Table(("answer",), in_rows(self.answer()), self.question)]
        said += [Table((title,), in_rows(lines)) for title, lines in listed.items() if lines]
        stages = [stage for stage in (self.final, self.screened) if stage is not None]
        return [*said, *(table for stage in stages for table in self.tables_of(stage))]

    def tables_of(self, stage: Stage) -> list[Table]:
        """Return the tables of a stage."""
        tables = [self._measure_table(stage, measure) for measure in self.measures_of(stage)]
        if tables:
            tables.append(self.compute_table(stage))
        if self.dropped and stage is self.screened:
            dropped = tuple(self.dropped.items())
            tables.append(Table(("dropped", "why"), dropped, self.rule or ""))
        if stage.failed:
            tables.append(Table(("failed", "why"), tuple(stage.failed.items())))
        return tables

    def _measure_table(self, stage: Stage, measure: str) -> Table:
        rows = stage.of(measure)
        own = any(row.own_baseline is not None for row in rows)
        lines = []
        for row in rows:
            each, mine = row.minus_baseline, row.minus_own_baseline
            name = marked(row.cell, self.baseline)
            seeds_alone = "" if each is None else signed(each.mean, each.ci95_seeds, 3)
            value = with_interval(row.value.mean, row.interval)
            less = "" if each is None else str(each)
            same_parts = "" if mine is None else f"{mine} ({row.own_baseline})"
            extra = (same_parts,) if own else ()
            lines.append((name, value, less, *extra, seeds_alone, str(len(row.seeds))))
        single = all(len(row.seeds) == 1 for row in rows)
        better = "lower is better" if is_error(measure) else "higher is better"
        return Table(
            columns=(
                "cell",
                measure,
                f"minus {self.baseline}, over {'images' if single else 'seeds and images'}",
                *(("minus a cell of the same parts",) if own else ()),
                "over seeds alone",
                "seeds",
            ),
            rows=tuple(lines),
            caption=f"{stage.title}; {measure}, {better}; 95% intervals.",
            notes=notes_on(rows, self.baseline),
        )

    def compute_table(self, stage: Stage) -> Table:
        """Return what the runs of each cell took, mean over seeds."""
        needing = any(self.needs.get(cell) for cell in stage.facts)
        every = (facts.commit for each in stage.facts.values() for facts in each)
        commits = ", ".join(dict.fromkeys(f"`{short_commit(commit)}`" for commit in every))
        on = "" if self.device == "cpu" else f" on {self.device}"
        rows = []
        for cell, each in stage.facts.items():
            first = each[0]
            rows.append(
                (
                    cell,
                    said_teraflops(each),
                    *((self._cost_of_needs(stage, cell),) if needing else ()),
                    str(first.images),
                    f"{sum(facts.train_seconds for facts in each) / len(each) / 60:.1f}",
                    f"{first.parameters / 1e6:.3g}",
                    f"{first.iterations[0]} + {first.iterations[1]}",
                )
            )
        return Table(
            (
                "compute",
                "TFLOP a run",
                *(("and what it needs",) if needing else ()),
                *("images", "minutes", "M parameters", "iterations"),
            ),
            tuple(rows),
            f"{stage.title}; operations of the training, in 10^12, rollouts included.",
            (f"{plural(self.threads, 'CPU thread')} a run{on}, asked at commit {commits}.",),
        )


def in_rows(lines: Sequence[str]) -> tuple[tuple[str], ...]:
    """Return sentences as the rows of a table."""
    return tuple((line,) for line in lines)


def said_teraflops(runs: Sequence[Facts]) -> str:
    """Write the operations of a training, 10^12, mean over runs; - = they were not counted."""
    counted = [facts.teraflops for facts in runs if facts.teraflops is not None]
    return f"{sum(counted) / len(counted):.3g}" if counted else "-"
