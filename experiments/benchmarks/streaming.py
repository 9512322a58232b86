"""Benchmark of streaming: decoded images per second, and training on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from experiments.benchmarks.timing import BenchResult, alternate
from experiments.benchmarks.training import make_trainer
from experiments.run_folder import git_commit
from experiments.training.presets import PRESETS
from foveate.data.streaming import ImageStream

SIZE_PX = 32
READ_IMAGES = 64
"""Images that are read at once."""
STREAMED_BATCHES = 40
IN_MEMORY = "training from memory"


def bench_data(data: str, *, repeats: int = 5) -> BenchResult:
    """Measure streamed images per second over workers, and training from a stream and memory.

    Args:
        data: parquet or tar shards.
        repeats: times that every contender is measured.
    """
    plan = PRESETS["cifar10"][1].replace(
        data=data,
        stream=True,
        image_size=SIZE_PX,
        warmup_iterations=10**6,
        iterations=0,
    )
    training: dict[str, Callable[[], object]] = {}
    for workers in (0, 1):
        streamed = plan.replace(stream_workers=workers)
        training[f"training from a stream, {workers} workers"] = make_trainer(streamed, "").step
    held = make_trainer(plan, "")
    held.images.stream = None
    training[IN_MEMORY] = held.step
    reading = {f"{workers} workers": reader(data, workers) for workers in (0, 1, 2)}
    seconds = alternate({**training, **reading}, repeats)
    speed = {name: plan.optimization.warmup_batch_size / seconds[name] for name in training}
    read = {name: READ_IMAGES * STREAMED_BATCHES / seconds[name] for name in reading}
    return BenchResult(
        what="data",
        caption=f"Streaming {Path(data).name}, decoded and resized to {SIZE_PX} pixels: read "
        "alone, and by training steps of the cifar10 preset on random orders",
        columns=("what", "images/s"),
        rows=tuple({**speed, **read}.items()),
        numbers={
            "streamed_images_per_s": max(read.values()),
            "streamed_over_memory_images_per_s": speed["training from a stream, 0 workers"]
            / speed[IN_MEMORY],
        },
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def reader(data: str, workers: int) -> Callable[[], None]:
    """Return a call that reads some batches and does nothing with them."""
    images = ImageStream(
        data, "train", image_size=SIZE_PX, batch_size=READ_IMAGES, num_workers=workers
    )

    def read() -> None:
        for _ in range(STREAMED_BATCHES):
            next(images)

    return read
