"""Orders judged by what a policy with a saccade cost is paid for: low error and short ways."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.evaluation.intervals import Interval
from experiments.tables import Table, signed


@dataclass(frozen=True, kw_only=True)
class PaidErrors:
    """Area plus cost of one order: ``area + saccade_cost * length of its path / fixations``.

    It is what the reward ``auc`` takes for each fixation, without discount. All intervals are
    bootstraps over images; None = of less than three.
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
        rows = tuple(
            (f"**{name}**" if name == "policy" else name, *self.cells(name)) for name in self.orders
        )
        beaten = [
            name
            for name, row in self.orders.items()
            if row.minus_policy_ci95 is not None and row.minus_policy_ci95[0] > 0
        ]
        return Table(
            ("order", "area + cost", "minus policy, 95% interval"),
            rows,
            f"What the policy was paid for: area + cost = {self.measure(saccade_cost)}",
            (f"By area + cost the policy is better than {', '.join(beaten) or 'none of them'}.",),
        )
