"""Benchmarks of growth: over the number of patches, of passes, of processes, and of data."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.benchmarks.env import predict_anew
from experiments.benchmarks.timing import Table, alternate, count_flops, saved_megabytes
from experiments.benchmarks.training import make_trainer
from experiments.evaluation.decode import parallel, patch_by_patch
from experiments.runs import read_metrics
from experiments.training.presets import PRESETS
from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.parallel_decoding import Schedule
from foveate.model.scanning import Scan
from foveate.orders import ordering, rank_to_order
from foveate.recipes import RECIPES

if TYPE_CHECKING:
    from experiments.bench import BenchConfig

DECODED_IMAGES = 2
SCALE_IMAGES = 4
STREAMED_BATCHES = 40
TWO_PROCESS_STEPS = 12
FEW_POSITIONS = 12
SCALE_COLUMNS = (
    "ms/image, train",
    "GFLOP/image",
    "MB saved/image",
    f"ms/fixation, {FEW_POSITIONS} predicted",
    "ms/fixation, all predicted",
)
IN_MEMORY = "training from memory"


def bench_decode(config: BenchConfig) -> dict[str, object]:
    """Measure decoding in few passes against one patch per pass, and scans with a cache."""
    torch.manual_seed(0)
    masked, causal = (
        AnyOrderTransformer(
            RECIPES[name].model_config(
                depth=4, image_size=(16, 16), patch_size=1, embed_dim=64, num_colors=64
            )
        ).eval()
        for name in ("autonat", "igpt")
    )
    for each in (masked, causal):
        each.palette.copy_(torch.linspace(0, 1, 64).unsqueeze(1))
    scanner = AnyOrderTransformer(ModelConfig(embed_dim=64)).eval()
    canvas, images = torch.rand(DECODED_IMAGES, 1, 16, 16), torch.rand(64, 1, 32, 32)
    generator = torch.Generator().manual_seed(0)
    path = rank_to_order(ordering("random", scanner.grid)(images))[:, :12]

    def scan() -> None:
        under_way = Scan.start(scanner, images, path.shape[1])
        for patch in path.unbind(1):
            under_way.reveal(patch.unsqueeze(1))
            under_way.predict()

    def uncached() -> None:
        with torch.no_grad():
            for step in range(1, path.shape[1] + 1):
                predict_anew(scanner, images, path[:, :step])

    contenders: dict[str, Callable[[], object]] = {
        f"parallel, {passes} passes": partial(
            parallel(masked, Schedule.cosine(passes)), canvas, generator
        )
        for passes in (4, 8, 16)
    }
    contenders[f"one by one, {masked.num_patches} passes"] = partial(
        patch_by_patch(masked), canvas, generator
    )
    contenders[f"autoregressive model, {causal.num_patches} passes"] = partial(
        patch_by_patch(causal, "raster"), canvas, generator
    )
    contenders["scan, 12 fixations, cached"] = scan
    contenders["scan, 12 fixations, re-encoded"] = uncached
    seconds = alternate(contenders, config.repeats)
    sequential = seconds[f"one by one, {masked.num_patches} passes"]
    autoregressive = seconds[f"autoregressive model, {causal.num_patches} passes"]
    return Table(
        what="decode",
        caption=f"Decoding {DECODED_IMAGES} images of {masked.num_patches} pixels, and scanning "
        f"64 of {scanner.num_patches} patches, width 64",
        columns=("decoding", "s"),
        rows=tuple(seconds.items()),
        keys={
            "one_by_one_over_8_passes": sequential / seconds["parallel, 8 passes"],
            "autoregressive_over_8_passes": autoregressive / seconds["parallel, 8 passes"],
            "re_encoded_over_cached": seconds["scan, 12 fixations, re-encoded"]
            / seconds["scan, 12 fixations, cached"],
        },
    ).finish(config.path, torch.get_num_threads(), config.repeats)


def bench_scale(config: BenchConfig) -> dict[str, object]:
    """Measure time, memory and one more fixation over the number of patches; draw; write."""
    rows: list[tuple[str | float, ...]] = []
    for number in config.patches:
        side = 4 * round(number**0.5)
        model = AnyOrderTransformer(
            ModelConfig(image_size=(side, side), embed_dim=config.embed_dim, depth=config.depth)
        )
        images = torch.rand(SCALE_IMAGES, 1, side, side)
        rank = ordering("random", model.grid)(images)
        scan = Scan.start(model, images, number)
        scan.reveal(rank_to_order(rank)[:, : number - 1])
        last = rank_to_order(rank)[:, number - 1 :]

        def train(model: AnyOrderTransformer = model, rank: torch.Tensor = rank) -> None:
            model(torch.rand(SCALE_IMAGES, 1, side, side), rank, num_steps=16).backward()  # noqa: B023
            model.zero_grad()

        def fixate(
            positions: torch.Tensor | None, scan: Scan = scan, last: torch.Tensor = last
        ) -> None:
            # The last place is written again and again: the cost of a fixation when N - 1 are seen.
            again = dataclasses.replace(scan)
            again.reveal(last)
            again.predict(positions)

        flops = count_flops(train)
        saved = saved_megabytes(train)
        few = last.expand(-1, FEW_POSITIONS)
        seconds = alternate(
            {"train": train, "all": partial(fixate, None), "few": partial(fixate, few)},
            config.repeats,
        )
        rows.append(
            (
                str(number),
                1e3 * seconds["train"] / SCALE_IMAGES,
                flops / SCALE_IMAGES / 1e9,
                saved / SCALE_IMAGES,
                1e3 * seconds["few"],
                1e3 * seconds["all"],
            )
        )
    draw_scale(rows, config.path.with_suffix(".png"))
    first, last_row = rows[0], rows[-1]
    growth = float(last_row[0]) / float(first[0])
    return Table(
        what="scale",
        caption=f"Over the number of patches, random order (sorted, causal), width "
        f"{config.embed_dim}, depth {config.depth}, 16 prefixes of 12 targets; {SCALE_IMAGES} "
        "images, the fixation of all of them when all other patches have been seen",
        columns=("patches", *SCALE_COLUMNS),
        rows=tuple(rows),
        keys={
            "memory_growth_over_patches_growth": float(last_row[3]) / float(first[3]) / growth,
            "two_process_loss_max_abs_diff": two_process_difference(),
        },
    ).finish(config.path, torch.get_num_threads(), config.repeats)


def draw_scale(rows: list[tuple[str | float, ...]], path: Path) -> None:
    """Plot every column against the number of patches, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    patches = [float(row[0]) for row in rows]
    for column, name in enumerate(SCALE_COLUMNS):
        axes.loglog(patches, [float(row[column + 1]) for row in rows], "o-", label=name)
    axes.set_xlabel("patches")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def two_process_difference() -> float:
    """Largest difference of the loss curves of one and two processes, same global batch."""
    with tempfile.TemporaryDirectory() as folder:
        curves = []
        for count in (1, 2):
            out = Path(folder) / str(count)
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            options = f"--out {out} --threads 1 --micro-batches 2 --no-report --log-every 1"
            half = TWO_PROCESS_STEPS // 2
            options += f" --warmup-iterations {half} --iterations {half}"
            subprocess.run(
                [sys.executable, *launcher, "-m", "experiments.train", "smoke", *options.split()],
                check=True,
                capture_output=True,
            )
            curves.append([line["loss"] for line in read_metrics(out / "metrics.jsonl")])
    return max(abs(one - two) for one, two in zip(*curves, strict=True))


