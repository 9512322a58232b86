"""Check of a device: first whether it computes what the CPU computes, then how fast it is.

Correctness is checked whole, however long it takes; speed in the minutes that are left. Every line
is kept as soon as it is known: who stops the command, or whose machine is taken away, has the rest.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from experiments.benchmarks.agreement import agreement_checks
from experiments.benchmarks.checking import (
    BROKE,
    COLUMNS,
    FAIL,
    MEASURED,
    PASS,
    Check,
    Row,
    judged,
    say,
)
from experiments.benchmarks.device_runs import run_checks
from experiments.benchmarks.device_speed import measured_rows, measurements
from experiments.benchmarks.graphs import compare_graphs
from experiments.benchmarks.timing import BenchResult
from experiments.benchmarks.waiting import waiting_checks
from experiments.run_folder import git_commit
from experiments.training.log import peak_memory_mb
from foveate.checkpoint import check_device
from foveate.devices import name_of_device

Only = Literal["checks", "speed"]
"""One of the two parts alone."""


def bench_device(
    *,
    device: str = "cuda",
    minutes: float = 3.0,
    only: Only | None = None,
    out: Path | None = None,
    repeats: int = 5,
) -> BenchResult:
    """Run all checks on a device, then measure its speed. A line that fails or breaks says so.

    Args:
        device: torch device.
        minutes: for all; correctness is never cut short, and what of the speed does not fit is
            skipped.
        only: one of the two parts; None = both.
        out: file that is written anew after every line; None = none is.
        repeats: times that every step is measured.

    Raises:
        ValueError: torch cannot use the device, or it is one of several by its number.
    """
    check_device(device)
    if device.startswith("cuda:"):
        # Graphs and processes of their own go to the first one.
        number = device.removeprefix("cuda:")
        raise ValueError(f"take --device cuda, and CUDA_VISIBLE_DEVICES={number} for that GPU")
    deadline = time.monotonic() + 60 * minutes
    found = Found(device, repeats)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only != "speed":
            for what, check in checks_of(device, folder).items():
                for line in judged(what, check):
                    found.add(line, {}, out)
            found.numbers["peak_memory_mb"] = peak_memory_mb(device)
        if only != "checks":
            # Each of which counts its memory anew.
            for line, numbers in measured_rows(measurements(device, folder, repeats), deadline):
                found.add(line, numbers, out)
    return found.result()


def checks_of(device: str, folder: Path) -> dict[str, Check]:
    """Return all checks, by name."""
    return {
        **agreement_checks(device, folder),
        **waiting_checks(device, folder),
        "scan as one CUDA graph against its steps": partial(compare_graphs, device),
        **run_checks(device, folder),
    }


@dataclass(frozen=True)
class Found:
    """What is known so far."""

    device: str
    repeats: int
    rows: list[Row] = field(default_factory=list)
    numbers: dict[str, float | None] = field(default_factory=dict)

    def add(self, row: Row, numbers: dict[str, float], out: Path | None) -> None:
        """Print and keep a line and its numbers."""
        say(row)
        self.rows.append(row)
        self.numbers.update(numbers)
        if out is not None:
            self.result().write(out)

    def result(self) -> BenchResult:
        """Return it as a result."""
        counts = Counter(row[1] for row in self.rows)
        where = name_of_device(self.device)
        told = ", ".join(
            f"{counts[verdict]} {what}"
            for verdict, what in ((PASS, "passed"), (FAIL, "failed"), (MEASURED, "measured"))
        )
        return BenchResult(
            what="device",
            caption=f"Checks on {where}, torch {torch.__version__}: {told}",
            columns=COLUMNS,
            rows=tuple(self.rows),
            numbers={
                **self.numbers,
                "checks_passed": counts[PASS],
                "checks_failed": counts[FAIL],
            },
            failed=tuple(row[0] for row in self.rows if row[1] in (FAIL, BROKE)),
            threads=torch.get_num_threads(),
            repeats=self.repeats,
            commit=git_commit(),
        )
