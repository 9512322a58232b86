"""What each row of the order study trains: an order on a common recipe, or a recipe of its own."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.training.config import TrainConfig
from experiments.training.presets import PIXEL_TOKENS, RECIPE_SIZES

POLICY = "policy"
UNTRAINED = "untrained"
"""Rows that are no order."""


@dataclass(frozen=True)
class PlannedRow:
    """A row before its iterations are chosen."""

    name: str
    config: TrainConfig
    learned: bool
    """Whether a policy learns: after half of the operations, jointly with the model."""


def plan_row(common: TrainConfig, name: str, *, of_recipes: bool, budget: int) -> PlannedRow:
    """Plan a row.

    Args:
        common: config that the rows share, on random orders.
        name: an order, or a recipe; ``policy`` and ``untrained`` are neither.
        of_recipes: whether the row is a recipe.
        budget: fixations per scan, of all rows that can be scanned.
    """
    config, learned = common, name == POLICY
    if of_recipes and name != UNTRAINED:
        sizes = RECIPE_SIZES.get(name, {})
        sizes = {key: sizes[key] for key in PIXEL_TOKENS if key in sizes}
        config = common.replace(
            recipe=name, order=None, target=None, memory=None, decoder_depth=None, **sizes
        )
        learned = config.parts.queries == "unseen"
    elif name not in (POLICY, UNTRAINED):
        config = common.replace(order=name)
    if config.parts.takes_budget:
        config = config.replace(budget=budget)
    if name == UNTRAINED:
        config = config.replace(model_lr=0.0)
    return PlannedRow(name, config, learned)
