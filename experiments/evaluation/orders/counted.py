"""The runs of the order study, which take the same number of floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.evaluation.equal_compute import flops_per_step, flops_to_begin
from experiments.evaluation.orders.plan import UNTRAINED, PlannedRow
from experiments.training.config import TrainConfig

SCANS_SHARE = 8
"""Images of a batch without a policy, for each image that a policy scans."""


@dataclass(frozen=True)
class CountedRun:
    """A config with its iterations, and the operations that they take."""

    config: TrainConfig
    operations: float


def at_equal_compute(plan: PlannedRow, operations: float) -> CountedRun:
    """Choose a row's iterations to fill so many operations.

    They are the same for all seeds: counted with seed 0.

    Raises:
        ValueError: the operations pay for no step.
    """
    config = plan.config
    if plan.name == UNTRAINED:
        return CountedRun(config, 0.0)
    plain = flops_per_step(config, joint=False)
    if not plan.learned:
        warmup = steps_within(operations, plain, plan.name)
        return CountedRun(config.replace(warmup_iterations=warmup), warmup * plain)
    num_scanned = max(1, config.optimization.warmup_batch_size // SCANS_SHARE)
    config = config.replace(iterations=1, batch_size=num_scanned)
    joint = flops_per_step(config, joint=True)
    once = flops_to_begin(config)
    warmup = steps_within(operations / 2, plain, plan.name)
    iterations = steps_within(operations / 2 - once, joint, plan.name)
    chosen = config.replace(warmup_iterations=warmup, iterations=iterations)
    return CountedRun(chosen, warmup * plain + once + iterations * joint)


def steps_within(operations: float, per_step: float, name: str) -> int:
    """Return the training steps that so many operations pay for.

    Raises:
        ValueError: not one.
    """
    if operations < per_step:
        raise ValueError(
            f"{operations / 1e12:.2g} teraflops pay for no training step of {name}, which takes "
            f"{per_step / 1e12:.2g}; raise --teraflops"
        )
    return round(operations / per_step)
