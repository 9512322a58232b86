"""How many floating-point operations, and how much memory, training steps take."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from experiments.benchmarks.timing import count_flops, saved_megabytes
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.policy_learner import GroupRelativeLearner
from experiments.training.trainer import Trainer

NUM_COUNTED = 4
"""Least number of steps whose operations are counted."""
NUM_COUNTED_OF_PREFIXES = 16
"""The same where some batches begin with a tied prefix, whose length is drawn: of four steps the
mean was up to a fifth off."""
NUM_COUNTED_OF_CAPTIONS = 48
"""The same where captions are read from no patch, from few or from all, as it is drawn."""


def flops_per_step(config: TrainConfig, *, joint: bool) -> float:
    """Count the operations of a training step: model, order, rollouts and policy.

    It is the mean over whole periods, of steps with a policy that come in turns. What a probe of
    the reward learns before the first scan is left out; ``flops_to_begin`` counts it.
    """
    number = num_counted(config, joint=joint)
    with tempfile.TemporaryDirectory() as folder:
        trainer = short_trainer(config, Path(folder), number, joint=joint)
        if joint:
            begin(trainer)

        def steps() -> None:
            for _ in range(number):
                trainer.step()

        return count_flops(steps) / number


def flops_to_begin(config: TrainConfig) -> float:
    """Count the operations before the first scan of a run: its reward's probe learns; 0 = none."""
    if config.policy is None:
        return 0.0
    with tempfile.TemporaryDirectory() as folder:
        trainer = short_trainer(config, Path(folder), 1, joint=True)
        return float(count_flops(lambda: begin(trainer)))


def num_counted(config: TrainConfig, *, joint: bool) -> int:
    """Return the steps to count: with a policy whole periods."""
    reads = config.parts.captions and config.parts.word_weight > 0
    draws = NUM_COUNTED_OF_PREFIXES if config.optimization.prefix_share > 0 else NUM_COUNTED
    least, policy = NUM_COUNTED_OF_CAPTIONS if reads else draws, config.policy
    if policy is None or not joint:
        return least
    alternates = policy.schedule == "alternating"
    period = 2 * policy.alternate_every if alternates else policy.policy_every
    return period * math.ceil(least / period)


def short_trainer(config: TrainConfig, folder: Path, steps: int, *, joint: bool) -> Trainer:
    """Make a trainer of a few images that takes so many steps of a kind.

    Captions are all there, as subwords are learned from them.
    """
    limit = min(config.data.limit or 1000, 1000)
    counted = config.replace(
        out=folder,
        warmup_iterations=0 if joint else steps,
        # A policy waits until the warm-up is over: options that need one stay.
        iterations=steps if joint else config.iterations,
        limit=config.data.limit if config.parts.captions else limit,
    )
    return Trainer(counted, Processes.started(counted.run.device))


def begin(trainer: Trainer) -> None:
    """Let the probe of the reward learn as before the first scan, where there is one."""
    learner = trainer.policy_learner
    if isinstance(learner, GroupRelativeLearner) and learner.probe_learner is not None:
        learner.probe_learner.begin(learner.fixations, trainer.generators())


def saved_mb(config: TrainConfig) -> float:
    """Return the memory of the activations that a step on the run's order saves, MB."""
    with tempfile.TemporaryDirectory() as folder:
        one_step = config.replace(out=Path(folder), warmup_iterations=1, iterations=0)
        return saved_megabytes(Trainer(one_step, Processes.started(one_step.run.device)).step)
