"""Benchmarks. Compare numbers of one run with one another: machines differ.

    python -m experiments.bench train      a training step against the machine's matmul peak
    python -m experiments.bench rollout    joint steps against steps on random orders
    python -m experiments.bench env        environment steps per second
    python -m experiments.bench decode     parallel against patch-by-patch decoding, cached scans
    python -m experiments.bench scale      time and memory over the number of patches; two processes
    python -m experiments.bench data       streaming: decoded images per second, and trained on
    python -m experiments.bench device     a GPU does what a CPU does, and how fast; PASS or FAIL
    python -m experiments.bench seeds      several seeds as one batched model, or one by one

Contenders take turns, medians are reported. Writes JSON where ``--out`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.cli import main_with_options
from experiments.training.presets import PRESETS
from foveate.choices import check_choice
from foveate.sizes import check_at_least

Benchmark = Literal["train", "rollout", "env", "decode", "scale", "data", "device", "seeds"]
USED_BY = {
    "rows": ("env",),
    "patches": ("scale",),
    "embed_dim": ("train", "scale"),
    "depth": ("train", "scale"),
    "batch_size": ("train",),
    "presets": ("rollout",),
    "data": ("data",),
    "profile": ("env",),
    "device": ("device", "seeds"),
    "minutes": ("device",),
    "only": ("device",),
    "seeds": ("seeds",),
}
"""Benchmarks that an option is for."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Options of the benchmarks."""

    what: Annotated[Benchmark, tyro.conf.Positional] = "env"
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
    device: str = "cuda"
    """Torch device (device, seeds)."""
    minutes: float = 3.0
    """For all of it: correctness comes first and whole, then what of the speed fits (device)."""
    only: Literal["checks", "speed"] | None = None
    """One of the two parts alone; None = both (device)."""
    seeds: int = 4
    """Models that are trained at once (seeds)."""
    profile: int = 0
    """Functions of a profile of single steps to list; 0 = none (env)."""
    repeats: int = 5
    """Times that every contender is measured."""
    out: Path | None = None
    """File to write; None = runs/bench_WHAT.json."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        numbers = (self.embed_dim, self.depth, self.batch_size, self.repeats, self.seeds)
        if min((*self.rows, *self.patches, *numbers)) < 1 or not self.rows or not self.patches:
            raise ValueError("numbers of the benchmark must be at least 1")
        if any(round(number**0.5) ** 2 != number for number in self.patches):
            raise ValueError(f"patches takes square numbers, got {self.patches}")
        if not self.presets:
            raise ValueError("presets takes one or more names")
        for preset in self.presets:
            check_choice("preset", preset, PRESETS)
            if not PRESETS[preset][1].iterations:
                raise ValueError(f"preset {preset} trains no policy; choose demo or cifar10")
        for name, users in USED_BY.items():
            if self.what not in users and getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"{name} has no effect on the benchmark {self.what!r}; leave it out"
                )
        check_at_least(self, 0, "minutes", "profile")
        if self.only == "checks" and self.minutes != type(self).minutes:
            raise ValueError("minutes has no effect on only checks, which are made whole")
        if self.path.is_dir():
            raise ValueError(f"out must be a file, {self.path} is a folder")
        if self.what == "data" and self.data is None:
            raise ValueError("the benchmark 'data' needs --data")

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments of the benchmark's function."""
        own = [name for name, users in USED_BY.items() if self.what in users]
        return {name: getattr(self, name) for name in (*own, "repeats")}

    @property
    def path(self) -> Path:
        """Where the result goes."""
        return self.out or Path("runs") / f"bench_{self.what}.json"


def main(config: BenchConfig) -> None:
    """Measure as configured; write, print, and draw what grows."""
    from experiments.benchmarks.decoding import bench_decode
    from experiments.benchmarks.device import bench_device
    from experiments.benchmarks.env import bench_env
    from experiments.benchmarks.growth import bench_scale, draw_scale
    from experiments.benchmarks.rollout import bench_rollout
    from experiments.benchmarks.seeds import bench_seeds
    from experiments.benchmarks.streaming import bench_data
    from experiments.benchmarks.timing import BenchResult
    from experiments.benchmarks.training import bench_train
    from experiments.tables import Result
    from experiments.training.build import set_threads

    def keep(result: Result) -> None:
        result.write(config.path)

    benchmarks: dict[str, Callable[..., Result]] = {
        "train": bench_train,
        "rollout": bench_rollout,
        "env": bench_env,
        "decode": bench_decode,
        "scale": bench_scale,
        "data": bench_data,
        "device": partial(bench_device, keep=keep),
        "seeds": bench_seeds,
    }
    set_threads(config.threads)
    # Before the work: a folder that cannot be made loses nothing then.
    config.path.parent.mkdir(parents=True, exist_ok=True)
    result = benchmarks[config.what](**config.arguments)
    result.write(config.path)
    if isinstance(result, BenchResult) and result.what == "scale":
        draw_scale(result, config.path.with_suffix(".png"))
    print(result.to_text())
    print(f"written: {config.path}")
    if isinstance(result, BenchResult) and result.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main_with_options(main, BenchConfig)
