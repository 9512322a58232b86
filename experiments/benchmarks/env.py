"""Benchmark of the environment."""

from __future__ import annotations

import cProfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

import envs
from agents.sb3 import ScanVecEnv
from experiments.benchmarks import crops
from experiments.benchmarks.timing import alternate
from experiments.run_folder import git_commit
from experiments.tables import Result, Table, plural, short_commit
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders import ordering, rank_to_order

PROFILED_EPISODES = 20
"""Episodes that a profile is of."""


@dataclass(frozen=True, kw_only=True)
class BenchEnvResult(Result):
    """Environment steps per second, by the number of environments."""

    kind: ClassVar[str] = "bench_env"

    steps_per_s: dict[str, dict[str, float]]
    """By the number of environments, then by contender."""
    vector_over_dummy_env_steps: dict[str, float]
    """Ratio of speeds, by the number of environments."""
    vector_over_uncached: dict[str, float]
    steps_per_cpu_s: Mapping[str, float] = field(default_factory=dict)
    """Steps per second of this process's CPU time, resets included: of a single environment, and
    of the batch of the fewest rows; of ap_gym's as well where it is installed. Results of before
    have none."""
    profile: tuple[tuple[str, float, int], ...] = ()
    """Functions in which single steps spend most time: share of all, and calls per step."""
    budget: int
    num_patches: int
    threads: int
    repeats: int
    commit: str

    def tables(self) -> list[Table]:
        """Return the contenders' speeds and the ratios of the batched environment."""
        counts = list(self.steps_per_s)
        speeds = {
            name: tuple(f"{self.steps_per_s[count][name]:.0f}" for count in counts)
            for name in self.steps_per_s[counts[0]]
        }
        ratios = {
            "**vector over dummy env steps**": self.vector_over_dummy_env_steps,
            "**vector over uncached**": self.vector_over_uncached,
        }
        return [
            Table(
                caption=f"{self.budget} of {self.num_patches} patches, "
                f"{plural(self.threads, 'CPU thread')}, median of {self.repeats} alternating "
                f"episodes, commit `{short_commit(self.commit)}`.",
                columns=("environment steps/s", *(f"{count} rows" for count in counts)),
                rows=(
                    *((name, *each) for name, each in speeds.items()),
                    *(
                        (name, *(f"{ratio[count]:.1f}x" for count in counts))
                        for name, ratio in ratios.items()
                    ),
                ),
            ),
            *self._of_cpu_time(),
        ]

    def _of_cpu_time(self) -> list[Table]:
        speeds = tuple((name, f"{speed:.0f}") for name, speed in self.steps_per_cpu_s.items())
        shares = tuple((name, f"{share:.1%}", str(calls)) for name, share, calls in self.profile)
        notes = ("ap_gym cuts glimpses out of the same images and has no model.",)
        if not any(name.startswith("ap_gym") for name in self.steps_per_cpu_s):
            notes = ("Without ap_gym, which was not installed: pip install -e '.[bench]'.",)
        title = "environment steps per CPU second, resets included"
        tables = [
            Table((title, "steps"), speeds, notes=notes),
            Table(("where single steps spend their time", "share", "calls per step"), shares),
        ]
        return [table for table in tables if table.rows]


