"""Orders judged by what a policy with a saccade cost is paid for: low error and short ways."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.evaluation.intervals import Interval
from experiments.tables import Table, marked, signed

LEAST_SHARE = 0.01
"""Share of the policy's area plus cost below which a difference is next to nothing."""


@dataclass(frozen=True, kw_only=True)
class PaidErrors:
    """Area plus cost of one order: ``area + saccade_cost * length of its path / fixations``.

    It is what the reward ``auc`` takes for each fixation, without discount. All intervals are
    over images: bootstraps, Student's t of less than 20; None = of one.
    """

    area_and_cost: float
    area_and_cost_ci95: Interval | None
    minus_policy: float
    """Area plus cost minus that of the policy, paired over images."""
    minus_policy_ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class PaidComparison:
    """What the area plus the cost of saccades says of the policy."""

    orders: dict[str, PaidErrors]
    """By name, best first."""
    not_better_than: tuple[str, ...]
    """Controls that the policy fails to beat."""
    behind_rules: tuple[str, ...]
    """Rules that do not learn where to look, and are better than the policy."""
    level_with_rules: tuple[str, ...]
    """Such rules that may be as good as the policy."""

    def cells(self, name: str) -> tuple[str, str]:
        """Return what tables show of an order: its area plus cost, and that minus the policy's."""
        row = self.orders[name]
        less = "" if name == "policy" else signed(row.minus_policy, row.minus_policy_ci95)
        return f"{row.area_and_cost:.4f}", less

    @staticmethod
    def measure(saccade_cost: float) -> str:
        """Name area plus cost, of so much per patch of distance."""
        return f"area + {saccade_cost:g} x path length / fixations"

    def table(self, saccade_cost: float) -> Table:
        """Return all orders, best first."""
        rows = tuple((marked(name), *self.cells(name)) for name in self.orders)
        return Table(
            ("order", "area + cost", "minus policy, 95% interval"),
            rows,
            f"What the policy was paid for: area + cost = {self.measure(saccade_cost)}",
            (self.standing(),),
        )

    def standing(self) -> str:
        """Say which orders the policy is better and worse than, and which hardly differ."""
        others = {name: row for name, row in self.orders.items() if name != "policy"}
        known = {name: row.minus_policy_ci95 for name, row in others.items()}
        if not any(known.values()):
            return "By area + cost nothing is judged: there are too few images for intervals."
        better = [name for name, between in known.items() if between and between[0] > 0]
        worse = [name for name, between in known.items() if between and between[1] < 0]
        least = LEAST_SHARE * abs(self.orders["policy"].area_and_cost)
        hardly = [
            f"{name} ({others[name].minus_policy:+.4f})"
            for name in (*better, *worse)
            if abs(others[name].minus_policy) < least
        ]
        said = f"By area + cost the policy is better than {', '.join(better) or 'none of them'}"
        said += f", and worse than {', '.join(worse)}" if worse else ""
        note = (
            f" Though significant, it is next to nothing, below {LEAST_SHARE:.0%} of the policy's "
            f"area + cost: {', '.join(hardly)}."
        )
        return f"{said}.{note if hardly else ''}"
