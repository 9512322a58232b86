"""A run folder: its config, manifest and metrics, and what a resume checks."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from experiments.metrics_file import read_metrics
from experiments.tables import json_text, read_object
from experiments.training.config import TrainConfig
from experiments.training.locating import is_place, located
from experiments.training.run_options import SYNTHETIC, TAKING_RUNS, Changeable
from experiments.training.typed import typed
from foveate.checkpoint import MANIFEST, checkpoints_in
from foveate.files import check_may_be_folder, replacing

LISTS = ("commits", "data_changes", "changes", "source_changes")
"""What a manifest has lists of."""
FORMER = {"micro_batches": 1, "doubt": 0.0}
"""What a training did before it had these options, where that is not their default by now."""


def goes_on(config: TrainConfig) -> bool:
    """Whether a training continues from a checkpoint; else it begins, be it with ``resume``."""
    return config.run.resume and bool(checkpoints_in(config.run.out))


def git_commit() -> str:
    """Return the commit of the working tree, or ``unknown`` outside a checkout or without git.

    It ends in ``-dirty`` where the tree differs from the commit.
    """
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    if not (here.parent / "pyproject.toml").is_file():
        return "unknown"  # An installed package may lie inside another project's checkout.
    try:
        result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def write_manifest(directory: Path, **facts: object) -> None:
    """Record what a result depends on beside its config: versions, machine, and given facts."""
    write_own(
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
    """Read the manifest of a run folder; empty if none has been written yet.

    Raises:
        ValueError: it is damaged.
    """
    path = directory / MANIFEST
    found = read_object(path) if path.exists() else {}
    if wrong := [name for name in LISTS if not isinstance(found.get(name, []), list)]:
        raise ValueError(f"{path} is damaged: {wrong[0]} is no list; remove what it says of it")
    return found


def write_own(path: Path, content: object) -> None:
    """Write JSON that only the folder's one writer writes.

    What a kill leaves half written bears a name that the next write takes again.

    Raises:
        ValueError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(json_text(content).encode())


def note_checkpoint(directory: Path) -> None:
    """Note in the manifest that there is a checkpoint, once there is the first."""
    manifest = read_manifest(directory)
    if not manifest.get("saved"):
        write_own(directory / MANIFEST, {**manifest, "saved": True})


def check_writable(directory: Path) -> None:
    """Write and remove a file, since rights alone do not say whether one may.

    Raises:
        ValueError: nothing can be written into the folder.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"foveate")
            file.flush()
    except OSError as reason:
        raise ValueError(
            f"cannot write to {directory} ({reason.strerror}); make it writable, or copy the run"
        ) from reason


def read_config(directory: Path) -> TrainConfig:
    """Read the config of a run folder.

    Raises:
        ValueError: the folder holds no config, or one of another version.
    """
    path = directory / "config.json"
    if not path.is_file():
        if checkpoints_in(directory):
            raise ValueError(
                f"the config.json of the run in {directory} is gone; put it back from a copy, or "
                "train anew with another --out"
            )
        raise ValueError(
            f"{directory} is not a run folder (no config.json); "
            "train one with: python -m experiments.train"
        )
    content = read_object(path)
    try:
        return TrainConfig.from_flat({**FORMER, **typed(content)})
    except (AttributeError, TypeError, ValueError) as reason:
        commit = read_manifest(directory).get("commit")
        writer = "the version that wrote it" if commit is None else f"its commit {commit}"
        raise ValueError(
            f"{path} does not fit this version of foveate ({reason}); {writer} reads it"
        ) from reason


def write_config(config: TrainConfig) -> None:
    """Make the run folder and write the config into it."""
    config.run.out.mkdir(parents=True, exist_ok=True)
    write_own(config.run.out / "config.json", config.flat())


# May differ between a run and its continuation; all else shapes the result.
FREE_ON_RESUME = {
    "out",
    "resume",
    "change_on_resume",
    "stop_after",
    "report",
    "device",
    "data_changed_ok",
    "shard",
    "threads",
    "wandb",
    "wandb_project",
    "wandb_entity",
    "data_root",
    "skip_damaged",
    "log_every",
    "save_every",
    "evaluate_every",
    "keep_checkpoints",
}
# May differ between the runs of one kind, over whose seeds a result is a mean.
FREE_OVER_SEEDS = {*FREE_ON_RESUME, "seed"}


def of_kind(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs of one kind have in common, of a training's options.

    A run that each takes is of its own seed. Whether they take one is common to them.
    """
    return {
        name: "a run" if name in TAKING_RUNS and is_place(value) else value
        for name, value in options.items()
        if name not in FREE_OVER_SEEDS
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
        check_may_be_folder(out)
        if checkpoints_in(out):
            goes_on = "continue it with --resume or " * (out / "config.json").is_file()
            raise ValueError(f"{out} holds a run already; {goes_on}choose another --out")
        for name in ("config.json", "metrics.jsonl"):
            if (out / name).exists():
                raise ValueError(
                    f"{out} holds {name} of a run without a checkpoint; start one that was "
                    "cut off before its first anew with --resume, or choose another --out"
                )
        return
    before, now = located(read_config(out)).flat(), located(config).flat()
    metrics = read_metrics(out / "metrics.jsonl", strict=True)
    # A manifest is written at the start, with the iterations before it.
    manifest = read_manifest(out)
    # Older ones do not say whether there was a checkpoint.
    guessed = ((out / MANIFEST).exists() and manifest.get("iterations") != 0) or (
        bool(metrics) and metrics[-1]["iteration"] > before["save_every"]
    )
    if manifest.get("saved", guessed) and not checkpoints_in(out):
        raise ValueError(
            f"{out} holds results of a run whose checkpoint is gone; choose another --out"
        )
    if before.get("skip_damaged") and not now["skip_damaged"] and checkpoints_in(out):
        raise ValueError(f"{out} has left out damaged images; go on with --skip-damaged as well")
    # Data that moved are known by their fingerprints, which are compared once they are read.
    free = FREE_ON_RESUME | set(config.run.change_on_resume)
    if checkpoints_in(out):
        free |= {"start_from"}  # It has done its part.
    if manifest.get("splits") and now["data"] not in SYNTHETIC:
        free |= {"data"}
    free |= {name for name in TAKING_RUNS if moved_along(name, before, now)}
    changed = sorted(
        name for name in {**before, **now} if now.get(name) != before.get(name) and name not in free
    )
    if changed:
        listed = ", ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed)
        may = [name for name in changed if name in get_args(Changeable)]
        same = " ".join(f"--{name.replace('_', '-')} {before.get(name)}" for name in may)
        allowed = f"; repeat {same}, or --change-on-resume {' '.join(may)} allows it"
        advice = allowed if may == changed else ""
        raise ValueError(f"cannot resume {out} with another config: {listed}{advice}")


def moved_along(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the run that an option takes lies where it did as seen from the run folder."""
    places = []
    for options in (before, now):
        taken, out = options.get(name), options["out"]
        if not (is_place(taken) and os.path.isabs(out)):
            return False
        places.append(os.path.relpath(taken, out))
    return places[0] == places[1]
