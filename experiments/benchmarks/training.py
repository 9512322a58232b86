"""Benchmark of a training step against the machine's peak."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.benchmarks.timing import (
    DTYPES,
    PRODUCT_FLOPS,
    BenchResult,
    alternate,
    count_flops,
    matrix_product,
)
from experiments.run_folder import git_commit
from experiments.training.build import multiplies_bfloat16
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.log import peak_memory_mb
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer

TRAIN_COLUMNS = (
    "step",
    "images/s",
    "tokens/s",
    "GFLOP/image",
    "GFLOP/s",
    "share of fp32 peak",
    "share of own peak",
    "s to first step",
)
GRADIENT, STEP = "gradient", "gradient and update"
OTHER_MUON = "fp32, gradient and update by torch's Muon"
QUALITY_STEPS = 60
"""Updates after which the losses of both precisions are compared."""


@dataclass(frozen=True)
class StepTimes:
    """What training steps take, by contender; and what the precisions learn, by precision."""

    seconds: dict[str, float]
    flops: dict[str, int]
    first_s: dict[str, float]
    """Time to the end of the first step."""
    losses: dict[str, tuple[float, ...]]

    @property
    def peak(self) -> dict[str, float]:
        """Operations per second of a product of large matrices."""
        return {name: PRODUCT_FLOPS / self.seconds[f"peak {name}"] for name in self.first_s}

    def rows(self, batch_size: int, num_tokens: int) -> tuple[tuple[str | float, ...], ...]:
        """Return cells of TRAIN_COLUMNS for every kind of step."""
        rows: list[tuple[str | float, ...]] = []
        for step, operations in self.flops.items():
            precision = step.split(",", 1)[0]
            images = batch_size / self.seconds[step]
            speed = operations / self.seconds[step]
            rows.append(
                (
                    step,
                    images,
                    images * num_tokens,
                    operations / batch_size / 1e9,
                    speed / 1e9,
                    speed / self.peak["fp32"],
                    speed / self.peak[precision],
                    self.first_s[precision],
                )
            )
        return tuple(rows)

    def share(self, what: str) -> float:
        """Return the share of the peak that a step in float32 reaches."""
        step = f"fp32, {what}"
        return self.flops[step] / self.seconds[step] / self.peak["fp32"]

    def bf16_over_fp32(self, what: str) -> float | None:
        """Return the ratio of speeds; None = this processor has no bfloat16."""
        if "bf16" not in self.first_s:
            return None
        return self.seconds[f"fp32, {what}"] / self.seconds[f"bf16, {what}"]


def bench_train(
    *, embed_dim: int = 192, depth: int = 6, batch_size: int = 128, repeats: int = 5
) -> BenchResult:
    """Measure a training step, in both precisions where the processor has both.

    Args:
        embed_dim: model width.
        depth: encoder blocks.
        batch_size: images per step.
        repeats: times that every contender is measured.
    """
    base = PRESETS["cifar10"][1].replace(
        data="scenes",
        limit=1000,
        periphery=0,
        prefix_share=0.0,
        embed_dim=embed_dim,
        depth=depth,
        warmup_batch_size=batch_size,
    )
    plans = {"fp32": base}
    if multiplies_bfloat16():
        plans["bf16"] = base.replace(precision="bf16")
    with tempfile.TemporaryDirectory() as folder:
        steps = measure_steps(plans, folder, repeats)
        model = make_trainer(base, folder).model
    num_tokens = model.num_always + base.scan.budget
    peaks = " and ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in steps.peak.items())
    missing = "" if "bf16" in plans else "; this processor has no arithmetic for bfloat16"
    return BenchResult(
        what="train",
        caption=f"Training step, foveate recipe, width {embed_dim}, depth {depth}, {batch_size} "
        f"images, {num_tokens} of whose {model.num_always + model.num_patches} tokens are "
        f"encoded; matmul peak {peaks}{missing}",
        columns=TRAIN_COLUMNS,
        rows=steps.rows(batch_size, num_tokens),
        numbers={
            "share_of_fp32_peak": steps.share(GRADIENT),
            "share_of_fp32_peak_with_update": steps.share(STEP),
            "step_over_step_with_torchs_muon": steps.seconds[f"fp32, {STEP}"]
            / steps.seconds[OTHER_MUON],
            "bf16_over_fp32_images_per_s": steps.bf16_over_fp32(GRADIENT),
            "bf16_over_fp32_images_per_s_with_update": steps.bf16_over_fp32(STEP),
            "bf16_over_fp32_peak": steps.peak["bf16"] / steps.peak["fp32"]
            if "bf16" in plans
            else None,
            **{
                f"loss_after_{QUALITY_STEPS}_steps_{name}": losses[-1]
                for name, losses in steps.losses.items()
            },
            "peak_memory_mb": peak_memory_mb("cpu"),
        },
        curves=steps.losses,
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def measure_steps(plans: dict[str, TrainConfig], folder: str, repeats: int) -> StepTimes:
    """Measure gradients and steps by precision, and steps by torch's Muon, in turns."""
    contenders: dict[str, Callable[[], object]] = {}
    flops: dict[str, int] = {}
    first_s: dict[str, float] = {}
    for name, plan in plans.items():
        started = time.perf_counter()
        trainer = make_trainer(plan, folder)
        trainer.step()
        first_s[name] = time.perf_counter() - started
        for what, run in ((GRADIENT, gradient(trainer)), (STEP, trainer.step)):
            contenders[f"{name}, {what}"] = run
            flops[f"{name}, {what}"] = count_flops(run)
        contenders[f"peak {name}"] = matrix_product(DTYPES[name])
    contenders[OTHER_MUON] = with_torchs_muon(make_trainer(plans["fp32"], folder)).step
    flops[OTHER_MUON] = flops[f"fp32, {STEP}"]
    seconds = alternate(contenders, repeats)
    losses = {}
    for name, plan in plans.items():
        trainer = make_trainer(plan, folder)
        losses[name] = tuple(trainer.step()["loss"] for _ in range(QUALITY_STEPS))
    return StepTimes(seconds, flops, first_s, losses)


def gradient(trainer: Trainer) -> Callable[[], None]:
    """Return a call that computes the model's gradient on a batch, and forgets it."""
    config = trainer.config

    def run() -> None:
        size = config.optimization.warmup_batch_size
        drawn = trainer.model_learner.draw(size, trainer.generator)
        with trainer.model_learner.autocast():
            loss = trainer.model(
                drawn.images,
                drawn.rank,
                ties=drawn.ties,
                last_rank=drawn.last_rank,
                num_steps=config.scan.budget + 1,
                generator=trainer.generator,
            )
        loss.backward()
        trainer.model.zero_grad()

    return run


def with_torchs_muon(trainer: Trainer) -> Trainer:
    """Let torch's own Muon, against which ours is measured, update the hidden matrices."""
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
