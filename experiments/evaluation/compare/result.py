"""The result of a comparison of orders, and the tables that a reader sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.evaluation.compare.diagnostics import Diagnostics
from experiments.evaluation.compare.saccade_costs import PaidComparison
from experiments.evaluation.intervals import Interval
from experiments.evaluation.run_result import RunResult, scans
from experiments.tables import Table, marked, plural, short_commit, signed

SHOWN = (
    "oracle",
    "oracle_16",
    "policy",
    "uncertainty",
    "uncertainty_near",
    "saliency",
    "best_fixed",
    "other_image",
    "random",
    "center_out",
    "farthest_point",
    "raster",
)
"""Orders that records show, in their order."""
COLUMNS: tuple[str, ...] = (
    "order",
    "area under the error curve",
    "error at the end",
    "minus random, 95% interval",
    "minus policy, 95% interval",
    "images",
)
NARROW = ("order", "area", "final", *COLUMNS[3:])
"""The same columns where a terminal has little room."""

UNJUDGED = {
    "gap_closed": "the gap closed, as no oracle scanned or none beats random order",
    "chosen_percentile": "the percentile of the chosen patch",
    "own_share": "what another image's path loses, as there is none or no lead over random order",
    "not_better_than": "whether the policy is better than its controls, as a single image "
    "has no interval",
    "behind_rules": "whether a rule that learns nothing is better, as none scanned",
}
"""Why a finding can be missing."""


@dataclass(frozen=True, kw_only=True)
class OrderErrors:
    """Errors of one order over the test images.

    All intervals are over images: bootstraps, Student's t of less than 20; None = of one.
    """

    auc: float
    """Area under the error curve: mean error after fixations 1..T, over the error before."""
    auc_ci95: Interval | None
    final_error: float
    """Error after the last fixation, over the error before the first."""
    minus_random: float
    """Area minus that of random orders, paired over images."""
    minus_random_ci95: Interval | None
    minus_policy: float
    """Area minus that of the policy, paired over images."""
    minus_policy_ci95: Interval | None
    images: int
    """Test images that were scanned, the first ones; the oracles scan fewer than the others."""
    curve: tuple[float, ...]
    """Mean error before the first fixation and after each."""
    curve_half_width: tuple[float, ...] | None = None
    """Half of the normal interval of each; None = of a single image, or an old record."""
    path_length: float | None = None
    """Mean distance between successive fixations, in patches; None = there is a single one, or an
    old record, which does not say."""


@dataclass(frozen=True, kw_only=True)
class Comparison(RunResult):
    """Errors of all orders on the same test images, and what they say of the policy."""

    kind: ClassVar[str] = "compare"
    orders: dict[str, OrderErrors]
    """By name, best first."""
    gap_closed: float | None
    """Share of the gap from random to the oracle over all patches that the policy closes; None =
    there is no gap, or this oracle did not scan."""
    gap_closed_ci95: Interval | None
    gap_closed_oracle_16: float | None
    """The same with the oracle over 16 random patches."""
    gap_closed_oracle_16_ci95: Interval | None
    diagnostics: Diagnostics
    not_better_than: tuple[str, ...] | None = None
    """Controls that the policy fails to beat; None = an old record, which does not say."""
    percentile_images: int | None = None
    """Images on which the percentile of the chosen patch was measured, the first ones; None = an
    old record, which does not say."""
    visited_entropy: float | None = None
    """Entropy over images of whether the policy visits a patch, summed over patches, as a share of
    the most that there can be: 0 = the same patches in all images, 1 = as of random ones. None = an
    old record, which does not say."""
    nearly_collapsed: tuple[str, ...] | None = None
    """Signs by which the policy has won too little; None = an old record, which does not say."""
    behind_rules: tuple[str, ...] | None = None
    """Rules that do not learn where to look, and are better than the policy; None = no rule
    scanned, or an old record, which does not say."""
    level_with_rules: tuple[str, ...] | None = None
    """Such rules that may be as good as the policy; None as above."""
    not_judged: tuple[str, ...] | None = None
    """Findings for which who would show them did not scan; None = an old record, which does not
    say."""
    commit: str
    dataset: str
    split: str
    seed: int
    """Of the training."""
    budget: int
    """Fixations per scan."""
    fixation_patches: int = 1
    """Patches that a fixation opens, at most."""
    num_patches: int
    periphery: int
    """Patches on a side of the thumbnail that is always visible; 0 = none."""
    saccade_cost: float = 0.0
    """What the policy paid in training per patch of distance."""
    with_saccade_cost: PaidComparison | None = None
    """By what the policy was paid for; None = saccades were free, or the reward is not ``auc``."""
    judge: str
    """Run whose model measured the errors; own = the run's."""
    test_images: int | None = None
    """Test images that all but the oracles scanned; None = an old record, which does not say."""
    without_policy: str | None = None
    """Says so where no policy has learned, so that nothing is found of one; None = one has."""

    def tables(self) -> list[Table]:
        """Return all orders, best first, with what they say of the policy."""
        caption = (
            f"{self.dataset}: {self._scans()}, error over the error "
            "before the first fixation;\narea = mean over fixations 1..T; differences paired over "
            "images, 95% interval"
        )
        entropy = self.diagnostics.fixation_entropy_nats
        notes = [
            *self._findings(),
            f"Fixation entropy over images, first to last step: {entropy[0]:.2f} to "
            f"{entropy[-1]:.2f} nats.",
        ]
        notes += self._warnings()
        columns: tuple[str, ...] = NARROW
        rows: list[tuple[str, ...]] = [self._row(name) for name in self.orders]
        if self.saccade_cost > 0:
            columns = (*NARROW, "saccade, patches")
            lengths = [row.path_length for row in self.orders.values()]
            rows = [
                (*row, "-" if length is None else f"{length:.2f}")
                for row, length in zip(rows, lengths, strict=True)
            ]
        table, paid = Table(columns, tuple(rows), caption, tuple(notes)), self.with_saccade_cost
        return [table] if paid is None else [table, paid.table(self.saccade_cost)]

    def summary(self, training: str) -> Table:
        """Return the table of a record: the orders of SHOWN.

        Args:
            training: how the run was trained, as ``run_result.training_facts`` writes it.
        """
        caption = (
            f"{self._scans()}, {'periphery' if self.periphery else 'blind'}, seed {self.seed}, "
            f"{training}, compared at `{short_commit(self.commit)}`."
        )
        columns, shown = COLUMNS, [name for name in SHOWN if name in self.orders]
        rows = tuple(self._row(name) for name in shown)
        if (paid := self.with_saccade_cost) is not None:
            columns += (paid.measure(self.saccade_cost), "the same minus policy, 95% interval")
            rows = tuple((*row, *paid.cells(name)) for name, row in zip(shown, rows, strict=True))
        return Table(columns, rows, caption, (" ".join(self._findings()), *self._warnings()))

    def _scans(self) -> str:
        """Say how long a scan is."""
        return scans(self.budget, self.num_patches, self.fixation_patches)

    def _row(self, name: str) -> tuple[str, ...]:
        row = self.orders[name]
        return (
            marked(name),
            f"{row.auc:.4f}",
            f"{row.final_error:.4f}",
            "" if name == "random" else signed(row.minus_random, row.minus_random_ci95),
            "" if name == "policy" else signed(row.minus_policy, row.minus_policy_ci95),
            str(row.images),
        )

    def _warnings(self) -> list[str]:
        """Say plainly where the policy has learned nothing, or nothing that was worth it."""
        lines, by = [], "" if self.with_saccade_cost is None else " by the area alone"
        if self.nearly_collapsed and not self.not_better_than:
            signs = ", ".join(self._sign(name) for name in self.nearly_collapsed)
            judged = "not_better_than" not in (self.not_judged or ())
            though = ", though significantly better" if judged else ""
            lines.append(f"NEARLY COLLAPSED{by}{though}: {signs}.")
        lines += verdicts(self, by)
        if self.with_saccade_cost is not None:
            lines += verdicts(self.with_saccade_cost, " by area + cost")
        if self.not_judged:
            lines.append(f"not judged: {'; '.join(UNJUDGED[name] for name in self.not_judged)}.")
        return lines

    def _sign(self, name: str) -> str:
        """Write a sign of near-collapse with its number."""
        if name == "chosen_percentile":
            return f"percentile of the chosen patch {self.diagnostics.chosen_percentile:.2f}"
        if name == "gap_closed":
            closed = self.gap_closed_oracle_16 if self.gap_closed is None else self.gap_closed
            return f"gap closed {share(closed, None).split()[0]}"
        lost = self.orders["other_image"].minus_policy / self.orders["random"].minus_policy
        return f"share of the lead over random that another image's path loses {lost:.1%}"

    def _findings(self) -> list[str]:
        """Parts of a paragraph on the policy."""
        if self.without_policy is not None:
            return [f"Nothing is said of a policy: {self.without_policy}."]
        signs, orders = self.diagnostics, self.orders
        own = "nothing, as there is no other image"
        if signs.own_minus_other is not None:
            own = signed(signs.own_minus_other, signs.own_minus_other_ci95)
        every = "patches" if self.fixation_patches == 1 else "fixations"
        oracle = f"the greedy oracle over all {every}"
        closed = {
            "oracle": (oracle, self.gap_closed, self.gap_closed_ci95),
            "oracle_16": (
                f"the oracle over 16 random {'ones' if 'oracle' in orders else every}",
                self.gap_closed_oracle_16,
                self.gap_closed_oracle_16_ci95,
            ),
        }
        ran = [name for name in closed if name in orders]
        parts = [
            f"{share(gap, interval)} of {'that' if position else 'the gap from random'} to {what}"
            for position, (what, gap, interval) in enumerate(closed[name] for name in ran)
        ]
        lines = []
        if ran:
            lines = [
                f"The policy closes {parts[0]}{',' if parts[1:] else ';'}",
                *(f"and {part};" for part in parts[1:]),
                f"the oracles scan the first {plural(orders[ran[0]].images, 'image')}, to which "
                "their gaps and differences refer.",
            ]
        return [
            *lines,
            f"Its own path minus another image's: {own};",
            f"{signs.distinct_orders} distinct orders on {plural(signs.images, 'image')}; "
            f"percentile of the chosen patch by true reward {signs.chosen_percentile:.2f}.",
        ]


