"""A tiny training run under torchrun, whose losses tell whether its processes work together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from experiments.metrics_file import read_metrics


def losses_under_torchrun(num_processes: int, out: Path, *options: str) -> list[float]:
    """Train the smoke preset in so many processes, and return the losses that it logs.

    Args:
        num_processes: which connect, also one alone.
        out: run folder.
        options: of experiments.train.

    Raises:
        ValueError: the training failed.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [sys.executable, *launcher, "-m", "experiments.train", "smoke", "--no-report"]
    done = subprocess.run(
        [*command, "--out", str(out), *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        # torchrun's own lines, which say nothing of the reason, come last.
        named = (line for line in done.stderr.splitlines() if "rror: " in line)
        raise ValueError(f"torchrun failed: {next(named, f'exit code {done.returncode}')}")
    return [float(line["loss"]) for line in read_metrics(out / "metrics.jsonl")]
