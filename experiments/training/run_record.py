"""What a run folder says of its run: config and manifest, at its start and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.metrics_file import trim_metrics
from experiments.run_data import as_recorded
from experiments.run_folder import (
    read_config,
    read_manifest,
    write_config,
    write_manifest,
)
from experiments.training.changes import changed_sources, own_parts, record_changes, record_move
from experiments.training.config import TrainConfig
from experiments.training.log import peak_memory_mb
from experiments.training.trainer import Trainer
from foveate.choices import sources_of


def open_folder(
    config: TrainConfig, trainer: Trainer, commit: str, changed: list[str]
) -> dict[str, Any] | None:
    """Write config and manifest, or trim a continued run's metrics to its checkpoint.

    Returns what the manifest says so far; None for a finished run, which keeps its own.
    """
    out, at, apart = config.run.out, trainer.iteration, most_apart(config)
    if config.run.resume:
        trim_metrics(out / "metrics.jsonl", at, apart)
        if at < end_of(config):  # Else nothing is trained with what was changed.
            record_changes(config, at)
        changed = [*record_move(config), *changed]
    else:
        write_config(config)
    # What was trained before the first checkpoint is gone, and the commit with it.
    before = read_manifest(out) if at > 0 else {}
    trains = at < end_of(config)
    if before.get("iterations") == at and not trains:
        return None
    commits = before.get("commits", [])
    if trains or not commits:
        commits = [*commits, commit]
    record = {
        "commit": commits[-1],
        "commits": commits,
        "parameters": {
            "model": sum(p.numel() for p in trainer.model.parameters()),
            "policy": sum(p.numel() for p in trainer.policy.parameters()),
        },
        "data": config.data.data,
        "splits": as_recorded(trainer.images.fingerprints),
        "data_changes": [
            *before.get("data_changes", []),
            *(f"after iteration {at}: {each}" for each in changed),
        ],
        "changes": before.get("changes", []),
        "start_seconds": (
            before["start_seconds"] if "start_seconds" in before else start_seconds(config)
        ),
        "sources": sources_of(own_parts(config)),
        "source_changes": [
            *before.get("source_changes", []),
            *(f"after iteration {at}: {each}" for each in changed_sources(config) if before),
        ],
        "train_images": None if config.data.stream else len(trainer.images.held),
        "world_size": trainer.processes.count,
        "log_every": apart,
        "saved": at > 0,
    }
    # A run may be killed at any time; the rest is known at the end.
    write_manifest(out, iterations=at, **record)
    return record


def most_apart(config: TrainConfig) -> int:
    """Return the most iterations from one line of metrics to the next, in any part of the run."""
    out, now = config.run.out, config.run.log_every
    if not config.run.resume:
        return now
    return max(now, read_config(out).run.log_every, read_manifest(out).get("log_every", 0))


def end_of(config: TrainConfig) -> int:
    """Return the iteration after which this part of the run ends."""
    return min(config.total_iterations, config.run.stop_after or config.total_iterations)


def start_seconds(config: TrainConfig) -> float | None:
    """Return how long the run that this one starts from was trained, with those before it.

    None = it starts from random weights, or what it starts from does not say.
    """
    start = config.model.start_from
    if start is None or not Path(start).is_dir():
        return None
    try:
        manifest = read_manifest(Path(start))
        began = read_config(Path(start)).model.start_from
    except ValueError:
        return None  # Weights may come without them, or with damaged ones.
    own: float | None = manifest.get("train_seconds")
    before: float | None = 0.0 if began is None else manifest.get("start_seconds")
    return None if own is None or before is None else own + before


def record_run(trainer: Trainer, record: dict[str, Any], seconds: float) -> None:
    """Complete the manifest by what the end of a run knows."""
    config = trainer.config
    write_manifest(
        config.run.out,
        **{
            **record,
            "saved": True,
            "iterations": trainer.iteration,
            "train_seconds": round(seconds, 3),
            "peak_memory_mb": peak_memory_mb(config.run.device),
        },
    )