def verdicts(of: Comparison | PaidComparison, by: str) -> list[str]:
    """Say which controls and rules the policy does not beat, and by which measure."""
    lines = []
    if of.not_better_than:
        lines.append(
            f"COLLAPSED{by}: the policy is not better than {' and '.join(of.not_better_than)}, "
            "which know nothing of the image."
        )
    for name in of.behind_rules or ():
        row = of.orders[name]
        low, high = row.minus_policy_ci95 or (row.minus_policy, row.minus_policy)
        lines.append(
            f"BEHIND THE RULE{by}: the policy is worse than {name}, which does not learn where to "
            f"look, by {-row.minus_policy:.4f} [{-high:.4f}, {-low:.4f}]."
        )
    lines += [
        f"The policy is no better{by} than {name}, which does not learn where to look: "
        f"{signed(of.orders[name].minus_policy, of.orders[name].minus_policy_ci95)}."
        for name in of.level_with_rules or ()
    ]
    return lines


def share(closed: float | None, interval: Interval | None) -> str:
    """Write the share of a gap that is closed, with its interval; ``-`` where there is no gap."""
    if closed is None:
        return "-"
    between = "-" if interval is None else f"{interval[0]:.1%}, {interval[1]:.1%}"
    return f"{closed:.1%} [{between}]"
