"""Benchmark of growth over the number of patches; and the same run in one and two processes."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from experiments.benchmarks.timing import BenchResult, alternate, count_flops, saved_megabytes
from experiments.benchmarks.torchrun import losses_under_torchrun
from experiments.run_folder import git_commit
from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer
from foveate.model.scanning import Scan
from foveate.orders import ordering, rank_to_order

SCALE_IMAGES = 4
TWO_PROCESS_STEPS = 12
FEW_POSITIONS = 12
COLUMNS = (
    "patches",
    "ms/image, train",
    "GFLOP/image",
    "MB saved/image",
    f"ms/fixation, {FEW_POSITIONS} predicted",
    "ms/fixation, all predicted",
)


@dataclass(frozen=True)
class Costs:
    """What images of one size take."""

    num_patches: int
    train_ms: float
    """Per image, forward and backward."""
    gigaflops: float
    """Per image."""
    saved_mb: float
    """Per image, for the backward pass."""
    few_ms: float
    """Of a fixation, when all other patches have been seen and few are predicted."""
    all_ms: float
    """The same when all are predicted."""

    def row(self) -> tuple[str | float, ...]:
        """Return cells of COLUMNS."""
        number, *costs = dataclasses.astuple(self)
        return (str(number), *costs)


def bench_scale(
    patches: tuple[int, ...] = (49, 196, 784, 1024),
    *,
    embed_dim: int = 192,
    depth: int = 6,
    repeats: int = 5,
) -> BenchResult:
    """Measure time, memory and one more fixation over the number of patches.

    Args:
        patches: numbers of patches, square ones.
        embed_dim: model width.
        depth: encoder blocks.
        repeats: times that every contender is measured.
    """
    costs = [
        costs_of(number, embed_dim=embed_dim, depth=depth, repeats=repeats) for number in patches
    ]
    first, last = costs[0], costs[-1]
    growth = last.num_patches / first.num_patches
    return BenchResult(
        what="scale",
        caption=f"Over the number of patches, random order (sorted, causal), width {embed_dim}, "
        f"depth {depth}, 16 prefixes of 12 targets; {SCALE_IMAGES} "
        "images, the fixation of all of them when all other patches have been seen",
        columns=COLUMNS,
        rows=tuple(each.row() for each in costs),
        numbers={
            "memory_growth_over_patches_growth": last.saved_mb / first.saved_mb / growth,
            "two_process_loss_max_abs_diff": two_process_difference(),
        },
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )


def costs_of(number: int, *, embed_dim: int, depth: int, repeats: int) -> Costs:
    """Measure one number of patches."""
    side = 4 * round(number**0.5)
    model = AnyOrderTransformer(
        ModelConfig(image_size=(side, side), embed_dim=embed_dim, depth=depth)
    )
    images = torch.rand(SCALE_IMAGES, 1, side, side)
    rank = ordering("random", model.grid)(images)
    scan = Scan.start(model, images, number)
    scan.reveal(rank_to_order(rank)[:, : number - 1])
    last = rank_to_order(rank)[:, number - 1 :]

    def train() -> None:
        model(torch.rand(SCALE_IMAGES, 1, side, side), rank, num_steps=16).backward()
        model.zero_grad()

    def fixate(positions: torch.Tensor | None) -> None:
        # The last place is written again and again: the cost of a fixation when N - 1 are seen.
        again = dataclasses.replace(scan)
        again.reveal(last)
        again.predict(positions)

    flops, saved = count_flops(train), saved_megabytes(train)
    few = last.expand(-1, FEW_POSITIONS)
    seconds = alternate(
        {"train": train, "all": partial(fixate, None), "few": partial(fixate, few)}, repeats
    )
    return Costs(
        num_patches=number,
        train_ms=1e3 * seconds["train"] / SCALE_IMAGES,
        gigaflops=flops / SCALE_IMAGES / 1e9,
        saved_mb=saved / SCALE_IMAGES,
        few_ms=1e3 * seconds["few"],
        all_ms=1e3 * seconds["all"],
    )


def draw_scale(result: BenchResult, path: Path) -> None:
    """Plot every column against the number of patches, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    patches, *columns = zip(*result.rows, strict=True)
    for name, column in zip(result.columns[1:], columns, strict=True):
        axes.loglog([*map(float, patches)], [*map(float, column)], "o-", label=name)
    axes.set_xlabel("patches")
    axes.legend()
    figure.savefig(path, dpi=120)


def two_process_difference() -> float:
    """Return by how much the losses of one and two processes differ at most, same global batch."""
    with tempfile.TemporaryDirectory() as folder:
        half = str(TWO_PROCESS_STEPS // 2)
        options = ["--threads", "1", "--micro-batches", "2", "--log-every", "1"]
        options += ["--warmup-iterations", half, "--iterations", half]
        curves = [losses_under_torchrun(n, Path(folder) / str(n), *options) for n in (1, 2)]
    return max(abs(one - two) for one, two in zip(*curves, strict=True))