def bench_env(
    rows: tuple[int, ...] = (64, 256), *, repeats: int = 5, profile: int = 0
) -> BenchEnvResult:
    """Measure environment steps per second on one episode of the default world.

    Args:
        rows: numbers of environments.
        repeats: times that every contender is measured.
        profile: functions of a profile of single steps; 0 = none.
    """
    vector = envs.ImageScanVectorEnv(max(rows), limit=1000)
    model, images, budget = vector.model, vector.images, vector.budget
    steps_per_s: dict[str, dict[str, float]] = {}
    for num_rows in rows:
        order = random_orders(model, num_rows, budget)
        seconds = alternate(
            {
                "vector": vector_episode(model, images, order),
                "sb3_adapter": adapter_episode(model, images, order),
                "dummy_vec_env": dummy_episode(model, images, order),
                "uncached": uncached_episode(model, images, order),
            },
            repeats,
        )
        steps_per_s[str(num_rows)] = {
            name: num_rows * budget / taken for name, taken in seconds.items()
        }

    def vector_over(name: str) -> dict[str, float]:
        return {count: speed["vector"] / speed[name] for count, speed in steps_per_s.items()}

    least = min(rows)
    single = single_episode(model, images, random_orders(model, 1, budget))
    batch = vector_episode(model, images, random_orders(model, least, budget))
    return BenchEnvResult(
        steps_per_s=steps_per_s,
        steps_per_cpu_s=steps_per_cpu_s(single, batch, images, least, budget, 4 * repeats),
        profile=profiled(single, budget, profile),
        vector_over_dummy_env_steps=vector_over("dummy_vec_env"),
        vector_over_uncached=vector_over("uncached"),
        budget=budget,
        num_patches=model.num_patches,
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def steps_per_cpu_s(
    single: Callable[[], None],
    batch: Callable[[], None],
    images: ImageSet,
    num_rows: int,
    budget: int,
    repeats: int,
) -> dict[str, float]:
    """Return steps per second of CPU time of two episodes, and of ap_gym's where it is installed.

    Args:
        single: an episode of a single environment.
        batch: an episode of a batch.
        images: what they scan, which ap_gym's environments look at too.
        num_rows: rows of the batch.
        budget: steps of an episode.
        repeats: times that each is measured.
    """
    named = {
        "single environment": (budget, single),
        f"batch of {num_rows}": (num_rows * budget, batch),
    }
    if crops.is_installed():
        alone, many = (crops.crops_episode(images, each, budget) for each in (None, num_rows))
        named["ap_gym, single environment"] = budget, alone
        named[f"ap_gym, batch of {num_rows}"] = num_rows * budget, many
    episodes: dict[str, Callable[[], object]] = {
        name: episode for name, (_, episode) in named.items()
    }
    taken = alternate(episodes, repeats, time.process_time)
    return {name: steps / taken[name] for name, (steps, _) in named.items()}


def random_orders(model: AnyOrderTransformer, rows: int, budget: int) -> torch.Tensor:
    """Draw random scanpaths, (rows, budget)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.empty(rows, 1, 1, 1)
    return rank_to_order(ordering("random", model.grid)(images, generator=generator))[:, :budget]


def vector_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """Return one episode of the batched environment, reset included."""
    env = envs.ImageScanVectorEnv(len(order), model=model, data=images, budget=order.shape[1])
    actions = order.numpy()
    env.reset(seed=0)

    def episode() -> None:
        for step in range(order.shape[1]):
            env.step(actions[:, step])

    return episode


def single_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """Return one episode of a single environment, reset included."""
    env = envs.ImageScanEnv(model=model, data=images, budget=order.shape[1])
    env.reset(seed=0)

    def episode() -> None:
        env.reset()
        for patch in order[0].tolist():
            env.step(patch)

    return episode


def profiled(
    episode: Callable[[], None], num_steps: int, number: int
) -> tuple[tuple[str, float, int], ...]:
    """Return the functions that take most time by themselves, with share and calls per step."""
    if not number:
        return ()
    profile = cProfile.Profile()
    for _ in range(PROFILED_EPISODES):
        profile.runcall(episode)
    entries = sorted(profile.getstats(), key=lambda each: -each.inlinetime)
    total = sum(each.inlinetime for each in entries)
    return tuple(
        (
            each.code
            if isinstance(each.code, str)
            else f"{Path(each.code.co_filename).stem}: {each.code.co_qualname}",
            each.inlinetime / total,
            round(each.callcount / (PROFILED_EPISODES * num_steps)),
        )
        for each in entries[:number]
    )


def adapter_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """Return the same through the adapter for stable-baselines3, masks asked at every step."""
    env = ScanVecEnv(
        envs.ImageScanVectorEnv(len(order), model=model, data=images, budget=order.shape[1])
    )
    actions = order.numpy()
    env.reset()

    def episode() -> None:
        for step in range(order.shape[1]):
            env.env_method("action_masks")
            env.step(actions[:, step])

    return episode


def dummy_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """Return the same with one environment per row, in stable-baselines3's loop."""
    env = DummyVecEnv(
        [lambda: envs.ImageScanEnv(model=model, data=images, budget=order.shape[1])] * len(order)
    )
    actions = order.numpy()
    env.reset()

    def episode() -> None:
        for step in range(order.shape[1]):
            env.step(actions[:, step])

    return episode


def uncached_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """Return the predictions of the same steps, everything seen encoded anew each time."""
    batch = images.batch(torch.from_numpy(np.arange(len(order)) % len(images)))

    @torch.no_grad()
    def episode() -> None:
        for step in range(order.shape[1] + 1):
            predict_anew(model, batch, order[:, :step])

    return episode


def predict_anew(model: AnyOrderTransformer, images: torch.Tensor, seen: torch.Tensor) -> None:
    """Predict every patch from those seen, (B, T), all of which are encoded anew."""
    positions = torch.arange(model.num_patches).expand(len(seen), -1)
    counts = torch.arange(1, seen.shape[1] + 1).expand(len(seen), -1)
    layers = model.encode(images, seen, counts)
    model.decode(layers, positions, torch.full_like(positions, seen.shape[1]))
