"""How much less a policy leaves to be seen than the rules of the model's own doubt do."""

from __future__ import annotations

from experiments.evaluation.knowing.measure import areas_of
from experiments.evaluation.scanpaths import NEAR
from experiments.runs import Run
from experiments.studies.answers import Values
from experiments.studies.grid import Split

RULE = "uncertainty"


def minus_uncertainty(run: Run, split: Split, limit: int | None) -> Values:
    """Return the policy's area under the error curve minus that of the rule; negative is better.

    Where saccades cost something, area and cost are also set against the rule that knows the cost.
    """
    rules = (RULE, NEAR) if run.is_paid_area_and_cost else (RULE,)
    areas, costs = areas_of(run, ("policy", *rules), split, limit)
    values = {f"area, policy minus {RULE}": areas["policy"] - areas[RULE]}
    if costs:
        paid = {order: areas[order] + cost for order, cost in costs.items()}
        values[f"area and cost, policy minus {NEAR}"] = paid["policy"] - paid[NEAR]
    return values
