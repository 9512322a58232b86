"""A run folder: its config, manifest, metrics and checkpoint, and what a resume checks."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch

from experiments.tables import write_json
from experiments.training.config import TrainConfig
from foveate.checkpoint import CHECKPOINT

MANIFEST = "manifest.json"


def git_commit() -> str:
    """Return the commit of the working tree, or ``unknown`` outside a checkout.

    It ends in ``-dirty`` where the tree differs from the commit.
    """
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def set_aside(path: Path) -> None:
    """Keep a result, and the picture of it, under a number."""
    number = next(n for n in count(1) if not path.with_stem(f"{path.stem}_{n}").exists())
    for each in (path, path.with_suffix(".png")):
        if each.exists():
            os.replace(each, each.with_stem(f"{each.stem}_{number}"))
    print(f"kept: what was there, of other options, as {path.stem}_{number}{path.suffix}")


def write_manifest(directory: Path, **facts: object) -> None:
    """Record what a result depends on beside its config: versions, machine, and given facts."""
    write_json(
        directory / MANIFEST,
        {
            "date": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "processor": platform.machine(),
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            **facts,
        },
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a run folder; empty if none has been written yet."""
    path = directory / MANIFEST
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content


def save_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint atomically: an interrupted write leaves the old one."""
    partial = directory / f"{CHECKPOINT}.partial"
    torch.save(state, partial)
    os.replace(partial, directory / CHECKPOINT)


def read_config(directory: Path) -> TrainConfig:
    """Read the config of a run folder.

    Raises:
        ValueError: the folder holds no config, or one of another version.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{directory} is not a run folder (no config.json); "
            "train one with: python -m experiments.train"
        )
    try:
        # Runs from before micro-batches were one.
        return TrainConfig.from_flat({"micro_batches": 1, **json.loads(path.read_text())})
    except (AttributeError, TypeError, ValueError) as reason:
        commit = read_manifest(directory).get("commit")
        writer = "the version that wrote it" if commit is None else f"its commit {commit}"
        raise ValueError(
            f"{path} does not fit this version of foveate ({reason}); {writer} reads it"
        ) from reason


def write_config(config: TrainConfig) -> None:
    """Make the run folder and write the config into it."""
    config.run.out.mkdir(parents=True, exist_ok=True)
    write_json(config.run.out / "config.json", config.flat())


# May differ between a run and its continuation; all else shapes the result.
FREE_ON_RESUME = {
    "out",
    "resume",
    "stop_after",
    "report",
    "device",
    "shard",
    "threads",
    "wandb",
    "data_root",
    "skip_damaged",
    "log_every",
    "save_every",
    "evaluate_every",
}


def check_folder(config: TrainConfig) -> None:
    """Check that the run folder is free for a new run, or is the one to continue.

    One that was cut off before its first checkpoint, hence before its manifest, is continued from
    its start.

    Raises:
        ValueError: the folder holds a run that would be lost, or one of another config.
    """
    out = config.run.out
    if not config.run.resume:
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file; choose a folder with --out")
        if (out / CHECKPOINT).exists():
            raise ValueError(
                f"{out} holds a run already; continue it with --resume or choose another --out"
            )
        for name in ("config.json", "metrics.jsonl"):
            if (out / name).exists():
                raise ValueError(
                    f"{out} holds {name} of a run without a checkpoint; start one that was "
                    "cut off before its first anew with --resume, or choose another --out"
                )
        return
    before, now = read_config(out).flat(), config.flat()
    metrics = read_metrics(out / "metrics.jsonl")
    was_saved = (out / MANIFEST).exists() or (
        bool(metrics) and metrics[-1]["iteration"] > before["save_every"]
    )
    if was_saved and not (out / CHECKPOINT).exists():
        raise ValueError(
            f"{out} holds results of a run whose checkpoint is gone; choose another --out"
        )
    changed = sorted(
        name
        for name in {**before, **now}
        if now.get(name) != before.get(name) and name not in FREE_ON_RESUME
    )
    if changed:
        listed = ", ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed)
        raise ValueError(f"cannot resume {out} with another config: {listed}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics file, without a last one that was cut off."""
    metrics: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return metrics


def trim_metrics(path: Path, iteration: int) -> None:
    """Drop lines written after the checkpoint that is being resumed."""
    kept = [line for line in read_metrics(path) if line["iteration"] <= iteration]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(partial, path)


def seconds_so_far(path: Path) -> float:
    """Training time that the metrics record, s."""
    metrics = read_metrics(path)
    return float(metrics[-1]["seconds"]) if metrics else 0.0
