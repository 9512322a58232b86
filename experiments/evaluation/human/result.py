"""The result of a comparison with human viewers, and the tables that a reader sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.evaluation.human.findings import findings
from experiments.evaluation.human.means import HUMAN, NEARNESS, RETURNING, VIEWERS, HumanRow
from experiments.evaluation.intervals import Interval
from experiments.evaluation.run_result import RunResult
from experiments.tables import Table, marked, plural, signed, with_interval
from foveate.human.multi_match import DIMENSIONS, NOT_INSTALLED


@dataclass(frozen=True, kw_only=True)
class HumanComparison(RunResult):
    """Nulls, ceilings, and every order and agent beside human viewers."""

    kind: ClassVar[str] = "human"

    orders: dict[str, HumanRow]
    """By name, most bits first."""
    baseline: str
    """The row that ``minus_center`` is over."""
    dataset: str
    grid: tuple[int, int]
    test_images: int
    train_images: int
    num_scanpaths: int
    """Viewers' scanpaths on the test images."""
    num_fixations: int
    """Their scored fixations."""
    first_fixation: bool
    revisits: bool
    spread: float
    """Of the viewers' density, over the image's diagonal."""
    center_share: float
    """Of the center bias in the viewers' density."""
    left_out: tuple[str, ...]
    """What was left out of the file, in words."""
    multi_match_installed: bool
    commit: str
    run_data: str | None = None
    """What the run was trained on; None without a run."""
    seed: int | None = None
    """Of a single run."""
    seeds: tuple[int, ...] = ()
    """Of the runs; older results do not say."""
    budget: int | None = None
    periphery: int | None = None
    saccade_cost: float | None = None

    def tables(self) -> list[Table]:
        """Return the densities, the scanpaths, and of several runs the bits of each."""
        tables = [self._densities(), self._scanpaths()]
        return [*tables, self._seeds()] if len(self.seeds) > 1 else tables

    @property
    def caption(self) -> str:
        """Say what was compared, and how."""
        rows, cols = self.grid
        scored = "first fixations scored" if self.first_fixation else "first fixations given"
        kept = "revisits kept" if self.revisits else "revisits dropped"
        whose = "" if self.budget is None else f", the first {self.budget} of each scanpath"
        return (
            f"{self.dataset}: {plural(self.num_fixations, 'fixation')} of "
            f"{plural(self.num_scanpaths, 'scanpath')} on {plural(self.test_images, 'test image')},"
            f" {rows}x{cols} cells, {scored}, {kept}{whose}; fitted on "
            f"{plural(self.train_images, 'training image')}.{self._of_runs}"
        )

    @property
    def _of_runs(self) -> str:
        if len(self.seeds) < 2:
            return ""
        return (
            f" Means of runs of seeds {', '.join(map(str, self.seeds))}, with intervals over seeds "
            "and images at once; of nulls and viewers over images."
        )

    def findings(self) -> tuple[str, ...]:
        """Return sentences about the policy; none without a run."""
        return findings(self.orders, self.baseline)

    def _densities(self) -> Table:
        columns: tuple[str, ...] = (
            "density of the next fixation",
            "bits over uniform",
            "minus center bias, 95% interval",
            "gap",
            "NSS",
            "AUC",
        )
        has_run = "policy" in self.orders
        if has_run:
            columns += (
                "times center bias, minus it",
                f"times {NEARNESS}, minus it",
                "minus policy",
                "images",
            )
        rows = []
        for name, row in self.orders.items():
            cells: tuple[str, ...] = (
                marked(name),
                with_interval(row.bits, row.bits_ci95),
                signed(row.minus_center, row.minus_center_ci95, 3),
                "-" if row.gap_covered is None else f"{row.gap_covered:.0%}",
                f"{row.nss:.2f}",
                f"{row.auc_judd:.3f}",
            )
            if has_run:
                times = _or_dash(row.with_center, row.with_center_ci95)
                near = _or_dash(row.with_near, row.with_near_ci95)
                beside = _or_dash(row.minus_policy, row.minus_policy_ci95)
                cells += (times, near, beside, str(row.images))
            rows.append(cells)
        notes = [
            f"Bits per fixation, given the viewer's own history. Minus center bias: minus "
            f"{self.baseline}. Gap: share of the bits from there to {VIEWERS}, the other viewers "
            "of the image.",
        ]
        if has_run:
            notes.append(
                "Every order and agent, the policy too, is a softmax of its scores, with one "
                "temperature that is fitted to viewers of training images."
            )
            if (own := self.orders["policy"].as_trained) is not None:
                notes.append(
                    f"The policy's own probabilities, nothing fitted: {own:.3f} bits over uniform."
                )
            if self.revisits:
                notes.append(
                    "None of them returns: fixations of viewed cells get the share that they have "
                    f"in training, all viewed cells alike, as in {RETURNING}."
                )
        notes += [*self.findings(), *self.left_out]
        return Table(columns, tuple(rows), self.caption, tuple(notes))

    def _scanpaths(self) -> Table:
        columns = (
            "scanpaths",
            "ScanMatch, 95% interval",
            f"MultiMatch {', '.join(DIMENSIONS)}",
            "saccade",
            "horizontal",
            "revisits",
            "contrast",
            "from center",
        )
        shown = [(name, row) for name, row in self.orders.items() if row.scan_match is not None]
        rows = tuple(
            (
                marked(name),
                with_interval(row.scan_match or 0.0, row.scan_match_ci95),
                self._multi_match(row),
                *(
                    "-" if each is None else f"{each:.3f}"
                    for each in (
                        row.amplitude,
                        row.horizontal,
                        row.revisit_share,
                        row.contrast,
                        row.center_distance,
                    )
                ),
            )
            for name, row in sorted(shown, key=lambda each: -(each[1].scan_match or 0.0))
        )
        notes = (
            "Each is as long as the viewer's that it is compared with, but viewers, who are "
            "compared with others at their own lengths. MultiMatch: of pairs of three or more "
            "fixations each. Saccade: mean length over "
            "the image's diagonal. Horizontal: share of saccades. Contrast: rank of the fixated "
            "cells in their image, 0.5 = as random. From center: mean distance over the diagonal.",
        )
        missing = () if self.multi_match_installed else (f"{NOT_INSTALLED}.",)
        return Table(columns, rows, notes=(*notes, *missing))

    def _seeds(self) -> Table:
        """Return bits over the center bias, of each run alone."""
        rows = (
            (marked(name), *(f"{each:+.3f}" for each in row.per_seed["minus_center"]))
            for name, row in self.orders.items()
            if name not in HUMAN
        )
        columns = ("minus center bias, by seed", *map(str, self.seeds))
        return Table(columns, tuple(rows))

    def _multi_match(self, row: HumanRow) -> str:
        if row.multi_match is None:
            return "-" if self.multi_match_installed else "not installed"
        return " ".join(f"{row.multi_match[each]:.3f}" for each in DIMENSIONS)


def _or_dash(mean: float | None, interval: Interval | None) -> str:
    return "-" if mean is None else signed(mean, interval, 3)
