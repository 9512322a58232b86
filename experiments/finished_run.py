"""A run as a study wants it: trained, finished, or as it is there already."""

from __future__ import annotations

from experiments.run_folder import check_folder, read_config, read_manifest
from experiments.runs import Run, load_run
from experiments.training.changes import say_changed_sources
from experiments.training.config import TrainConfig
from experiments.training.loop import train
from foveate.checkpoint import checkpoints_in


def finished_run(wanted: TrainConfig) -> Run:
    """Train a run, or finish the one that is there, and load it.

    Raises:
        ValueError: the run that is there has another config.
    """
    begun = (wanted.run.out / "config.json").is_file()
    if begun:
        same = (
            wanted.optimization.micro_batches
            or read_config(wanted.run.out).optimization.micro_batches
        )
        try:
            check_folder(wanted.replace(resume=True, micro_batches=same))
        except ValueError as reason:
            raise ValueError(f"{reason}; choose another --out for a study of its own") from reason
    run = wanted.run
    # One that was killed behind its last checkpoint has no manifest of its end.
    ended = checkpoints_in(run.out) and "train_seconds" in read_manifest(run.out)
    if not ended or load_run(run.out).iteration < wanted.total_iterations:
        train(wanted.replace(resume=begun))
    else:
        say_changed_sources(wanted)
    return load_run(run.out, device=run.device, data_changed_ok=run.data_changed_ok)
