"""The training loop of ``experiments.train``: run folder, steps, metrics, checkpoints."""

from __future__ import annotations

import resource
import sys

import torch

from experiments.run_folder import (
    MANIFEST,
    check_folder,
    git_commit,
    read_config,
    read_manifest,
    save_checkpoint,
    seconds_so_far,
    trim_metrics,
    write_config,
    write_manifest,
)
from experiments.runs import Run, load_run
from experiments.training.build import check_precision, check_stream, set_threads
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes, share_batches
from experiments.training.log import RunLog
from experiments.training.trainer import Trainer
from experiments.training.validation import validation_of
from foveate.checkpoint import CHECKPOINT, check_device, read_checkpoint


def train(config: TrainConfig) -> Trainer:
    """Train as configured, write the run folder, and return the trainer.

    All processes that torchrun started call it alike; the first one writes.
    """
    set_threads(config.run.threads)
    processes = Processes.started(config.run.device)
    config = share_batches(config, processes)
    check_device(processes.device)
    check_folder(config)
    with processes.connected():
        trainer = run_loop(config, processes)
    if processes.is_first:
        done = f"{trainer.iteration} of {config.total_iterations} iterations"
        print(f"written: {config.run.out}, {done}")
    return trainer


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
    if not (wanted.run.out / CHECKPOINT).is_file() or (
        load_run(wanted.run.out).iteration < wanted.total_iterations
    ):
        train(wanted.replace(resume=begun))
    return load_run(wanted.run.out)


def run_loop(config: TrainConfig, processes: Processes) -> Trainer:
    """Build or load the trainer, and take its steps."""
    # Asked at the start: by the end of a long run the working tree may hold another commit.
    commit = git_commit()
    trainer = Trainer(config.replace(device=processes.device), processes)
    check_before_writing(trainer)
    validation = validation_of(trainer)
    open_folder(config, trainer)
    first = trainer.iteration
    end = min(config.total_iterations, config.run.stop_after or config.total_iterations)
    seconds_before = seconds_so_far(config.run.out / "metrics.jsonl")
    with RunLog(config, first, seconds_before, writes=processes.is_first) as log:
        while trainer.iteration < end:
            measured, at = trainer.step(), trainer.iteration
            validated = {}
            if validation is not None and at % validation.every == 0:
                validated = validation.measure(trainer)
            log.advance(at, measured, validated, is_last=at == end)
            if at % config.run.save_every == 0 or at == end:
                state = trainer.state()
                if processes.is_first:
                    save_checkpoint(config.run.out, state)
        # A run that was cut off after its last checkpoint has no manifest yet.
        unrecorded = not (config.run.out / MANIFEST).exists()
        if processes.is_first and (trainer.iteration > first or unrecorded):
            record_run(trainer, commit, log.seconds)
    return trainer


def check_before_writing(trainer: Trainer) -> None:
    """Warn of a slow precision; raise ValueError if a report would have no images to look at."""
    config = trainer.config
    if trainer.processes.is_first:
        check_precision(config)
    if config.run.report and config.data.stream:
        for split in ("val", "test") if trainer.model.config.scannable else ("test",):
            check_stream(config, split)


def open_folder(config: TrainConfig, trainer: Trainer) -> None:
    """Continue from the checkpoint in the run folder, or write the config into a new one."""
    writes = trainer.processes.is_first
    if config.run.resume:
        # Without a checkpoint yet the run starts anew.
        if (config.run.out / CHECKPOINT).exists():
            trainer.load(read_checkpoint(config.run.out / CHECKPOINT))
            note = f"goes on after iteration {trainer.iteration} of {config.total_iterations}"
        else:
            note = "starts anew: there is no checkpoint yet"
        if writes:
            print(f"{config.run.out} {note}", flush=True)
            trim_metrics(config.run.out / "metrics.jsonl", trainer.iteration)
    elif writes:
        write_config(config)


def peak_memory_mb(device: str) -> float:
    """Most memory in use so far: of the process on a CPU, of torch's tensors on a GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def record_run(trainer: Trainer, commit: str, seconds: float) -> None:
    """Write the manifest; a resumed run keeps the commits of its earlier parts."""
    config = trainer.config
    earlier = read_manifest(config.run.out).get("commits", []) if config.run.resume else []
    write_manifest(
        config.run.out,
        commit=commit,
        commits=[*earlier, commit],
        iterations=trainer.iteration,
        train_seconds=round(seconds, 3),
        parameters={
            "model": sum(p.numel() for p in trainer.model.parameters()),
            "policy": sum(p.numel() for p in trainer.policy.parameters()),
        },
        data=config.data.data,
        train_images=None if config.data.stream else len(trainer.images.held),
        world_size=trainer.processes.count,
        peak_memory_mb=peak_memory_mb(config.run.device),
    )
