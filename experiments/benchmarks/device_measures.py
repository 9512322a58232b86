"""What is measured of a device: a training step over the peak, scans, environments, a profile."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InvalidCxxCompiler
from torch.profiler import ProfilerActivity, profile

import envs
from experiments.benchmarks.checking import NotPossible
from experiments.benchmarks.device_runs import write_shards
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
IMAGES = "images"
"""Folder of the images that training steps read."""
ITEMS = 5
"""Largest items of the profile."""


@dataclass(frozen=True)
class MeasuredSpeed:
    """What a measurement found."""

    said: str
    numbers: dict[str, float]
    """By their keys in the file."""
    goal: str = ""
    """What is hoped for on a data-center GPU."""


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


def measure_step(
    config: TrainConfig, repeats: int, peaks: dict[str, float], compiled: bool, goal: str
) -> MeasuredSpeed:
    """Measure a training step: images, operations, share of the peak, and memory.

    The share of a step that has a goal is a number of the file.

    Raises:
        NotPossible: the peak was not measured, or there is no compiler.
    """
    device, precision = config.run.device, config.optimization.precision
    on_gpu = device.startswith("cuda")
    if precision not in peaks:
        raise NotPossible("the peak was not measured")
    trainer = trainer_of(config)
    trainer.step()
    operations = count_flops(trainer.step)
    if compiled:
        # Each size is compiled for itself: torch gives up behind eight shapes of one function.
        torch.compiler.reset()
        # Block by block: the draws of a step stay outside, and all blocks share one compilation.
        for block in (*trainer.model.encoder_blocks(), *trainer.model.decoder.blocks):
            block.compile()
        try:
            trainer.step()
        except BackendCompilerFailed as reason:
            if not isinstance(reason.inner_exception, InvalidCxxCompiler):
                raise
            raise NotPossible("needs a C++ compiler") from reason
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
    key = "share_of_peak_vit_b_16" + "_compiled" * compiled
    return MeasuredSpeed(said, {key: share} if goal else {}, goal)


def trainer_of(config: TrainConfig) -> Trainer:
    """Return a trainer, and write its images if they are not there.

    They are resized from small ones: to compose large scenes takes a minute.
    """
    folder = Path(config.data.data)
    if not folder.exists():
        write_shards(folder, "scenes_rgb")
    return Trainer(config, Processes.started(config.run.device))


def measure_joint(device: str, folder: Path, repeats: int, precision: str) -> MeasuredSpeed:
    """Measure a joint step over one on random orders, of the cifar10 preset in a precision."""
    base = PRESETS["cifar10"][1].replace(
        data="scenes",
        limit=256,
        prefix_share=0.0,
        device=device,
        precision=precision,
        out=folder / "joint",
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
    rows: int, device: str, repeats: int, speed: dict[str, float], goal: str
) -> MeasuredSpeed:
    """Measure steps of the environment that hands out tensors, resets included; tell ``speed``."""
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
    device, trainer = config.run.device, trainer_of(config)
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
