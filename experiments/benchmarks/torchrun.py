"""A tiny training run under torchrun, whose losses tell whether its processes work together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from experiments.metrics_file import read_metrics

PATIENCE_S = 300.0
"""How long a tiny training may take, before it is ended: processes that wait for one another may
do so for hours."""


def losses_under_torchrun(num_processes: int, out: Path, *options: str) -> list[float]:
    """Train the smoke preset in so many processes, and return the losses that it logs.

    Args:
        num_processes: which connect, also one alone.
        out: run folder.
        options: of experiments.train.

    Raises:
        ValueError: the training failed, or took too long.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [sys.executable, *launcher, "-m", "experiments.train", "smoke", "--no-report"]
    code, said = ended(PATIENCE_S, [*command, "--out", str(out), *options])
    if code:
        # torchrun's own lines, which say nothing of the reason, come last.
        named = (line for line in said.splitlines() if "rror: " in line)
        raise ValueError(f"torchrun failed: {next(named, f'exit code {code}')}")
    return [float(line["loss"]) for line in read_metrics(out / "metrics.jsonl")]


def ended(patience_s: float, command: list[str]) -> tuple[int, str]:
    """Run a command, and return its exit code and what it wrote to stderr.

    Raises:
        ValueError: it took longer.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            _, said = running.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            # Asked, not killed: a launcher then ends the processes that it started.
            running.terminate()
            running.communicate()
            raise ValueError(f"torchrun did not end within {patience_s:.0f} s") from None
    return running.returncode, said
