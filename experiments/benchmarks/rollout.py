"""Benchmark of joint steps against steps on random orders."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import torch

from experiments.benchmarks.timing import BenchResult, alternate
from experiments.benchmarks.training import make_trainer
from experiments.run_folder import git_commit
from experiments.training.config import TrainConfig
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer

JOINT_STEPS: tuple[tuple[int, int | None], ...] = (
    (1, None),
    (1, 32),
    (2, None),
    (2, 32),
    (4, None),
)
"""How often the policy scans, and among how many candidates."""
RANDOM_ORDERS = "random orders"
STEPS_EACH = 4
"""Steps measured at once: a multiple of how often the policy scans."""


def bench_rollout(
    presets: tuple[str, ...] = ("demo", "cifar10"), *, repeats: int = 5
) -> BenchResult:
    """Measure joint steps against random-order steps, per image that the model learns from.

    Args:
        presets: of experiments.train, with a policy.
        repeats: times that every contender is measured.
    """
    rows: list[tuple[str | float, ...]] = []
    numbers: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets:
            # Tied prefixes, in a random quarter of the batches, would make steps unequal.
            base = PRESETS[preset][1].replace(data="scenes", limit=1000, prefix_share=0.0)
            plans = rollout_plans(base)
            trainers = {name: make_trainer(plan, folder) for name, plan in plans.items()}
            seconds = alternate(
                {name: cycle(each, STEPS_EACH) for name, each in trainers.items()}, repeats
            )
            own = base.replace(warmup_iterations=0)
            for name, taken in seconds.items():
                ratio = taken / seconds[RANDOM_ORDERS]
                images_per_s = STEPS_EACH * base.num_learned / taken
                rows.append((f"{preset}: {name}", images_per_s, ratio))
                if plans[name] == own:
                    numbers[f"joint_over_random_step_{preset}"] = ratio
    numbers["joint_over_random_step"] = max(each for each in numbers.values() if each is not None)
    return BenchResult(
        what="rollout",
        caption="Steps of the presets, per image that the model learns from, on scenes, "
        "without tied prefixes; joint_over_random_step is of the presets' own settings",
        columns=("step", "images/s", "over random orders"),
        rows=tuple(rows),
        numbers=numbers,
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def rollout_plans(base: TrainConfig) -> dict[str, TrainConfig]:
    """Return steps on random orders, then joint steps with their settings: the base's and others.

    All learn from equally many images.
    """
    assert base.policy is not None, "presets of this benchmark have a policy"
    joint = base.replace(warmup_iterations=0)
    settings = dict.fromkeys([*JOINT_STEPS, (base.policy.policy_every, base.policy.num_candidates)])
    return {
        RANDOM_ORDERS: base.replace(warmup_batch_size=base.num_learned, warmup_iterations=10**6),
        **{
            f"joint, policy every {every}, {'all' if few is None else few} candidates": (
                joint.replace(policy_every=every, num_candidates=few)
            )
            for every, few in settings
        },
    }


def cycle(trainer: Trainer, steps: int) -> Callable[[], None]:
    """Return a call that takes so many steps."""

    def run() -> None:
        for _ in range(steps):
            trainer.step()

    return run
