"""Tiny runs on a device: checkpoints that move, torchrun, streams, and other ways to train."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from experiments.benchmarks.checking import Check, Compared, NotPossible
from experiments.benchmarks.torchrun import losses_under_torchrun
from experiments.metrics_file import read_metrics
from experiments.training.build import multiplies_bfloat16
from experiments.training.loop import train
from experiments.training.presets import PRESETS
from foveate.data import load_data
from foveate.data.streaming import ImageStream
from foveate.devices import send

Stops = tuple[tuple[str, int | None], ...]
"""Devices on which a run goes on, and the iterations after which it stops there."""
RUN_ALLOWED = 0.02
"""The most that a run's last loss may differ from the CPU's, relative. Rounding differs between
devices, and so do in the end the patches that a policy chooses."""
BF16_ALLOWED = 0.05
"""The same of a run in bfloat16."""
SAME_ALLOWED = 1e-3
"""The most that two runs on one device may differ: kernels on a GPU may sum in any order."""


def run_checks(device: str, folder: Path) -> dict[str, Check]:
    """Return the checks that train, by name. Runs that several of them need are trained once."""
    there: Stops = ((device, None),)

    @functools.cache
    def loss_on(place: str) -> float:
        return last_loss(folder / f"plain_{place.replace(':', '_')}", ((place, None),), {})

    def against(base: str, allowed: float, name: str, stops: Stops, **options: object) -> Check:
        def check() -> Mapping[str, Compared]:
            if options.get("precision") == "bf16" and device == "cpu" and not multiplies_bfloat16():
                raise NotPossible("this processor has no arithmetic for bfloat16")
            expected, found = loss_on(base), last_loss(folder / name, stops, options)
            return {"last loss": Compared(abs(found / expected - 1), allowed)}

        return check

    begun, continued = (("cpu", 4), (device, None)), ((device, 6), ("cpu", None))
    bf16: dict[str, object] = {"precision": "bf16"}
    checks: dict[str, Check] = {
        "run against the CPU's": against("cpu", RUN_ALLOWED, "again", there),
        "checkpoint of the CPU goes on here": against("cpu", RUN_ALLOWED, "begun", begun),
        "checkpoint goes on on the CPU": against("cpu", RUN_ALLOWED, "continued", continued),
        "run in bf16 against the CPU's": against("cpu", BF16_ALLOWED, "bf16", there, **bf16),
        "torchrun with one process against none": partial(
            compare_torchrun, device, folder, lambda: loss_on(device)
        ),
        "streamed through pinned memory": partial(compare_stream, device, folder),
    }
    others: dict[str, dict[str, object]] = {
        "squares": {"fixation_size": 2},
        "maskable-ppo": {"agent": "maskable-ppo"},
    }
    finite: dict[str, Check] = {
        f"run with {name} is finite": partial(is_finite, folder / name, there, options)
        for name, options in others.items()
    }
    return {**checks, **finite}


def last_loss(out: Path, stops: Stops, options: dict[str, object]) -> float:
    """Train the smoke preset with some options, in parts on several devices."""
    config = PRESETS["smoke"][1].replace(report=False, out=out, **options)
    for number, (place, stop) in enumerate(stops):
        train(config.replace(device=place, stop_after=stop, resume=number > 0))
    return float(read_metrics(out / "metrics.jsonl")[-1]["loss"])


def is_finite(out: Path, stops: Stops, options: dict[str, object]) -> Mapping[str, Compared]:
    """Train in another way, whose loss no other run has."""
    loss = last_loss(out, stops, options)
    return {"last loss": Compared(0 if math.isfinite(loss) else math.inf, 0)}


def compare_torchrun(
    device: str, folder: Path, loss: Callable[[], float]
) -> Mapping[str, Compared]:
    """Compare one process that torchrun starts (NCCL on CUDA, gloo elsewhere) with none."""
    own = ("--device", device.partition(":")[0])
    found = losses_under_torchrun(1, folder / "torchrun", *own)[-1]
    return {"last loss": Compared(abs(found / loss() - 1), SAME_ALLOWED)}


def compare_stream(device: str, folder: Path) -> Mapping[str, Compared]:
    """Compare streamed images on the device with those on the CPU, and train from them."""
    options = write_shards(folder / "shards")
    source = str(options["data"])
    streams = [
        ImageStream(source, image_size=32, batch_size=16, channels=1, shuffle_buffer=16)
        for _ in range(2)
    ]
    worst = 0.0
    for _ in range(4):
        here, there = (next(stream).images for stream in streams)
        differs = send(there, device).cpu() != here
        worst = max(worst, float(differs.float().mean()))
    loss = last_loss(folder / "streamed", ((device, None),), options)
    return {
        "pixels": Compared(worst, 0),
        "finite loss": Compared(0 if math.isfinite(loss) else math.inf, 0),
    }


def write_shards(folder: Path, data: str = "scenes") -> dict[str, object]:
    """Write parquet shards of 256 scenes, and return the options that stream them."""
    folder.mkdir()
    encoded = []
    scenes = load_data(data, "train", limit=256).images
    for pixels in scenes.movedim(1, -1).squeeze(-1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        encoded.append({"bytes": file.getvalue(), "path": None})
    for number, first in enumerate(range(0, 256, 64)):
        table = pa.table({"image": encoded[first : first + 64]})
        pyarrow.parquet.write_table(table, folder / f"train-{number}.parquet", row_group_size=16)
    read = {"stream": True, "image_size": scenes.shape[-1], "channels": scenes.shape[1]}
    return {"data": str(folder), "limit": None, **read}