def bench_data(config: BenchConfig) -> dict[str, object]:
    """Measure streamed images per second over workers, and training from a stream and memory."""
    from foveate.data.streaming import ImageStream

    assert config.data is not None
    size = 32
    plan = PRESETS["cifar10"][1].replace(
        data=config.data,
        stream=True,
        image_size=size,
        warmup_iterations=10**6,
        iterations=0,
    )
    contenders: dict[str, Callable[[], object]] = {}
    for workers in (0, 1):
        streamed = plan.replace(stream_workers=workers)
        contenders[f"training from a stream, {workers} workers"] = make_trainer(streamed, "").step
    held = make_trainer(plan, "")
    held.images.stream = None
    contenders[IN_MEMORY] = held.step
    for workers in (0, 1, 2):
        stream = ImageStream(
            config.data, "train", image_size=size, batch_size=64, num_workers=workers
        )

        def read(stream: ImageStream = stream) -> None:
            for _ in range(STREAMED_BATCHES):
                next(stream)

        contenders[f"{workers} workers"] = read
    seconds = alternate(contenders, config.repeats)
    images = {
        name: plan.optimization.warmup_batch_size
        if name.startswith("training")
        else 64 * STREAMED_BATCHES
        for name in seconds
    }
    speed = {name: images[name] / taken for name, taken in seconds.items()}
    return Table(
        what="data",
        caption=f"Streaming {Path(config.data).name}, decoded and resized to {size} pixels: read "
        "alone, and by training steps of the cifar10 preset on random orders",
        columns=("what", "images/s"),
        rows=tuple(speed.items()),
        keys={
            "streamed_images_per_s": max(
                value for name, value in speed.items() if not name.startswith("training")
            ),
            "streamed_over_memory_images_per_s": speed["training from a stream, 0 workers"]
            / speed[IN_MEMORY],
        },
    ).finish(config.path, torch.get_num_threads(), config.repeats)
