"""Check of a device: first whether it computes what the CPU computes, then how fast it is.

Correctness is checked whole, however long it takes; speed in the minutes that are left. Every line
is kept as soon as it is known: who stops the command, or whose machine is taken away, has the rest.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
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
    SKIPPED,
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
    repeats: int = 5,
    keep: Callable[[BenchResult], object] = lambda _: None,
) -> BenchResult:
    """Run all checks on a device, then measure its speed. A line that fails or breaks says so.

    Args:
        device: torch device.
        minutes: for all; correctness is never cut short, and what of the speed does not fit is
            skipped.
        only: one of the two parts; None = both.
        repeats: times that every step is measured.
        keep: given what was found so far, after every line.

    Raises:
        ValueError: torch cannot use the device, or it is one of several by its number.
    """
    check_device(device)
    if device.startswith("cuda:"):
        # Graphs and processes of their own go to the first one.
        number = device.removeprefix("cuda:")
        raise ValueError(f"take --device cuda, and CUDA_VISIBLE_DEVICES={number} for that GPU")
    deadline = time.monotonic() + 60 * minutes
    found = Found(device, repeats, git_commit())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only != "speed":
            for what, check in checks_of(device, folder).items():
                for line in judged(what, check):
                    keep(found.add(line, {"peak_memory_mb": peak_memory_mb(device)}))
        if only != "checks":
            # Each of which counts its memory anew.
            for line, numbers in measured_rows(measurements(device, folder, repeats), deadline):
                keep(found.add(line, numbers))
    return found.result(is_whole=True)


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
    commit: str
    rows: list[Row] = field(default_factory=list)
    numbers: dict[str, float | None] = field(default_factory=dict)

    def add(self, row: Row, numbers: Mapping[str, float | None]) -> BenchResult:
        """Print and keep a line and its numbers, and return what there is now."""
        say(row)
        self.rows.append(row)
        self.numbers.update(numbers)
        return self.result(is_whole=False)

    def result(self, *, is_whole: bool) -> BenchResult:
        """Return it as a result, which says if lines may still come."""
        counts = Counter(row[1] for row in self.rows)
        where = name_of_device(self.device)
        words = {PASS: "passed", FAIL: "failed", MEASURED: "measured"}
        words |= {BROKE: "broke", SKIPPED: "skipped"}
        told = ", ".join(f"{counts[verdict]} {word}" for verdict, word in words.items())
        cut = "" if is_whole else "; NOT whole, it goes on or was cut off"
        return BenchResult(
            what="device",
            caption=f"Checks on {where}, torch {torch.__version__}: {told}{cut}",
            columns=COLUMNS,
            rows=tuple(self.rows),
            numbers={
                **self.numbers,
                "checks_passed": counts[PASS],
                "checks_failed": counts[FAIL],
                "measurements_broken": counts[BROKE],
            },
            failed=tuple(row[0] for row in self.rows if row[1] in (FAIL, BROKE)),
            threads=torch.get_num_threads(),
            repeats=self.repeats,
            commit=self.commit,
        )
