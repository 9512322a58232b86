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
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image

from experiments.benchmarks.timing import BenchResult, alternate, count_flops
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
    for check in (check_ties, check_runs):
        for name, value in check(device).items():
            rows.append((name.replace("_", " "), value))
            numbers[name] = value
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


def check_ties(device: str) -> dict[str, float]:
    """Compare losses and gradients of tied orders with the processor's: dense masks, float32."""
    torch.manual_seed(0)
    config = PRESETS["demo"][1]
    images = load_data("scenes", "train", limit=32).batch(torch.arange(32))
    model = AnyOrderTransformer(
        config.parts.model_config(image_size=(32, 32), embed_dim=64, depth=4, periphery=2)
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
        found.append((float(loss.detach()), torch.cat(gradients)))
    (loss_here, gradient_here), (loss_there, gradient_there) = found
    away = (gradient_here - gradient_there).norm() / gradient_here.norm()
    return {
        "tied_loss_minus_the_processors": loss_there - loss_here,
        "tied_gradient_distance_from_the_processors": float(away),
    }


def check_runs(device: str) -> dict[str, float]:
    """Train tiny runs in every way, and compare their last losses with a run on the processor.

    Rounding differs between devices, and so do in the end the patches that a policy chooses: losses
    agree to a few percent, not to the bit.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = PRESETS["smoke"][1].replace(report=False, evaluate_every=None)

        def last_loss(
            out: str, stops: tuple[tuple[str, int | None], ...], **options: object
        ) -> float:
            for number, (place, stop) in enumerate(stops):
                changed = {**options, "device": place, "stop_after": stop, "resume": number > 0}
                train(config.replace(out=folder / out, **changed))
            return loss_of(folder / out)

        here = last_loss("here", (("cpu", None),))
        losses = {
            "plain": last_loss("plain", ((device, None),)),
            "begun_on_the_processor": last_loss("from_cpu", (("cpu", 4), (device, None))),
            "continued_on_the_processor": last_loss("to_cpu", ((device, 6), ("cpu", None))),
            "bf16": last_loss("bf16", ((device, None),), precision="bf16"),
            "torchrun": torchrun_loss(config.replace(out=folder / "torchrun", device=device)),
            "squares": last_loss("squares", ((device, None),), fixation_size=2),
            "maskable_ppo": last_loss("ppo", ((device, None),), agent="maskable-ppo"),
            "streamed": last_loss("streamed", ((device, None),), **streamed(folder / "shards")),
        }
    return {"last_loss_on_the_processor": here} | {
        f"last_loss_{what}": loss for what, loss in losses.items()
    }


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
