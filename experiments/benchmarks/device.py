"""Check of a device: first whether it computes what the CPU computes, then how fast it is.

Correctness is checked whole, however long it takes; speed in the minutes that are left.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from experiments.benchmarks.agreement import agreement_checks
from experiments.benchmarks.checking import COLUMNS, FAIL, PASS, Row, judged, say
from experiments.benchmarks.device_runs import run_checks
from experiments.benchmarks.device_speed import measured_rows, measurements
from experiments.benchmarks.graphs import compare_graphs
from experiments.benchmarks.timing import BenchResult
from experiments.benchmarks.waiting import waiting_checks
from experiments.run_folder import git_commit
from experiments.training.log import peak_memory_mb
from foveate.checkpoint import check_device


def bench_device(*, device: str = "cuda", minutes: float = 3.0, repeats: int = 5) -> BenchResult:
    """Run all checks on a device, then measure its speed. A check that fails says so.

    Args:
        device: torch device.
        minutes: for all; correctness is never cut short, and what of the speed does not fit is
            skipped.
        repeats: times that every step is measured.

    Raises:
        ValueError: torch cannot use the device.
    """
    check_device(device)
    deadline = time.monotonic() + 60 * minutes
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checks = agreement_checks(device, folder) | waiting_checks(device, folder)
        checks["scan as one CUDA graph against its steps"] = partial(compare_graphs, device)
        checks |= run_checks(device, folder)
        for what, check in checks.items():
            lines = judged(what, check)
            rows += lines
            for line in lines:
                say(line)
        verdicts = [row[1] for row in rows]
        most_mb = peak_memory_mb(device)  # Before the measurements, each of which counts anew.
        speeds, numbers = measured_rows(measurements(device, folder, repeats), deadline)
    failed = tuple(row[0] for row in rows if row[1] == FAIL)
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return BenchResult(
        what="device",
        caption=f"Checks on {where}, torch {torch.__version__}: {verdicts.count(PASS)} passed, "
        f"{len(failed)} failed",
        columns=COLUMNS,
        rows=(*rows, *speeds),
        numbers={
            **numbers,
            "checks_passed": verdicts.count(PASS),
            "checks_failed": len(failed),
            "peak_memory_mb": most_mb,
        },
        failed=failed,
        threads=torch.get_num_threads(),
        repeats=repeats,
        commit=git_commit(),
    )
