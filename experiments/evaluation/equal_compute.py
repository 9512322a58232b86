"""Training runs that take the same number of floating-point operations."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.timing import count_flops, saved_megabytes
from experiments.evaluation.orders_plan import UNTRAINED, Plan
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.trainer import Trainer

NUM_COUNTED = 4
"""Steps whose operations are counted: with ties they differ from batch to batch."""
SCANS_SHARE = 8
"""Images of a batch without a policy, for each image that a policy scans."""


@dataclass(frozen=True)
class CountedRun:
    """A config with its iterations, and the operations that they take."""

    config: TrainConfig
    operations: float


def at_equal_compute(plan: Plan, operations: float) -> CountedRun:
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
    warmup, iterations = (steps_within(operations / 2, step, plan.name) for step in (plain, joint))
    chosen = config.replace(warmup_iterations=warmup, iterations=iterations)
    return CountedRun(chosen, warmup * plain + iterations * joint)


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


def flops_per_step(config: TrainConfig, *, joint: bool) -> float:
    """Count the operations of a training step: model, order, rollouts and policy."""
    with tempfile.TemporaryDirectory() as folder:
        counted = config.replace(
            out=Path(folder),
            warmup_iterations=0 if joint else NUM_COUNTED,
            iterations=NUM_COUNTED if joint else 0,
            limit=min(config.data.limit or 1000, 1000),
        )
        trainer = Trainer(counted, Processes.started(counted.run.device))

        def steps() -> None:
            for _ in range(NUM_COUNTED):
                trainer.step()

        return count_flops(steps) / NUM_COUNTED


def saved_mb(config: TrainConfig) -> float:
    """Return the memory of the activations that a step on the run's order saves, MB."""
    with tempfile.TemporaryDirectory() as folder:
        one_step = config.replace(out=Path(folder), warmup_iterations=1, iterations=0)
        return saved_megabytes(Trainer(one_step, Processes.started(one_step.run.device)).step)
