"""How fast is a device: training steps over its peak, scans, environments, and a profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import envs
from experiments.benchmarks.checking import MEASURED, SKIPPED, NotPossible, Row, first_line, say
from experiments.benchmarks.graphs import seconds_of_scans
from experiments.benchmarks.rollout import RANDOM_ORDERS, STEPS_EACH, cycle, rollout_plans
from experiments.benchmarks.timing import DTYPES, alternate, awaited, count_flops
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.log import peak_memory_mb
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer

PEAK_SIDE_GPU, PEAK_SIDE_CPU = 8192, 1024
"""Sides of the matrices whose product is taken as the peak."""
PEAK_REPEATS = 6
"""Products of which the fastest counts."""
ROWS = (1, 64, 1024, 16384)
"""Environments of a batch whose steps are measured."""
SCANNED = (1, 32, 1024)
"""Images of a batch whose scans are measured, step by step and as a graph."""
ITEMS = 5
"""Largest items of the profile."""
VIT_B = {"embed_dim": 768, "num_heads": 12, "depth": 12, "image_size": 224, "patch_size": 16}
SMALL = {"embed_dim": 192, "num_heads": 3, "depth": 12}
SIZES: dict[str, tuple[str, dict[str, int]]] = {
    "ViT-B/16": ("foveate", VIT_B),
    **{
        f"{name}, {what}": (name, {**SMALL, **sides})
        for what, sides in (
            ("32 px, patch 4", {"image_size": 32, "patch_size": 4}),
            ("224 px, patch 16", {"image_size": 224, "patch_size": 16}),
        )
        for name in ("foveate", "saim", "mae")
    },
}
"""Recipes and sizes of the measured training steps. All patches but one are encoded. The first has
a goal, and must fit into the minutes."""
PROFILED = "foveate, 32 px, patch 4"
"""Of SIZES, whose step is taken apart."""


@dataclass(frozen=True)
class MeasuredSpeed:
    """What a measurement found."""

    said: str
    numbers: dict[str, float]
    """By their keys in the file."""
    goal: str = ""
    """What is hoped for on a data-center GPU."""


@dataclass(frozen=True)
class Measurement:
    """Something that takes time to measure."""

    name: str
    measure: Callable[[], MeasuredSpeed]
    least_s: float
    """About how long it takes; it is skipped where less is left."""


def measured_rows(
    todo: Iterator[Measurement], deadline: float
) -> tuple[list[Row], dict[str, float]]:
    """Measure what fits before the deadline, by ``time.monotonic``; say what does not."""
    rows: list[Row] = []
    numbers: dict[str, float] = {}
    for each in todo:
        left = deadline - time.monotonic()
        if left < each.least_s:
            took = f"takes about {each.least_s:.0f} s, {max(0.0, left):.0f} s are left"
            rows.append((each.name, SKIPPED, took, ""))
            say(rows[-1])
            continue
        try:
            found = each.measure()
        except NotPossible as reason:
            rows.append((each.name, SKIPPED, str(reason), ""))
        except Exception as reason:
            # Whatever breaks, be it memory or a compiler, what was found so far is told.
            rows.append((each.name, SKIPPED, first_line(reason), ""))
        else:
            rows.append((each.name, MEASURED, found.said, found.goal))
            numbers |= found.numbers
        say(rows[-1])
    return rows, numbers


def measurements(device: str, folder: Path, repeats: int) -> Iterator[Measurement]:
    """Return what is measured: what has a goal before what has none, compilers last."""
    on_gpu = device.startswith("cuda")
    precision = "bf16" if on_gpu else "fp32"
    peaks: dict[str, float] = {}
    for name in ("fp32", "bf16") if on_gpu else ("fp32",):
        yield Measurement(f"matrix product, {name}", partial(measure_peak, name, device, peaks), 2)
    joint = Measurement("joint step", partial(measure_joint, device, folder, repeats), 15)
    # A step takes about as long as the rows need; the number before tells how many fit.
    speed = {"steps_per_s": 100.0}
    yield joint
    for rows in ROWS:
        episode_s = rows * PRESETS["demo"][1].scan.budget / speed["steps_per_s"]
        least_s = 1 + (2 + repeats) * episode_s
        measure = partial(measure_environment, rows, device, repeats, speed)
        yield Measurement(f"environment, {rows} rows", measure, least_s)
    for rows in SCANNED:
        as_graph = partial(measure_graph, rows, device, repeats)
        yield Measurement(f"scans as CUDA graphs, {rows} images", as_graph, 5)
    profiled = step_config(PROFILED, device, folder, precision)
    taken_apart = f"profile of a training step, {PROFILED}"
    yield Measurement(taken_apart, partial(measure_profile, profiled), 10)
    for compiled in (False, True):
        for name in SIZES:
            config = step_config(name, device, folder, precision)
            measure = partial(measure_step, name, config, repeats, peaks, compiled)
            least_s = (60 if compiled else 10) * (1 if on_gpu else 4)
            written = f"training step, {name}, {precision}{', compiled' * compiled}"
            yield Measurement(written, measure, least_s)


def measure_peak(name: str, device: str, peaks: dict[str, float]) -> MeasuredSpeed:
    """Measure operations per second of a product of large matrices, the best of several."""
    side = PEAK_SIDE_GPU if device.startswith("cuda") else PEAK_SIDE_CPU
    left, right = torch.randn(2, side, side, device=device).to(DTYPES[name]).unbind()
    product, taken = awaited(lambda: left @ right, device), []
    for _ in range(PEAK_REPEATS):
        started = time.perf_counter()
        product()
        taken.append(time.perf_counter() - started)
    peaks[name] = 2 * side**3 / min(taken)
    said = f"{peaks[name] / 1e12:.3g} TFLOP/s, the best of {PEAK_REPEATS}"
    return MeasuredSpeed(said, {f"peak_flops_per_s_{name}": peaks[name]})


def step_config(name: str, device: str, folder: Path, precision: str) -> TrainConfig:
    """Return the config of a training step on random orders of whole sequences."""
    recipe, sizes = SIZES[name]
    num_patches = (sizes["image_size"] // sizes["patch_size"]) ** 2
    is_large = sizes["embed_dim"] > SMALL["embed_dim"]
    if device.startswith("cuda"):
        batch_size = 128 if is_large else 256
    else:
        batch_size = 2 if is_large else 4
    options: dict[str, object] = {
        "data": "scenes_rgb",
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
        options["budget"] = num_patches - 1
    return PRESETS[recipe][1].replace(**options)


def measure_step(
    name: str, config: TrainConfig, repeats: int, peaks: dict[str, float], compiled: bool
) -> MeasuredSpeed:
    """Measure a training step: images, operations, share of the peak, and memory."""
    device, precision = config.run.device, config.optimization.precision
    on_gpu = device.startswith("cuda")
    trainer = Trainer(config, Processes.started(device))
    trainer.step()
    operations = count_flops(trainer.step)
    if compiled:
        # Each size is compiled for itself: torch gives up behind eight shapes of one function.
        torch.compiler.reset()
        # Block by block: the draws of a step stay outside, and all blocks share one compilation.
        for block in (*trainer.model.encoder_blocks(), *trainer.model.decoder.blocks):
            block.compile()
        trainer.step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = alternate({"step": awaited(trainer.step, device)}, repeats)["step"]
    images_per_s = config.optimization.warmup_batch_size / seconds
    share = operations / seconds / peaks[precision]
    said = (
        f"{images_per_s:.0f} images/s, {operations / seconds / 1e12:.3g} TFLOP/s, "
        f"{share:.1%} of the peak"
    )
    if on_gpu:
        said += f", {peak_memory_mb(device):.0f} MB"
    is_vit = name == "ViT-B/16"
    key = "share_of_peak_vit_b_16" + "_compiled" * compiled
    return MeasuredSpeed(said, {key: share} if is_vit else {}, "at least 40%" if is_vit else "")


def measure_joint(device: str, folder: Path, repeats: int) -> MeasuredSpeed:
    """Measure a joint step over one on random orders, at the cifar10 preset's own settings."""
    base = PRESETS["cifar10"][1].replace(
        data="scenes", limit=256, prefix_share=0.0, device=device, out=folder / "joint"
    )
    plans, own = rollout_plans(base), base.replace(warmup_iterations=0)
    chosen = {name: plan for name, plan in plans.items() if name == RANDOM_ORDERS or plan == own}
    trainers = {name: Trainer(plan, Processes.started(device)) for name, plan in chosen.items()}
    runs = {name: awaited(cycle(each, STEPS_EACH), device) for name, each in trainers.items()}
    seconds = alternate(runs, repeats)
    (joint,) = (name for name in seconds if name != RANDOM_ORDERS)
    ratio = seconds[joint] / seconds[RANDOM_ORDERS]
    said = f"{ratio:.2f} times a step on random orders"
    return MeasuredSpeed(said, {"joint_over_random_step_here": ratio}, "at most 1.3")


