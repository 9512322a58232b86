"""The result of a comparison with human viewers, and the tables that a reader sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.evaluation.intervals import Interval
from experiments.evaluation.run_result import RunResult
from experiments.tables import Table, plural, signed, with_interval
from foveate.human.multi_match import DIMENSIONS, NOT_INSTALLED

UNIFORM, CENTER, VIEWERS, OTHER_VIEWERS = "uniform", "center_bias", "viewers", "other_image_viewers"
RETURNING = "center_bias_returns"
HUMAN = (VIEWERS, OTHER_VIEWERS, RETURNING, CENTER, UNIFORM)
"""Nulls and ceilings, which need no run."""


@dataclass(frozen=True, kw_only=True)
class HumanRow:
    """What one contender says of human fixations.

    All intervals are bootstraps over images; None = of less than three. Bits and the like are means
    over fixations within an image, and then over images.
    """

    bits: float
    """Bits per fixation over the uniform density."""
    bits_ci95: Interval | None
    minus_center: float
    """Bits per fixation over the center bias, paired over images."""
    minus_center_ci95: Interval | None
    minus_policy: float | None = None
    """Bits per fixation over the policy, paired over images; None without a run."""
    minus_policy_ci95: Interval | None = None
    with_center: float | None = None
    """Bits over the center bias of the center bias times the softmax; None of nulls and people."""
    with_center_ci95: Interval | None = None
    as_trained: float | None = None
    """Bits over uniform of the policy's own probabilities, to which nothing is fitted."""
    gap_covered: float | None
    """Of the bits from center bias to other viewers, the share; None without a gap."""
    factor: float | None = None
    """Fitted factor of the scores, over their deviation; 0 = they say nothing."""
    nss: float
    nss_ci95: Interval | None
    auc_judd: float
    auc_judd_ci95: Interval | None
    scan_match: float | None
    """Mean over scanpaths of each image, compared with every viewer; None = it makes none."""
    scan_match_ci95: Interval | None
    multi_match: dict[str, float] | None = None
    """Mean of each dimension; None = not installed, or no scanpaths."""
    amplitude: float | None
    """Mean length of a saccade, over the image's diagonal."""
    directions: tuple[float, ...] | None
    """Share of saccades in 8 sectors, counterclockwise from the right."""
    revisit_share: float | None
    """Share of fixations that fall on a cell fixated before."""
    contrast: float | None
    """Mean rank of the fixated cells by contrast, 0 = lowest of the image to 1 = highest."""
    images: int
    """Test images, the first ones."""

    @property
    def horizontal(self) -> float | None:
        """Share of saccades to the right and to the left."""
        return None if self.directions is None else self.directions[0] + self.directions[4]


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
    budget: int | None = None
    periphery: int | None = None
    saccade_cost: float | None = None

    def tables(self) -> list[Table]:
        """Return the densities, and the scanpaths."""
        return [self._densities(), self._scanpaths()]

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
            f"{plural(self.train_images, 'training image')}."
        )

    def findings(self) -> tuple[str, ...]:
        """Return sentences about the policy; none without a run."""
        policy = self.orders.get("policy")
        if policy is None:
            return ()
        name = self.baseline.replace("_", " ")
        lines = [
            f"The policy is {_above(policy.minus_center_ci95)} the {name}: "
            f"{signed(policy.minus_center, policy.minus_center_ci95, 3)} bits per fixation.",
        ]
        if policy.with_center is not None:
            added = signed(policy.with_center, policy.with_center_ci95, 3)
            lines.append(f"Multiplied with the {name} it adds {added} bits to it.")
        others = [each for each in self.orders if each not in (*HUMAN, "policy")]
        closer = [each for each in others if _is_below(self.orders[each].minus_policy_ci95)]
        rest = [each for each in others if each not in closer]
        if closer:
            lines.append(f"It says more of human fixations than {', '.join(closer)}.")
        if rest:
            lines.append(f"It does NOT say more of them than {', '.join(rest)}.")
        return tuple(lines)

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
            columns += ("times center bias, minus it", "minus policy", "images")
        rows = []
        for name, row in self.orders.items():
            cells: tuple[str, ...] = (
                _bold(name),
                with_interval(row.bits, row.bits_ci95),
                signed(row.minus_center, row.minus_center_ci95, 3),
                "-" if row.gap_covered is None else f"{row.gap_covered:.0%}",
                f"{row.nss:.2f}",
                f"{row.auc_judd:.3f}",
            )
            if has_run:
                times = _or_dash(row.with_center, row.with_center_ci95)
                beside = _or_dash(row.minus_policy, row.minus_policy_ci95)
                cells += (times, beside, str(row.images))
            rows.append(cells)
        notes = [
            f"Bits per fixation, given the viewer's own history. Minus center bias: minus "
            f"{self.baseline}. Gap: share of the bits from there to {VIEWERS}, the other viewers "
            "of the image.",
        ]
        if has_run:
            own = self.orders["policy"].as_trained
            notes += [
                "Every order and agent, the policy too, is a softmax of its scores, with one "
                "temperature that is fitted to viewers of training images.",
                f"The policy's own probabilities, nothing fitted: {own:.3f} bits over uniform.",
            ]
            if self.revisits:
                notes.append(
                    "None of them returns: fixations of viewed cells get the share that they have "
                    f"in training, all viewed cells alike, as in {RETURNING}."
                )
        return Table(columns, tuple(rows), self.caption, (*notes, *self.findings(), *self.left_out))

    def _scanpaths(self) -> Table:
        columns = (
            "scanpaths",
            "ScanMatch, 95% interval",
            f"MultiMatch {', '.join(DIMENSIONS)}",
            "saccade",
            "horizontal",
            "revisits",
            "contrast",
        )
        shown = [(name, row) for name, row in self.orders.items() if row.scan_match is not None]
        rows = tuple(
            (
                _bold(name),
                with_interval(row.scan_match or 0.0, row.scan_match_ci95),
                self._multi_match(row),
                *(
                    "-" if each is None else f"{each:.3f}"
                    for each in (row.amplitude, row.horizontal, row.revisit_share, row.contrast)
                ),
            )
            for name, row in sorted(shown, key=lambda each: -(each[1].scan_match or 0.0))
        )
        notes = (
            "Each is as long as the viewer's that it is compared with. Saccade: mean length over "
            "the image's diagonal. Horizontal: share of saccades. Contrast: rank of the fixated "
            "cells in their image, 0.5 = as random.",
        )
        missing = () if self.multi_match_installed else (f"{NOT_INSTALLED}.",)
        return Table(columns, rows, notes=(*notes, *missing))

    def _multi_match(self, row: HumanRow) -> str:
        if row.multi_match is None:
            return "-" if self.multi_match_installed else "not installed"
        return " ".join(f"{row.multi_match[each]:.3f}" for each in DIMENSIONS)


def _bold(name: str) -> str:
    return f"**{name}**" if name == "policy" else name


def _or_dash(mean: float | None, interval: Interval | None) -> str:
    return "-" if mean is None else signed(mean, interval, 3)


def _is_below(interval: Interval | None) -> bool:
    return interval is not None and interval[1] < 0


def _above(interval: Interval | None) -> str:
    if interval is None:
        return "on too few images to be judged against"
    if interval[0] > 0:
        return "above"
    return "below" if interval[1] < 0 else "NOT above"
