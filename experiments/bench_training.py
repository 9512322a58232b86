"""Benchmarks of training: one step against the machine's peak, joint steps against plain ones."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.config import PRESETS, TrainConfig
from experiments.distributed import Processes
from experiments.timing import PRODUCT_FLOPS, Table, alternate, count_flops, matrix_product
from experiments.trainer import Trainer
from experiments.training import peak_memory_mb

if TYPE_CHECKING:
    from experiments.bench import BenchConfig

QUALITY_STEPS = 60
"""Updates after which the losses of both precisions are compared."""


def bench_train(config: BenchConfig) -> dict[str, object]:
    """Measure a training step in both precisions; print and write."""
    base = dataclasses.replace(
        PRESETS["cifar10"][1],
        data="scenes",
        limit=1000,
        periphery=0,
        prefix_share=0.0,
        embed_dim=config.embed_dim,
        depth=config.depth,
        warmup_batch_size=config.batch_size,
    )
    with tempfile.TemporaryDirectory() as folder:
        plans = {
            "fp32": base,
            "fp32, 4 micro-batches": dataclasses.replace(base, micro_batches=4),
            "bf16": dataclasses.replace(base, precision="bf16"),
            "bf16, 4 micro-batches": dataclasses.replace(base, precision="bf16", micro_batches=4),
        }
        steps, first, flops = {}, {}, {}
        losses: dict[str, float] = {}
        for name, plan in plans.items():
            started = time.perf_counter()
            trainer = make_trainer(plan, folder)
            flops[name] = count_flops(trainer.step)
            first[name] = time.perf_counter() - started
            steps[name] = trainer.step
        seconds = alternate(
            {
                **steps,
                "peak fp32": matrix_product(torch.float32),
                "peak bf16": matrix_product(torch.bfloat16),
            },
            config.repeats,
        )
        for name in ("fp32", "bf16"):
            trainer = make_trainer(plans[name], folder)
            for _ in range(QUALITY_STEPS):
                losses[name] = trainer.step()["loss"]
    peak = {name: PRODUCT_FLOPS / seconds[f"peak {name}"] for name in ("fp32", "bf16")}
    rows = []
    for name in plans:
        speed = flops[name] / seconds[name]
        images = config.batch_size / seconds[name]
        rows.append(
            (
                name,
                images,
                images * trainer.model.num_patches,
                flops[name] / config.batch_size / 1e9,
                speed / 1e9,
                speed / peak["fp32"],
                first[name],
            )
        )
    best = {p: max(row[1] for row in rows if row[0].startswith(p)) for p in ("fp32", "bf16")}
    return Table(
        what="train",
        caption=f"Training step, foveate recipe, width {config.embed_dim}, depth {config.depth}, "
        f"{config.batch_size} images of {trainer.model.num_patches} patches; matmul peak "
        f"{peak['fp32'] / 1e9:.0f} GFLOP/s in fp32, {peak['bf16'] / 1e9:.0f} in bf16",
        columns=(
            "step",
            "images/s",
            "tokens/s",
            "GFLOP/image",
            "GFLOP/s",
            "share of fp32 peak",
            "s to first step",
        ),
        rows=tuple(rows),
        keys={
            "share_of_fp32_peak": max(row[5] for row in rows if row[0].startswith("fp32")),
            "share_of_fp32_peak_by_bf16": max(row[5] for row in rows if row[0].startswith("bf16")),
            "bf16_over_fp32_images_per_s": best["bf16"] / best["fp32"],
            "bf16_over_fp32_peak": peak["bf16"] / peak["fp32"],
            f"loss_after_{QUALITY_STEPS}_steps_fp32": losses["fp32"],
            f"loss_after_{QUALITY_STEPS}_steps_bf16": losses["bf16"],
            "peak_memory_mb": peak_memory_mb("cpu"),
        },
    ).finish(config.path, torch.get_num_threads(), config.repeats)


def bench_rollout(config: BenchConfig) -> dict[str, object]:
    """Measure joint steps against random-order steps, per image that the model learns from."""
    rows: list[tuple[str | float, ...]] = []
    keys: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for preset in ("demo", "cifar10"):
            base = dataclasses.replace(PRESETS[preset][1], data="scenes", limit=1000)
            learned = base.batch_size * base.group + base.num_random
            plain = dataclasses.replace(base, warmup_batch_size=learned, warmup_iterations=10**6)
            contenders: dict[str, Callable[[], object]] = {
                "random orders": make_trainer(plain, folder).step
            }
            for every in (1, 2, 4):
                plan = dataclasses.replace(base, warmup_iterations=0, policy_every=every)
                contenders[f"joint, policy every {every}"] = cycle(
                    make_trainer(plan, folder), every
                )
            seconds = alternate(contenders, config.repeats)
            for name, taken in seconds.items():
                steps = int(name.rsplit(" ", 1)[-1]) if name.startswith("joint") else 1
                each = taken / steps / learned
                ratio = each / (seconds["random orders"] / learned)
                rows.append((f"{preset}: {name}", 1 / each, ratio))
                if steps == PRESETS[preset][1].policy_every and name.startswith("joint"):
                    keys[f"joint_over_random_step_{preset}"] = ratio
    keys["joint_over_random_step"] = max(keys.values())
    return Table(
        what="rollout",
        caption="Steps of the presets, per image that the model learns from, on scenes",
        columns=("step", "images/s", "over random orders"),
        rows=tuple(rows),
        keys=keys,
    ).finish(config.path, torch.get_num_threads(), config.repeats)


def make_trainer(config: TrainConfig, folder: str) -> Trainer:
    """Build a trainer that writes nothing."""
    return Trainer(dataclasses.replace(config, out=Path(folder)), Processes.started("cpu"))


def cycle(trainer: Trainer, steps: int) -> Callable[[], None]:
    """Return a call that takes so many steps."""

    def run() -> None:
        for _ in range(steps):
            trainer.step()

    return run
