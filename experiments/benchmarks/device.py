"""Check of a device: what a GPU must do as a CPU does, and how near its peak a step comes.

Training steps in both precisions, tied orders (flex attention on a GPU), torchrun with one process
(NCCL on a GPU), streamed images, both learners of the policy, and runs that go on elsewhere.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image

from experiments.benchmarks.timing import BenchResult, alternate, cell, count_flops
from experiments.runs import git_commit, read_metrics
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes
from experiments.training.loop import peak_memory_mb, train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.data import load_data
from foveate.model import AnyOrderTransformer
from foveate.orders import ordering

PEAK_SIDE = 8192
"""Side of the matrices whose product is taken as the peak of a GPU; a CPU's are 1024 wide."""
LARGE = {
    "image_size": 128,
    "patch_size": 8,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "budget": 128,
    "warmup_batch_size": 128,
}
"""A model as large as ViT-S, of 256 patches."""
Stops = tuple[tuple[str, int | None], ...]
"""Devices on which a run goes on, and the iterations after which it stops there."""
SIZES: dict[str, dict[str, int]] = {"demo": {}, "large": LARGE}


def bench_device(
    *, device: str = "cuda", sizes: tuple[str, ...] = ("demo", "large"), repeats: int = 5
) -> BenchResult:
    """Run all checks on a device and measure its training steps.

    Args:
        device: torch device.
        sizes: keys of SIZES.
        repeats: times that every step is measured.
    """
    numbers: dict[str, float | None] = {}
    rows: list[tuple[str | float, ...]] = []
    peaks = {name: peak_flops(dtype, device) for name, dtype in DTYPES.items()}
    for size in sizes:
        for precision, peak in peaks.items():
            images_per_s, flops_per_s = measure_step(size, precision, device, repeats)
            share = flops_per_s / peak
            rows.append(
                (
                    f"training step, {size}, {precision}",
                    f"{images_per_s:.0f} images/s, {flops_per_s / 1e12:.2f} TFLOP/s, {share:.1%} "
                    "of the peak",
                )
            )
            numbers[f"images_per_s_{size}_{precision}"] = images_per_s
            numbers[f"share_of_peak_{size}_{precision}"] = share
    with tempfile.TemporaryDirectory() as folder:
        for name, check in {**tie_checks(device), **run_checks(device, Path(folder))}.items():
            try:
                numbers[name] = check()
                rows.append((name.replace("_", " "), cell(numbers[name])))
            except Exception as reason:
                # Whatever fails, the other checks say what works.
                numbers[name] = None
                line = str(reason).strip().partition("\n")[0]
                rows.append((name.replace("_", " "), f"failed: {type(reason).__name__}: {line}"))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    written = ", ".join(f"{peak / 1e12:.1f} TFLOP/s in {dtype}" for dtype, peak in peaks.items())
    return BenchResult(
        what="device",
        caption=f"Checks on {name}, torch {torch.__version__}; matmul peak {written}",
        columns=("check", "result"),
        rows=tuple(rows),
        numbers={**numbers, "peak_memory_mb": peak_memory_mb(device)},
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def finished(run: Callable[[], object], device: str) -> Callable[[], object]:
    """Return a call that waits until the device has done its work."""

    def waiting() -> object:
        result = run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return result

    return waiting


def peak_flops(dtype: torch.dtype, device: str) -> float:
    """Operations per second of a product of large matrices, the best of several."""
    side = PEAK_SIDE if device.startswith("cuda") else 1024
    left, right = torch.randn(2, side, side, device=device).to(dtype).unbind()
    product, taken = finished(lambda: left @ right, device), []
    for _ in range(6):
        started = time.perf_counter()
        product()
        taken.append(time.perf_counter() - started)
    return 2 * side**3 / min(taken)


def measure_step(size: str, precision: str, device: str, repeats: int) -> tuple[float, float]:
    """Return images and operations per second of a training step on random orders."""
    with tempfile.TemporaryDirectory() as folder:
        config = PRESETS["demo"][1].replace(
            **{
                "limit": 1000,
                "prefix_share": 0.0,
                "iterations": 0,
                "out": Path(folder),
                "device": device,
                "precision": precision,
                **SIZES[size],
            }
        )
        trainer = Trainer(config, Processes.started(device))
        trainer.step()
        operations = count_flops(trainer.step)
        seconds = alternate({"step": finished(trainer.step, device)}, repeats)["step"]
    return config.optimization.warmup_batch_size / seconds, operations / seconds


def tie_checks(device: str) -> dict[str, Callable[[], float]]:
    """Checks that compare losses and gradients of tied orders with the processor's, in float32.

    The processor takes dense masks, a GPU flex attention or, of narrow heads, dense masks as well.
    """
    return {
        f"tied_{what}_away_from_the_processors_with_{heads}_heads": partial(
            tied_distance, device, heads, what
        )
        for heads in (4, 8)
        for what in ("loss", "gradient")
    }


def tied_distance(device: str, num_heads: int, what: str) -> float:
    """Relative distance of a tied order's loss or gradient on the device from the processor's."""
    torch.manual_seed(0)
    config = PRESETS["demo"][1]
    images = load_data("scenes", "train", limit=32).batch(torch.arange(32))
    model = AnyOrderTransformer(
        config.parts.model_config(
            image_size=(32, 32), embed_dim=64, depth=4, num_heads=num_heads, periphery=2
        )
    )
    generator = torch.Generator().manual_seed(0)
    rank = ordering("random_blobs", model.grid)(images, generator=generator)
    found = []
    for place in ("cpu", device):
        model = model.to(place)
        model.zero_grad()
        drawn = torch.Generator().manual_seed(1)
        loss = model(images.to(place), rank.to(place), ties=True, generator=drawn)
        loss.backward()
        gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
        found.append({"loss": loss.detach().cpu().view(1), "gradient": torch.cat(gradients)}[what])
    return float((found[0] - found[1]).norm() / found[0].norm())


def run_checks(device: str, folder: Path) -> dict[str, Callable[[], float]]:
    """Checks that train tiny runs in every way, and return their last losses.

    Beside them stands that of a run on the processor. Rounding differs between devices, and so do
    in the end the patches that a policy chooses: losses agree to a few percent, not to the bit.
    """
    config = PRESETS["smoke"][1].replace(report=False)

    def last_loss(out: str, stops: Stops, **options: object) -> float:
        for number, (place, stop) in enumerate(stops):
            changed = {**options, "device": place, "stop_after": stop, "resume": number > 0}
            train(config.replace(out=folder / out, **changed))
        return loss_of(folder / out)

    here, there = ((("cpu", None),), ((device, None),))
    runs: dict[str, tuple[Stops, dict[str, object]]] = {
        "on_the_processor": (here, {}),
        "plain": (there, {}),
        "begun_on_the_processor": ((("cpu", 4), (device, None)), {}),
        "continued_on_the_processor": (((device, 6), ("cpu", None)), {}),
        "bf16": (there, {"precision": "bf16"}),
        "squares": (there, {"fixation_size": 2}),
        "maskable_ppo": (there, {"agent": "maskable-ppo"}),
        "streamed": (there, streamed(folder / "shards")),
    }
    checks: dict[str, Callable[[], float]] = {
        f"last_loss_{name}": partial(last_loss, name, stops, **options)
        for name, (stops, options) in runs.items()
    }
    torchrun = config.replace(out=folder / "torchrun", device=device)
    return {**checks, "last_loss_torchrun": partial(torchrun_loss, torchrun)}


def loss_of(folder: Path) -> float:
    """Return the last loss that a run logged."""
    return float(read_metrics(folder / "metrics.jsonl")[-1]["loss"])


def torchrun_loss(config: TrainConfig) -> float:
    """Train in a process that torchrun starts, which connects as several would."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "1", "-m", "experiments.train", "smoke", "--no-report"]
    command += ["--out", str(config.run.out), "--device", config.run.device.partition(":")[0]]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"torchrun failed: {done.stderr.strip().splitlines()[-1]}")
    return loss_of(config.run.out)


def streamed(folder: Path) -> dict[str, object]:
    """Write parquet shards of scenes, and return the options that stream them."""
    folder.mkdir()
    encoded = []
    for pixels in load_data("scenes", "train", limit=256).images.squeeze(1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    for number, first in enumerate(range(0, 256, 64)):
        table = pa.table({"image": encoded[first : first + 64]})
        pyarrow.parquet.write_table(table, folder / f"train-{number}.parquet", row_group_size=16)
    return {"data": str(folder), "limit": None, "stream": True, "image_size": 32, "channels": 1}
