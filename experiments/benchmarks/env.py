"""Benchmark of the environment."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

import envs
from agents.sb3 import ScanVecEnv
from experiments.runs import git_commit, write_json
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.orders import ordering, rank_to_order

if TYPE_CHECKING:
    from experiments.bench import BenchConfig


def bench_env(config: BenchConfig) -> dict[str, object]:
    """Measure environment steps per second on one episode of the default world; print and write."""
    vector = envs.ImageScanVectorEnv(max(config.rows), limit=1000)
    model, images, budget = vector.model, vector.images, vector.budget
    table: dict[str, dict[str, float]] = {}
    for rows in config.rows:
        order = random_orders(model, rows, budget)
        contenders = {
            "vector": vector_episode(model, images, order),
            "sb3_adapter": adapter_episode(model, images, order),
            "dummy_vec_env": dummy_episode(model, images, order),
            "uncached": uncached_episode(model, images, order),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for repeat in range(config.repeats + 1):
            for name, episode in contenders.items():
                started = time.perf_counter()
                episode()
                if repeat:  # The first round warms up.
                    seconds[name].append(time.perf_counter() - started)
        steps = rows * budget
        table[str(rows)] = {
            name: steps / statistics.median(taken) for name, taken in seconds.items()
        }
    result: dict[str, object] = {
        "kind": "bench_env",
        "steps_per_s": table,
        "vector_over_dummy_env_steps": {
            rows: speed["vector"] / speed["dummy_vec_env"] for rows, speed in table.items()
        },
        "vector_over_uncached": {
            rows: speed["vector"] / speed["uncached"] for rows, speed in table.items()
        },
        "budget": budget,
        "num_patches": model.num_patches,
        "threads": torch.get_num_threads(),
        "repeats": config.repeats,
        "commit": git_commit(),
    }
    config.path.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.path, result)
    print(f"{'environment steps/s':<24}" + "".join(f"{rows + ' rows':>12}" for rows in table))
    for name in next(iter(table.values())):
        print(f"{name:<24}" + "".join(f"{speed[name]:12.0f}" for speed in table.values()))
    for key in ("vector_over_dummy_env_steps", "vector_over_uncached"):
        ratios = result[key]
        assert isinstance(ratios, dict)
        print(
            f"{key.replace('_', ' '):<28}" + " ".join(f"{ratio:.1f}x" for ratio in ratios.values())
        )
    print(f"written: {config.path}")
    return result


def random_orders(model: AnyOrderTransformer, rows: int, budget: int) -> torch.Tensor:
    """Draw random scanpaths, (rows, budget)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.empty(rows, 1, 1, 1)
    return rank_to_order(ordering("random", model.grid)(images, generator=generator))[:, :budget]


def vector_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """One episode of the batched environment, reset included."""
    env = envs.ImageScanVectorEnv(len(order), model=model, data=images, budget=order.shape[1])
    actions = order.numpy()
    env.reset(seed=0)

    def episode() -> None:
        for step in range(order.shape[1]):
            env.step(actions[:, step])

    return episode


def adapter_episode(
    model: AnyOrderTransformer, images: ImageSet, order: torch.Tensor
) -> Callable[[], None]:
    """The same through the adapter for stable-baselines3, masks asked at every step."""
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
    """The same with one environment per row, in stable-baselines3's loop."""
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
    """The predictions of the same steps, everything seen encoded anew each time."""
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
