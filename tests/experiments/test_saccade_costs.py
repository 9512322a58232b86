"""What is said of orders by area plus cost, of differences planted by hand."""

from __future__ import annotations

import pytest

from experiments.evaluation.compare.saccade_costs import PaidComparison, PaidErrors


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        (
            {"random": 0.2, "center_out": 0.003, "uncertainty": -0.1, "raster": 0.0},
            "By area + cost the policy is better than random, center_out, and worse than "
            "uncertainty. Though significant, it is next to nothing, below 1% of the policy's area "
            "+ cost: center_out (+0.0030).",
        ),
        (
            {"random": -0.2},
            "By area + cost the policy is better than none of them, and worse than random.",
        ),
        ({"random": 0.2}, "By area + cost the policy is better than random."),
    ],
)
def test_wins_losses_and_next_to_nothing_are_said(differences: dict[str, float], said: str) -> None:
    rows = {
        name: PaidErrors(
            area_and_cost=0.5 + each,
            area_and_cost_ci95=None,
            minus_policy=each,
            minus_policy_ci95=(each - 0.001, each + 0.001),
        )
        for name, each in {"policy": 0.0, **differences}.items()
    }
    paid = PaidComparison(orders=rows, not_better_than=(), behind_rules=(), level_with_rules=())
    assert paid.table(0.01).notes == (said,)
