"""Benchmarks; ratios within one run are what counts.

    python -m experiments.bench train      a training step against the machine's matmul peak
    python -m experiments.bench rollout    joint steps against steps on random orders
    python -m experiments.bench env        environment steps per second
    python -m experiments.bench decode     parallel against patch-by-patch decoding, cached scans
    python -m experiments.bench scale      time and memory over the number of patches; two processes
    python -m experiments.bench data       streaming: decoded images per second, and trained on

Contenders take turns, medians are reported. Writes JSON where ``--out`` says.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli import main_with_options
from experiments.training.presets import PRESETS
from foveate.choices import check_choice

USED_BY = {
    "rows": ("env",),
    "patches": ("scale",),
    "embed_dim": ("train", "scale"),
    "depth": ("train", "scale"),
    "batch_size": ("train",),
    "presets": ("rollout",),
    "data": ("data",),
}
"""Benchmarks that an option is for."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Options of the benchmarks."""

    what: Annotated[
        Literal["train", "rollout", "env", "decode", "scale", "data"], tyro.conf.Positional
    ] = "env"
    """What to measure."""
    rows: tuple[int, ...] = (64, 256)
    """Numbers of environments (env)."""
    patches: tuple[int, ...] = (49, 196, 784, 1024)
    """Numbers of patches, square ones (scale)."""
    embed_dim: int = 192
    """Model width (train, scale)."""
    depth: int = 6
    """Encoder blocks (train, scale)."""
    batch_size: int = 128
    """Images per step (train)."""
    presets: tuple[str, ...] = ("demo", "cifar10")
    """Presets of experiments.train whose steps are measured (rollout)."""
    data: str | None = None
    """Parquet or tar shards to stream (data)."""
    repeats: int = 5
    """Times that every contender is measured."""
    out: Path | None = None
    """File to write; None = runs/bench_WHAT.json."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        numbers = (self.embed_dim, self.depth, self.batch_size, self.repeats)
        if min((*self.rows, *self.patches, *numbers)) < 1 or not self.rows or not self.patches:
            raise ValueError("numbers of the benchmark must be at least 1")
        if any(round(number**0.5) ** 2 != number for number in self.patches):
            raise ValueError(f"patches takes square numbers, got {self.patches}")
        for preset in self.presets:
            check_choice("preset", preset, PRESETS)
            if not PRESETS[preset][1].iterations:
                raise ValueError(f"preset {preset} trains no policy; choose demo or cifar10")
        for option in fields(self):
            users = USED_BY.get(option.name, (self.what,))
            if self.what not in users and getattr(self, option.name) != option.default:
                raise ValueError(
                    f"{option.name} has no effect on the benchmark {self.what!r}; leave it out"
                )
        if self.what == "data" and self.data is None:
            raise ValueError("the benchmark 'data' needs --data")

    @property
    def path(self) -> Path:
        """Where the result goes."""
        return self.out or Path("runs") / f"bench_{self.what}.json"


def main(config: BenchConfig) -> None:
    """Measure as configured."""
    from experiments.training.build import set_threads

    set_threads(config.threads)
    if config.what == "env":
        from experiments.benchmarks.env import bench_env

        bench_env(config)
    elif config.what in ("train", "rollout"):
        from experiments.benchmarks import training as bench_training

        {"train": bench_training.bench_train, "rollout": bench_training.bench_rollout}[config.what](
            config
        )
    else:
        from experiments.benchmarks import growth as bench_growth

        {
            "decode": bench_growth.bench_decode,
            "scale": bench_growth.bench_scale,
            "data": bench_growth.bench_data,
        }[config.what](config)


if __name__ == "__main__":
    main_with_options(main, BenchConfig)
