"""Check of a device: what a GPU must do as a CPU does, and how near its peak a step comes.

Training steps in both precisions, tied orders (flex attention on a GPU), torchrun with one process
(NCCL on a GPU), streamed images, both learners of the policy, and runs that go on elsewhere.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image

from experiments.benchmarks.timing import DTYPES, BenchResult, alternate, cell, count_flops
from experiments.benchmarks.torchrun import losses_under_torchrun
from experiments.metrics_file import read_metrics
from experiments.run_folder import git_commit
from experiments.training.build import multiplies_bfloat16
from experiments.training.distributed import Processes
from experiments.training.loop import peak_memory_mb, train
from experiments.training.presets import PRESETS
from experiments.training.trainer import Trainer
from foveate.checkpoint import check_device
from foveate.data import load_data
from foveate.model import AnyOrderTransformer
from foveate.orders import ordering

PEAK_SIDE_GPU, PEAK_SIDE_CPU = 8192, 1024
"""Sides of the matrices whose product is taken as the peak."""
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
SIZES: dict[str, dict[str, int]] = {"demo": {}, "large": LARGE}
"""What a measured step changes of the demo preset."""
Stops = tuple[tuple[str, int | None], ...]
"""Devices on which a run goes on, and the iterations after which it stops there."""


@dataclass(frozen=True)
class Found:
    """What a check found."""

    numbers: dict[str, float]
    """By their keys in the file."""
    said: str
    """What its row says."""


Check = Callable[[], Found]


def bench_device(
    *, device: str = "cuda", sizes: tuple[str, ...] = ("demo", "large"), repeats: int = 5
) -> BenchResult:
    """Run all checks on a device and measure its training steps. A check that fails says so.

    Args:
        device: torch device.
        sizes: keys of SIZES.
        repeats: times that every step is measured.

    Raises:
        ValueError: torch cannot use the device.
    """
    check_device(device)
    without_bf16 = not device.startswith("cuda") and not multiplies_bfloat16()
    precisions = ("fp32",) if without_bf16 else tuple(DTYPES)
    peaks = {name: peak_flops(DTYPES[name], device) for name in precisions}
    checks: dict[str, Check] = {
        f"training step, {size}, {precision}": partial(
            measure_step, size, precision, device, repeats, peaks[precision]
        )
        for size in sizes
        for precision in precisions
    }
    numbers: dict[str, float | None] = {}
    rows: list[tuple[str | float, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        checks |= tie_checks(device) | run_checks(device, Path(folder), precisions)
        for name, check in checks.items():
            found, result = outcome(name, check)
            numbers |= found
            rows.append((name.replace("_", " "), result))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    written = ", ".join(f"{peak / 1e12:.3g} TFLOP/s in {dtype}" for dtype, peak in peaks.items())
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


def outcome(name: str, check: Check) -> tuple[dict[str, float | None], str]:
    """Run one check, and return its numbers and what its row says: the numbers, or the failure."""
    try:
        found = check()
    except Exception as reason:
        # Whatever fails, the other checks say what works.
        line = str(reason).strip().partition("\n")[0]
        return {name: None}, f"failed: {type(reason).__name__}: {line}"
    return {**found.numbers}, found.said


def number(name: str, measure: Callable[[], float]) -> Check:
    """Return a check that finds one number."""

    def check() -> Found:
        value = measure()
        return Found({name: value}, cell(value))

    return check


def awaited(run: Callable[[], object], device: str) -> Callable[[], object]:
    """Return a call that waits until the device has done its work."""

    def waiting() -> object:
        result = run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return result

    return waiting


def peak_flops(dtype: torch.dtype, device: str) -> float:
    """Operations per second of a product of large matrices, the best of several."""
    side = PEAK_SIDE_GPU if device.startswith("cuda") else PEAK_SIDE_CPU
    left, right = torch.randn(2, side, side, device=device).to(dtype).unbind()
    product, taken = awaited(lambda: left @ right, device), []
    for _ in range(6):
        started = time.perf_counter()
        product()
        taken.append(time.perf_counter() - started)
    return 2 * side**3 / min(taken)


def measure_step(size: str, precision: str, device: str, repeats: int, peak: float) -> Found:
    """Measure a training step on random orders: images, operations, and share of the peak."""
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
        seconds = alternate({"step": awaited(trainer.step, device)}, repeats)["step"]
    images_per_s = config.optimization.warmup_batch_size / seconds
    flops_per_s = operations / seconds
    return Found(
        {
            f"images_per_s_{size}_{precision}": images_per_s,
            f"share_of_peak_{size}_{precision}": flops_per_s / peak,
        },
        f"{images_per_s:.0f} images/s, {flops_per_s / 1e12:.2f} TFLOP/s, "
        f"{flops_per_s / peak:.2%} of the peak",
    )


def tie_checks(device: str) -> dict[str, Check]:
    """Checks that compare losses and gradients of tied orders with the processor's, in float32.

    The processor takes dense masks, a GPU flex attention or, of narrow heads, dense masks as well.
    """
    names = {
        f"tied_{what}_away_from_the_processors_with_{heads}_heads": (heads, what)
        for heads in (4, 8)
        for what in ("loss", "gradient")
    }
    return {
        name: number(name, partial(tied_distance, device, heads, what))
        for name, (heads, what) in names.items()
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
    expected, measured = found
    return float((expected - measured).norm() / expected.norm())


def run_checks(device: str, folder: Path, precisions: tuple[str, ...]) -> dict[str, Check]:
    """Checks that train tiny runs in every way, and return their last losses.

    Beside them stands that of a run on the processor. Rounding differs between devices, and so do
    in the end the patches that a policy chooses: losses agree to a few percent, not to the bit.
    """
    here, there = ((("cpu", None),), ((device, None),))
    runs: dict[str, tuple[Stops, dict[str, object]]] = {
        "on_the_processor": (here, {}),
        "plain": (there, {}),
        "begun_on_the_processor": ((("cpu", 4), (device, None)), {}),
        "continued_on_the_processor": (((device, 6), ("cpu", None)), {}),
        "bf16": (there, {"precision": "bf16"}),
        "squares": (there, {"fixation_size": 2}),
        "maskable_ppo": (there, {"agent": "maskable-ppo"}),
    }
    if "bf16" not in precisions:
        del runs["bf16"]

    def streamed_loss() -> float:
        return last_loss(folder / "streamed", there, write_shards(folder / "shards"))

    def torchrun_loss() -> float:
        own = ("--device", device.partition(":")[0])
        return losses_under_torchrun(1, folder / "torchrun", *own)[-1]

    losses: dict[str, Callable[[], float]] = {
        **{
            name: partial(last_loss, folder / name, stops, options)
            for name, (stops, options) in runs.items()
        },
        "streamed": streamed_loss,
        "torchrun": torchrun_loss,
    }
    return {f"last_loss_{name}": number(f"last_loss_{name}", loss) for name, loss in losses.items()}


def last_loss(out: Path, stops: Stops, options: dict[str, object]) -> float:
    """Train the smoke preset with some options, in parts on several devices."""
    config = PRESETS["smoke"][1].replace(report=False, out=out, **options)
    for number, (place, stop) in enumerate(stops):
        train(config.replace(device=place, stop_after=stop, resume=number > 0))
    return float(read_metrics(out / "metrics.jsonl")[-1]["loss"])


def write_shards(folder: Path) -> dict[str, object]:
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
