"""The training loop of ``experiments.train``: run folder, steps, metrics, checkpoints."""

from __future__ import annotations

import contextlib

import torch

from experiments.cli import Stopped
from experiments.metrics_file import seconds_so_far
from experiments.run_data import check_data
from experiments.run_folder import (
    check_folder,
    git_commit,
    goes_on,
    note_checkpoint,
)
from experiments.training.build import check_precision, check_stream, set_threads
from experiments.training.changes import say_changed_sources
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes, share_batches
from experiments.training.locating import located
from experiments.training.lock import locked
from experiments.training.log import RunLog
from experiments.training.mixing import check_shares
from experiments.training.policy_learner import most_entropy
from experiments.training.reference import check_paid
from experiments.training.run_record import end_of, open_folder, record_run
from experiments.training.stopping import StopSignals, name_of
from experiments.training.trainer import Trainer
from experiments.training.validation import Validation, validation_of
from experiments.training.wandb_run import check_wandb
from foveate.checkpoint import check_device, checkpoints_in, read_newest, save_checkpoint
from foveate.data.folders import files_under
from foveate.files import expanded

SHARDS = (".parquet", ".arrow", ".tar", ".gz", ".tgz")
"""Where there are such files, no picture beside them is read."""
PARTS: dict[str, type] = {
    "iteration": int,
    "image_shape": tuple,
    "model_config": dict,
    "model": dict,
    "policy": dict,
    "model_optimizers": list,
    "generator": torch.Tensor,
    "streams": list,
}
"""What the checkpoint of a training holds, whatever trains."""


def train(config: TrainConfig) -> Trainer:
    """Train as configured, write the run folder, and return the trainer.

    All processes that torchrun started call it alike; the first one writes.

    Raises:
        Stopped: a signal asked for it, and a checkpoint is written.
    """
    set_threads(config.run.threads)
    processes = Processes.started(config.run.device)
    check_device(processes.device)
    config = located(config)
    with locked(config.run.out) if processes.is_first else contextlib.nullcontext():
        config = share_batches(config, processes)
        check_folder(config)
        with processes.connected():
            trainer = run_loop(config, processes)
    if processes.is_first:
        done = f"{trainer.iteration} of {config.total_iterations} iterations"
        print(f"written: {config.run.out}, {done}")
    return trainer


def run_loop(config: TrainConfig, processes: Processes) -> Trainer:
    """Build or load the trainer, and take its steps."""
    # Asked at the start: by the end of a long run the working tree may hold another commit.
    commit = git_commit()
    trainer = Trainer(config.replace(device=processes.device), processes)
    check_before_writing(trainer)
    validation = validation_of(trainer)
    changed = load_checkpoint(config, trainer) if config.run.resume else []
    first = trainer.iteration
    seconds_before = seconds_so_far(config.run.out / "metrics.jsonl", first)
    with (
        # All that may fail does so before the folder is written: else it would hold half a run.
        RunLog(
            config,
            first,
            seconds_before,
            writes=processes.is_first,
            entropy_max=most_entropy(config, len(trainer.model_learner.fixations)),
        ) as log,
        StopSignals(has_echo=processes.are_connected) as signals,
    ):
        record = open_folder(config, trainer, commit, changed) if processes.is_first else None
        stopped_by = take_steps(trainer, validation, log, signals)
        in_doubt = stopped_by > 0 and not trainer.skips.is_clear
        if record is not None and not in_doubt:
            record_run(trainer, record, log.seconds)
        # One that came while the end was written: nothing is to follow.
        stopped_by = stopped_by or processes.largest(signals.received)
    if stopped_by:
        processes.largest(0)  # Torchrun ends all when one leaves: the first writes before.
        at = f"iteration {trainer.iteration} of {config.total_iterations}"
        kept = trainer.skips.last_good if in_doubt else f"with a checkpoint in {config.run.out}"
        line = f"stopped by {name_of(stopped_by)} after {at}, {kept}"
        raise Stopped(stopped_by, line if processes.is_first else "")
    return trainer


