"""Benchmarks of training: one step against the machine's peak, joint steps against plain ones."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.benchmarks.timing import (
    PRODUCT_FLOPS,
    Table,
    alternate,
    count_flops,
    matrix_product,
)
from experiments.training.build import multiplies_bfloat16
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import peak_memory_mb
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer

if TYPE_CHECKING:
    from experiments.bench import BenchConfig

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GRADIENT, STEP = "gradient", "gradient and update"
OTHER_MUON = "fp32, gradient and update by torch's Muon"
JOINT_STEPS: tuple[tuple[int, int | None], ...] = (
    (1, None),
    (1, 32),
    (2, None),
    (2, 32),
    (4, None),
)
"""How often the policy scans, and among how many candidates."""
STEPS_EACH = 4
"""Steps measured at once: a multiple of how often the policy scans."""
QUALITY_STEPS = 60
"""Updates after which the losses of both precisions are compared."""


def bench_train(config: BenchConfig) -> dict[str, object]:
    """Measure a training step, in both precisions where there are two; print and write."""
    base = PRESETS["cifar10"][1].replace(
        data="scenes",
        limit=1000,
        periphery=0,
        prefix_share=0.0,
        embed_dim=config.embed_dim,
        depth=config.depth,
        warmup_batch_size=config.batch_size,
    )
    plans = {"fp32": base}
    if multiplies_bfloat16():
        plans["bf16"] = base.replace(precision="bf16")
    contenders: dict[str, Callable[[], object]] = {}
    flops: dict[str, int] = {}
    first: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, plan in plans.items():
            started = time.perf_counter()
            trainer = make_trainer(plan, folder)
            trainer.step()
            first[name] = time.perf_counter() - started
            for what, run in ((GRADIENT, gradient(trainer)), (STEP, trainer.step)):
                contenders[f"{name}, {what}"] = run
                flops[f"{name}, {what}"] = count_flops(run)
            contenders[f"peak {name}"] = matrix_product(PRECISIONS[name])
        contenders[OTHER_MUON] = with_torchs_muon(make_trainer(base, folder)).step
        flops[OTHER_MUON] = flops[f"fp32, {STEP}"]
        seconds = alternate(contenders, config.repeats)
        for name, plan in plans.items():
            trainer = make_trainer(plan, folder)
            losses[name] = [trainer.step()["loss"] for _ in range(QUALITY_STEPS)]
    peak = {name: PRODUCT_FLOPS / seconds[f"peak {name}"] for name in plans}
    rows = []
    num_tokens = trainer.model.num_always + base.scan.budget
    for step, operations in flops.items():
        precision = step.split(",", 1)[0]
        images = config.batch_size / seconds[step]
        speed = operations / seconds[step]
        rows.append(
            (
                step,
                images,
                images * num_tokens,
                operations / config.batch_size / 1e9,
                speed / 1e9,
                speed / peak["fp32"],
                speed / peak[precision],
                first[precision],
            )
        )

    def ratio(what: str) -> float | None:
        if "bf16" not in plans:
            return None
        return seconds[f"fp32, {what}"] / seconds[f"bf16, {what}"]

    def share(what: str) -> float:
        return flops[f"fp32, {what}"] / seconds[f"fp32, {what}"] / peak["fp32"]

    peaks = " and ".join(f"{peak[name] / 1e9:.0f} GFLOP/s in {name}" for name in plans)
    missing = "" if "bf16" in plans else "; this processor has no arithmetic for bfloat16"
    return Table(
        what="train",
        caption=f"Training step, foveate recipe, width {config.embed_dim}, depth {config.depth}, "
        f"{config.batch_size} images, {num_tokens} of whose "
        f"{trainer.model.num_always + trainer.model.num_patches} tokens are encoded; matmul peak "
        f"{peaks}{missing}",
        columns=(
            "step",
            "images/s",
            "tokens/s",
            "GFLOP/image",
            "GFLOP/s",
            "share of fp32 peak",
            "share of own peak",
            "s to first step",
        ),
        rows=tuple(rows),
        keys={
            "share_of_fp32_peak": share(GRADIENT),
            "share_of_fp32_peak_with_update": share(STEP),
            "step_over_step_with_torchs_muon": seconds[f"fp32, {STEP}"] / seconds[OTHER_MUON],
            "bf16_over_fp32_images_per_s": ratio(GRADIENT),
            "bf16_over_fp32_images_per_s_with_update": ratio(STEP),
            "bf16_over_fp32_peak": peak["bf16"] / peak["fp32"] if "bf16" in plans else None,
            **{
                f"loss_after_{QUALITY_STEPS}_steps_{name}": loss[-1]
                for name, loss in losses.items()
            },
            "peak_memory_mb": peak_memory_mb("cpu"),
        },
        curves=losses,
    ).finish(config.path, torch.get_num_threads(), config.repeats)


def bench_rollout(config: BenchConfig) -> dict[str, object]:
    """Measure joint steps against random-order steps, per image that the model learns from."""
    rows: list[tuple[str | float, ...]] = []
    keys: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for preset in config.presets:
            # Tied prefixes, in a random quarter of the batches, would make steps unequal.
            base = PRESETS[preset][1].replace(data="scenes", limit=1000, prefix_share=0.0)
            assert base.policy is not None
            learned = base.num_learned
            plain = base.replace(warmup_batch_size=learned, warmup_iterations=10**6)
            joint = base.replace(warmup_iterations=0)
            plans = {
                f"joint, policy every {every}, {'all' if few is None else few} candidates": (
                    joint.replace(policy_every=every, num_candidates=few)
                )
                for every, few in dict.fromkeys(
                    [*JOINT_STEPS, (base.policy.policy_every, base.policy.num_candidates)]
                )
            }
            trainers = {name: make_trainer(plan, folder) for name, plan in plans.items()}
            contenders: dict[str, Callable[[], object]] = {
                name: cycle(each, STEPS_EACH)
                for name, each in {"random orders": make_trainer(plain, folder), **trainers}.items()
            }
            seconds = alternate(contenders, config.repeats)
            for name, taken in seconds.items():
                ratio = taken / seconds["random orders"]
                rows.append((f"{preset}: {name}", STEPS_EACH * learned / taken, ratio))
                if plans.get(name) == joint:
                    keys[f"joint_over_random_step_{preset}"] = ratio
    keys["joint_over_random_step"] = max(keys.values())
    return Table(
        what="rollout",
        caption="Steps of the presets, per image that the model learns from, on scenes, "
        "without tied prefixes; joint_over_random_step is of the presets' own settings",
        columns=("step", "images/s", "over random orders"),
        rows=tuple(rows),
        keys={**keys},
    ).finish(config.path, torch.get_num_threads(), config.repeats)


def gradient(trainer: Trainer) -> Callable[[], None]:
    """Return a call that computes the model's gradient on a batch, and forgets it."""
    config = trainer.config

    def run() -> None:
        (images, _), rank = trainer.model_learner.draw(
            config.optimization.warmup_batch_size, trainer.generator
        )
        with trainer.model_learner.autocast():
            loss = trainer.model(
                images, rank, num_steps=config.scan.budget + 1, generator=trainer.generator
            )
        loss.backward()
        trainer.model.zero_grad()

    return run


def with_torchs_muon(trainer: Trainer) -> Trainer:
    """Let torch's own Muon update the trainer's hidden matrices: what ours is measured against."""
    (group,) = trainer.model_learner.optimizers[0].param_groups
    trainer.model_learner.optimizers[0] = torch.optim.Muon(
        group["params"],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        adjust_lr_fn="match_rms_adamw",
    )
    return trainer


def make_trainer(config: TrainConfig, folder: str) -> Trainer:
    """Build a trainer that writes nothing."""
    return Trainer(config.replace(out=Path(folder)), Processes.started("cpu"))


def cycle(trainer: Trainer, steps: int) -> Callable[[], None]:
    """Return a call that takes so many steps."""

    def run() -> None:
        for _ in range(steps):
            trainer.step()

    return run
