"""Benchmarks; ratios within one run are what counts.

    python -m experiments.bench env

``env``: environment steps per second of the batched environment, of stable-baselines3's DummyVecEnv
over the single one, and of a batched re-encoding without a cache. Contenders take turns, medians
are reported. Writes JSON where ``--out`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli import main_with_options


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Options of the benchmark."""

    what: Annotated[str, tyro.conf.Positional] = "env"
    """What to measure: env."""
    rows: tuple[int, ...] = (64, 256)
    """Numbers of environments."""
    repeats: int = 5
    """Times that every contender is measured."""
    out: Path = Path("runs/bench_env.json")
    """File to write."""
    threads: int | None = None
    """CPU threads; None = torch's choice."""

    def __post_init__(self) -> None:
        if self.what != "env":
            raise ValueError(f"unknown benchmark {self.what!r}; known: env")
        if min((*self.rows, self.repeats), default=0) < 1:
            raise ValueError("rows and repeats must be at least 1")


def main(config: BenchConfig) -> None:
    """Measure as configured."""
    from experiments.benchmarks import bench_env

    bench_env(config)


if __name__ == "__main__":
    main_with_options(main, BenchConfig)