def measure_environment(
    rows: int, device: str, repeats: int, speed: dict[str, float]
) -> MeasuredSpeed:
    """Measure steps of the environment that hands out tensors, resets included."""
    env: envs.ImageScanVectorEnv = envs.ImageScanVectorEnv(
        rows, limit=1000, device=device, output="torch"
    )
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(rows, env.model.num_patches, generator=generator).argsort(1).to(device)

    def episode() -> None:
        for step in range(env.budget):
            env.step(order[:, step])

    seconds = alternate({"episode": awaited(episode, device)}, repeats)["episode"]
    speed["steps_per_s"] = rows * env.budget / seconds
    said = f"{speed['steps_per_s']:.0f} steps/s"
    goal = "at least 200000" if rows == max(ROWS) else ""
    return MeasuredSpeed(said, {f"env_steps_per_s_{rows}_rows": speed["steps_per_s"]}, goal)


def measure_graph(rows: int, device: str, repeats: int) -> MeasuredSpeed:
    """Measure scans of a batch step by step, and as one CUDA graph.

    Raises:
        NotPossible: the device is no GPU.
    """
    seconds = seconds_of_scans(rows, device, repeats)
    ratio = seconds["steps"] / seconds["graph"]
    said = f"{seconds['graph'] * 1000:.3g} ms, step by step {ratio:.1f} times as long"
    return MeasuredSpeed(said, {f"steps_over_graph_{rows}_images": ratio})


def measure_profile(config: TrainConfig) -> MeasuredSpeed:
    """Name the operations, on a GPU the kernels, in which a step spends most time by themselves.

    Raises:
        NotPossible: the profiler sees nothing of the device, as where it has no permission.
    """
    device = config.run.device
    trainer = Trainer(config, Processes.started(device))
    step = awaited(trainer.step, device)
    step()
    on_gpu = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        step()
    taken = own_times(profiled.key_averages(), on_gpu=on_gpu)
    total = sum(taken.values())
    if not total:
        raise NotPossible(f"the profiler saw no work on {device}")
    largest = sorted(taken, key=lambda name: -taken[name])[:ITEMS]
    return MeasuredSpeed(
        ", ".join(f"{name[:60]} {taken[name] / total:.0%}" for name in largest), {}
    )


def own_times(events: Iterable[Any], *, on_gpu: bool) -> dict[str, float]:
    """Return the time of each event by itself, by name.

    Of a GPU kernels alone: the operations that start them, and the regions around these, are told
    the same time once more.
    """
    if not on_gpu:
        return {each.key: each.self_cpu_time_total for each in events}
    return {
        each.key: each.self_device_time_total
        for each in events
        if each.device_type != DeviceType.CPU and not each.is_user_annotation
    }
