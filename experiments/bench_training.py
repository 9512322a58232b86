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

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
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
    plans = {"fp32": base, "bf16": dataclasses.replace(base, precision="bf16")}
    contenders: dict[str, Callable[[], object]] = {}
    flops, first, losses = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, plan in plans.items():
            started = time.perf_counter()
            trainer = make_trainer(plan, folder)
            contenders[f"{name}, gradient"] = gradient(trainer)
            contenders[f"{name}, gradient and update"] = trainer.step
            flops[name] = count_flops(gradient(trainer))
            first[name] = time.perf_counter() - started
            contenders[f"peak {name}"] = matrix_product(PRECISIONS[name])
        seconds = alternate(contenders, config.repeats)
        for name, plan in plans.items():
            trainer = make_trainer(plan, folder)
            for _ in range(QUALITY_STEPS):
                losses[name] = trainer.step()["loss"]
    peak = {name: PRODUCT_FLOPS / seconds[f"peak {name}"] for name in plans}
    rows = []
    for name in plans:
        for what in ("gradient", "gradient and update"):
            taken = seconds[f"{name}, {what}"]
            images = config.batch_size / taken
            rows.append(
                (
                    f"{name}, {what}",
                    images,
                    images * trainer.model.num_patches,
                    flops[name] / config.batch_size / 1e9,
                    flops[name] / taken / 1e9,
                    flops[name] / taken / peak["fp32"],
                    first[name],
                )
            )

    def ratio(what: str) -> float:
        return seconds[f"fp32, {what}"] / seconds[f"bf16, {what}"]

    return Table(
        what="train",
        caption=f"Training step, foveate recipe, width {config.embed_dim}, depth {config.depth}, "
        f"{config.batch_size} images of {trainer.model.num_patches} patches; matmul peak "
        f"{peak['fp32'] / 1e9:.0f} GFLOP/s in fp32, {peak['bf16'] / 1e9:.0f} in bf16; operations "
        "of the gradient alone, since Muon's are in bf16 whatever the precision",
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
            "share_of_fp32_peak": flops["fp32"] / seconds["fp32, gradient"] / peak["fp32"],
            "bf16_over_fp32_images_per_s": ratio("gradient"),
            "bf16_over_fp32_images_per_s_with_update": ratio("gradient and update"),
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


def gradient(trainer: Trainer) -> Callable[[], None]:
    """Return a call that computes the model's gradient on a batch, and forgets it."""
    config = trainer.config

    def run() -> None:
        (images, _), rank = trainer.draw(config.warmup_batch_size, trainer.generator)
        with trainer.autocast():
            loss = trainer.model(
                images, rank, num_steps=config.budget + 1, generator=trainer.generator
            )
        loss.backward()
        trainer.model.zero_grad()

    return run


def make_trainer(config: TrainConfig, folder: str) -> Trainer:
    """Build a trainer that writes nothing."""
    return Trainer(dataclasses.replace(config, out=Path(folder)), Processes.started("cpu"))


def cycle(trainer: Trainer, steps: int) -> Callable[[], None]:
    """Return a call that takes so many steps."""

    def run() -> None:
        for _ in range(steps):
            trainer.step()

    return run
