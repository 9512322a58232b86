"""``metrics.jsonl`` of a run: read, and cut to a checkpoint that a run goes on from."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments.tables import json_line
from foveate.files import replacing


def read_metrics(path: Path, *, strict: bool = False) -> list[dict[str, Any]]:
    """Read the lines of a metrics file, without a last one that was cut off.

    Args:
        path: the file; none is as an empty one.
        strict: refuse a file with a damaged line in its middle, instead of a warning.

    Raises:
        ValueError: a line in the middle is damaged, and ``strict``.
    """
    metrics: list[dict[str, Any]] = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            float(content["iteration"])
        except (ValueError, TypeError, KeyError, RecursionError) as reason:
            if number == len(lines):
                break
            complaint = f"line {number} of {path} is damaged"
            if strict:
                raise ValueError(
                    f"{complaint}, and what follows would be lost; mend or remove it"
                ) from reason
            print(f"warning: {complaint} and left out", file=sys.stderr)
            continue
        metrics.append(content)
    return metrics


def trim_metrics(path: Path, iteration: int, log_every: int) -> None:
    """Drop lines written after the checkpoint that is being resumed; say if lines are missing.

    Args:
        path: the metrics.
        iteration: of the checkpoint.
        log_every: most iterations from one line to the next.

    Raises:
        ValueError: a line is damaged, or there twice.
    """
    lines = [line for line in read_metrics(path, strict=True) if line["iteration"] <= iteration]
    logged = [0, *(line["iteration"] for line in lines), iteration + 1]
    for before, after in pairwise(logged):
        if after <= before:
            raise ValueError(f"{path}: iteration {after} comes after {before}; mend or remove it")
        if after - before > log_every + (after > iteration):
            print(
                f"warning: {path} lacks lines between iterations {before} and {after}",
                file=sys.stderr,
            )
    kept = [json_line(line) + "\n" for line in lines]
    with replacing(path) as file:
        file.write("".join(kept).encode())


def seconds_so_far(path: Path, iteration: int) -> float:
    """Training time up to an iteration that the metrics record, s."""
    lines = read_metrics(path, strict=True)
    times = [line.get("seconds", 0.0) for line in lines if line["iteration"] <= iteration]
    return float(times[-1]) if times else 0.0
