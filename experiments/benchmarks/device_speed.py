"""How fast is a device: training steps over its peak, scans, environments, and a profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.checking import (
    BROKE,
    MEASURED,
    SKIPPED,
    NotPossible,
    Row,
    told_error,
)
from experiments.benchmarks.device_measures import (
    IMAGES,
    MeasuredSpeed,
    measure_environment,
    measure_graph,
    measure_joint,
    measure_peak,
    measure_profile,
    measure_step,
)
from experiments.training.config import TrainConfig
from experiments.training.presets import PRESETS

ROWS = (1, 64, 1024, 16384)
"""Environments of a batch whose steps are measured."""
SCANNED = (1, 32, 1024)
"""Images of a batch whose scans are measured, step by step and as a graph."""
ROWS_MADE_PER_S = 1500
"""Environments whose world and observations a processor lays out in a second, at least."""
VIT_B: dict[str, Any] = {
    "embed_dim": 768,
    "num_heads": 12,
    "depth": 12,
    "image_size": 224,
    "patch_size": 16,
    "num_targets": 1,
    "model_optimizer": "adamw",
}
"""The step that docs/scale.md extrapolates from: a query for each patch but the last, and AdamW."""
SMALL: dict[str, Any] = {"embed_dim": 192, "num_heads": 3, "depth": 12}
WITH_GOAL = "ViT-B/16"
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    WITH_GOAL: ("foveate", VIT_B),
    **{
        f"{name}, {what}": (name, {**SMALL, **sides})
        for what, sides in (
            ("32 px, patch 4", {"image_size": 32, "patch_size": 4}),
            ("224 px, patch 16", {"image_size": 224, "patch_size": 16}),
        )
        for name in ("foveate", "saim", "mae")
    },
}
"""Recipes and sizes of the measured training steps. All patches but one are encoded."""
PROFILED = "foveate, 32 px, patch 4"
"""Of SIZES, whose step is taken apart."""


@dataclass(frozen=True)
class Measurement:
    """Something that takes time to measure."""

    name: str
    measure: Callable[[], MeasuredSpeed]
    least_s: float
    """About how long it takes; it is skipped where less is left."""


def measured_rows(
    todo: Iterator[Measurement], deadline: float
) -> Iterator[tuple[Row, dict[str, float]]]:
    """Measure what fits before the deadline, by ``time.monotonic``; say what does not."""
    for each in todo:
        left = deadline - time.monotonic()
        if left < each.least_s:
            took = f"takes about {each.least_s:.0f} s, {max(0.0, left):.0f} s are left"
            yield (each.name, SKIPPED, took, ""), {}
            continue
        try:
            found = each.measure()
        except NotPossible as reason:
            yield (each.name, SKIPPED, str(reason), ""), {}
        except torch.OutOfMemoryError:
            yield (each.name, SKIPPED, "needs more memory than the device has", ""), {}
        except Exception as reason:
            # Whatever breaks, what was found so far is told.
            yield (each.name, BROKE, told_error(reason), ""), {}
        else:
            yield (each.name, MEASURED, found.said, found.goal), found.numbers


def measurements(device: str, folder: Path, repeats: int) -> Iterator[Measurement]:
    """Return what is measured: goals before what has none, but for what a compiler makes, last."""
    on_gpu = device.startswith("cuda")
    precision = "bf16" if on_gpu else "fp32"
    peaks: dict[str, float] = {}
    for name in ("fp32", "bf16") if on_gpu else ("fp32",):
        yield Measurement(f"matrix product, {name}", partial(measure_peak, name, device, peaks), 2)
    joint = partial(measure_joint, device, folder, repeats, precision)
    yield Measurement(f"joint step, {precision}", joint, 15)

    def step(name: str, compiled: bool) -> Measurement:
        config = step_config(name, device, folder, precision)
        goal = "at least 40%" if name == WITH_GOAL else ""
        measure = partial(measure_step, config, repeats, peaks, compiled, goal)
        least_s = (60 if compiled else 10) * (1 if on_gpu else 4)
        written = f"training step, {name}, {precision}{', compiled' * compiled}"
        return Measurement(written, measure, least_s)

    yield step(WITH_GOAL, False)
    # A step takes about as long as the rows need; the number before tells how many fit.
    speed = {"steps_per_s": 100.0}
    for rows in ROWS:
        episode_s = rows * PRESETS["demo"][1].scan.budget / speed["steps_per_s"]
        least_s = 1 + rows / ROWS_MADE_PER_S + (2 + repeats) * episode_s
        goal = "at least 200000" if rows == max(ROWS) else ""
        measure = partial(measure_environment, rows, device, repeats, speed, goal)
        yield Measurement(f"environment, {rows} rows", measure, least_s)
    for rows in SCANNED:
        as_graph = partial(measure_graph, rows, device, repeats)
        yield Measurement(f"scans as CUDA graphs, {rows} images", as_graph, 5)
    profiled = step_config(PROFILED, device, folder, precision)
    taken_apart = f"profile of a training step, {PROFILED}"
    yield Measurement(taken_apart, partial(measure_profile, profiled), 10)
    yield from (step(name, False) for name in SIZES if name != WITH_GOAL)
    yield from (step(name, True) for name in SIZES)


def step_config(name: str, device: str, folder: Path, precision: str) -> TrainConfig:
    """Return the config of a training step on random orders of whole sequences."""
    recipe, sizes = SIZES[name]
    is_large = name == WITH_GOAL
    if device.startswith("cuda"):
        batch_size = 128 if is_large else 256
    else:
        batch_size = 2 if is_large else 4
    options: dict[str, object] = {
        "data": str(folder / IMAGES),
        "limit": 256,
        "periphery": 0,
        "prefix_share": 0.0,
        "iterations": 0,
        "report": False,
        "warmup_batch_size": batch_size,
        "device": device,
        "precision": precision,
        "out": folder / "speed",
        **sizes,
    }
    if PRESETS[recipe][1].parts.takes_budget:
        options["budget"] = (sizes["image_size"] // sizes["patch_size"]) ** 2 - 1
    return PRESETS[recipe][1].replace(**options)
