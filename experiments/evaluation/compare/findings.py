"""What a comparison says of the policy: has it collapsed, or nearly, and is it worth its learning?

Significant differences can be small: the size of what was won is judged as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from experiments.evaluation.compare.diagnostics import Diagnostics
from experiments.evaluation.compare.result import OrderErrors
from experiments.evaluation.compare.saccade_costs import PaidComparison, PaidErrors
from experiments.evaluation.intervals import mean_interval
from foveate.orders.paths import Grid
from foveate.orders.saccades import path_length

IMAGE_INDEPENDENT = ("best_fixed", "other_image")
"""Controls that know nothing of the image; a policy that looks at it must beat them."""
RULES = ("uncertainty", "uncertainty_near")
"""Agents that do not learn where to look: what a learned policy must beat to be worth its learning.
Through the model they know what they have fixated."""
LEAST_GAP = 0.1
"""Share of the gap from random to the oracle below which a policy has won next to nothing."""
LEAST_PERCENTILE = 0.55
"""Percentile of the chosen fixation below which it is chosen as at random."""
LEAST_OWN_SHARE = 0.1
"""Share of what is won over random that another image's path loses, below which the path hardly
depends on the image. Runs that look had 0.46 to 0.91."""


def not_beaten(
    rows: Mapping[str, OrderErrors | PaidErrors], controls: Iterable[str]
) -> tuple[str, ...]:
    """Return the controls that may be as good as the policy, or better."""
    intervals = {name: rows[name].minus_policy_ci95 for name in controls if name in rows}
    return tuple(name for name, each in intervals.items() if each is not None and each[0] <= 0)


def is_behind(row: OrderErrors | PaidErrors) -> bool:
    """Whether the policy is surely worse than an order."""
    return row.minus_policy_ci95 is not None and row.minus_policy_ci95[1] < 0


def beside_rules(
    rows: Mapping[str, OrderErrors | PaidErrors],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the rules that the policy is surely behind, and those that it is level with."""
    behind = tuple(name for name in RULES if name in rows and is_behind(rows[name]))
    return behind, tuple(name for name in not_beaten(rows, RULES) if name not in behind)


def own_share(rows: Mapping[str, OrderErrors]) -> float | None:
    """Share of the policy's lead over random that it loses on the path of another image.

    None = there is no other image, or no lead.
    """
    if "other_image" not in rows or rows["random"].minus_policy <= 0:
        return None
    return rows["other_image"].minus_policy / rows["random"].minus_policy


def nearly_collapsed(
    rows: Mapping[str, OrderErrors], gap: float | None, diagnostics: Diagnostics
) -> tuple[str, ...]:
    """Return the signs by which a policy has won too little, whatever is significant.

    Args:
        rows: all orders.
        gap: share of the gap from random to the largest oracle that ran; None = there is none.
        diagnostics: of the policy.
    """
    return tuple(
        name
        for name, (value, least) in _signs(rows, gap, diagnostics).items()
        if value is not None and value < least
    )


def not_judged(
    rows: Mapping[str, OrderErrors], gap: float | None, diagnostics: Diagnostics
) -> tuple[str, ...]:
    """Return the signs of :func:`nearly_collapsed` that have no number, and what else is unknown.

    ``not_better_than`` where differences have no interval, and ``behind_rules`` where no rule
    scanned. Arguments are those of :func:`nearly_collapsed`.
    """
    unknown = [name for name, (value, _) in _signs(rows, gap, diagnostics).items() if value is None]
    if rows["random"].minus_policy_ci95 is None:
        unknown.append("not_better_than")
    if not any(name in rows for name in RULES):
        unknown.append("behind_rules")
    return tuple(unknown)


def _signs(
    rows: Mapping[str, OrderErrors], gap: float | None, diagnostics: Diagnostics
) -> dict[str, tuple[float | None, float]]:
    """Each sign of near-collapse with the number below which it shows."""
    return {
        "gap_closed": (gap, LEAST_GAP),
        "chosen_percentile": (diagnostics.chosen_percentile, LEAST_PERCENTILE),
        "own_share": (own_share(rows), LEAST_OWN_SHARE),
    }


def costs_of(
    order: Mapping[str, Int[Tensor, "R T *S"]], grid: Grid, saccade_cost: float
) -> dict[str, Float[np.ndarray, " R"]]:
    """Return what the saccades of scanpaths cost: ``saccade_cost * path length / fixations``.

    It is what the reward ``auc`` takes for each fixation, without discount.
    """
    return {
        name: saccade_cost * path_length(each, grid).cpu().numpy() / each.shape[1]
        for name, each in order.items()
    }


def judge_with_cost(
    area: Mapping[str, Float[np.ndarray, " R"]],
    order: Mapping[str, Int[Tensor, "R T *S"]],
    grid: Grid,
    saccade_cost: float,
) -> PaidComparison:
    """Judge orders by their area plus what their saccades cost.

    Args:
        area: under the error curve of each image, by order.
        order: scanpaths of the same images.
        grid: rows and columns of patches.
        saccade_cost: per patch of distance.
    """
    cost = costs_of({name: order[name] for name in area}, grid, saccade_cost)
    paid = {name: each + cost[name] for name, each in area.items()}
    rows = {}
    for name, each in paid.items():
        total, total_ci95 = mean_interval(each)
        less, less_ci95 = mean_interval(each - paid["policy"][: len(each)])
        rows[name] = PaidErrors(
            area_and_cost=total,
            area_and_cost_ci95=total_ci95,
            minus_policy=less,
            minus_policy_ci95=less_ci95,
        )
    behind, level = beside_rules(rows)
    return PaidComparison(
        orders=dict(sorted(rows.items(), key=lambda item: item[1].minus_policy)),
        not_better_than=not_beaten(rows, IMAGE_INDEPENDENT),
        behind_rules=behind,
        level_with_rules=level,
    )