def take_steps(
    trainer: Trainer, validation: Validation | None, log: RunLog, signals: StopSignals
) -> int:
    """Train to the end, or until a signal reaches one of the processes; return its number or 0."""
    config, processes, stopped_by, due = trainer.config, trainer.processes, 0, False
    end = end_of(config)
    while trainer.iteration < end and not stopped_by:
        measured, at = trainer.step(), trainer.iteration
        stopped_by = processes.largest(signals.received)
        is_last = at == end or stopped_by > 0
        validated = {}
        if validation is not None and at % validation.every == 0:
            validated = validation.measure(trainer)
        log.advance(at, measured, validated, is_last=is_last)
        due = due or at % config.run.save_every == 0
        if stopped_by and not trainer.skips.is_clear:
            break  # The checkpoint before is good, and this one may not be.
        if is_last or (due and trainer.skips.is_clear):
            due = False
            state = trainer.state()
            if processes.is_first:
                save_checkpoint(config.run.out, state, config.run.keep_checkpoints)
                note_checkpoint(config.run.out)
    return stopped_by


def check_before_writing(trainer: Trainer) -> None:
    """Warn of a slow precision.

    Raises:
        ValueError: the run would lie among its images, a report would have no images to look at, a
            new run's policy no reward, or its model no random orders though it is to have some.
    """
    config = trainer.config
    if config.policy is not None and not goes_on(config):
        check_shares(config, config.policy)
        check_paid(config, config.policy)
    if trainer.processes.is_first:
        check_precision(config)
        check_wandb(config)
    check_out(config)
    if config.run.report and config.data.stream:
        for split in ("val", "test") if trainer.model.config.scannable else ("test",):
            check_stream(config, split)


def check_out(config: TrainConfig) -> None:
    """Raise ValueError if the run would lie among the images of a folder, and its pictures too."""
    images, out = expanded(config.data.data), config.run.out
    if not (images.is_dir() and out.resolve().is_relative_to(images.resolve())):
        return
    if not any(each.path.suffix in SHARDS for each in files_under(images)):
        raise ValueError(
            f"the run folder {out} lies within the images of {images}, among which its pictures "
            "would be read; give --out another folder"
        )


def load_checkpoint(config: TrainConfig, trainer: Trainer) -> list[str]:
    """Continue from the newest whole checkpoint of the run folder, and return how data changed.

    Without a checkpoint yet the run starts anew.

    Raises:
        ValueError: the data changed, or no checkpoint fits.
    """
    out, note = config.run.out, "starts anew: there is no checkpoint yet"
    changed: list[str] = []
    if checkpoints_in(out):
        prints = trainer.images.fingerprints
        changed = check_data(out, prints, changed_ok=config.run.data_changed_ok)
        found = read_newest(out, PARTS)
        try:
            trainer.load(found.state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as reason:
            line = " ".join(str(reason).split())
            raise ValueError(
                f"{found.path} does not fit its config ({type(reason).__name__}: {line}); it is "
                "of another run or damaged"
            ) from reason
        if changed:
            # Kept scans number the images as they were; the next iteration scans anew.
            trainer.scans = []
        if trainer.processes.is_first:
            for path in found.damaged:
                path.rename(path.with_name(f"{path.name}.damaged"))
        check_alike(trainer)
        if trainer.processes.is_first:
            say_changed_sources(config)
        note = f"goes on after iteration {trainer.iteration} of {config.total_iterations}"
        if trainer.iteration >= (end := end_of(config)):
            at = "" if end == config.total_iterations else f", --stop-after is {end}"
            note += f"{at}: nothing is left to train"
    if trainer.processes.is_first:
        print(f"{out} {note}", flush=True)
    return changed


def check_alike(trainer: Trainer) -> None:
    """Raise ValueError unless all processes go on from the same iteration."""
    found = set(trainer.processes.gather_objects(trainer.iteration))
    if len(found) > 1:
        raise ValueError(
            f"the processes found checkpoints of iterations {sorted(found)} in "
            f"{trainer.config.run.out}; see to it that all can read it, then resume again"
        )
