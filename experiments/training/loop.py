"""The training loop of ``experiments.train``."""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
from tqdm import tqdm

from experiments.runs import (
    check_folder,
    git_commit,
    read_manifest,
    save_checkpoint,
    seconds_so_far,
    trim_metrics,
    write_config,
    write_manifest,
)
from experiments.training.build import check_device, check_precision, set_threads
from experiments.training.config import TrainConfig
from experiments.training.distributed import Processes, share_batches
from experiments.training.trainer import Trainer
from foveate.checkpoint import CHECKPOINT, read_checkpoint
from foveate.data.pieces import open_source


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
    if processes.rank == 0:
        done = f"{trainer.iteration} of {config.total_iterations} iterations"
        print(f"written: {config.run.out}, {done}")
    if config.run.report and trainer.iteration == config.total_iterations and processes.rank == 0:
        from experiments.evaluation.report import report

        report(config.run.out)
    return trainer


def run_loop(config: TrainConfig, processes: Processes) -> Trainer:
    """Build or load the trainer, and take its steps."""
    # Asked at the start: by the end of a long run the working tree may hold another commit.
    commit = git_commit()
    writes = processes.rank == 0
    trainer = Trainer(config.replace(device=processes.device), processes)
    if writes:
        check_precision(config)
    if config.run.report and config.data.stream:
        for split in ("val", "test") if trainer.model.config.scannable else ("test",):
            open_source(config.data.data, split)
    metrics = config.run.out / "metrics.jsonl"
    if config.run.resume:
        # Without a checkpoint yet the run starts anew.
        if (config.run.out / CHECKPOINT).exists():
            trainer.load(read_checkpoint(config.run.out / CHECKPOINT))
        if writes:
            trim_metrics(metrics, trainer.iteration)
    elif writes:
        write_config(config)
    first = trainer.iteration
    seconds_before = seconds_so_far(metrics)
    started, end = (
        time.perf_counter(),
        min(config.total_iterations, config.run.stop_after or config.total_iterations),
    )
    log = None
    if writes and config.run.wandb != "disabled":
        import wandb

        log = wandb.init(
            project="foveate", mode=config.run.wandb, dir=config.run.out, config=config.flat()
        )

    logged, logged_at = started, first
    progress = tqdm(
        total=config.total_iterations,
        initial=trainer.iteration,
        desc=config.run.out.name,
        unit="it",
        disable=not writes,
    )
    with progress:
        while trainer.iteration < end:
            measured, at = trainer.step(), trainer.iteration
            progress.update()
            if writes and (at % config.run.log_every == 0 or at == end):
                seconds = seconds_before + time.perf_counter() - started
                line = {"iteration": at, "seconds": round(seconds, 2), **measured}
                with metrics.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                warming = at <= config.optimization.warmup_iterations
                learned = config.num_learned * (config.optimization.micro_batches or 1)
                images = config.optimization.warmup_batch_size if warming else learned
                now = time.perf_counter()
                speed = images * (at - logged_at) / (now - logged)
                logged, logged_at = now, at
                progress.set_postfix(
                    {**{k: f"{v:.3f}" for k, v in measured.items()}, "images/s": f"{speed:.0f}"}
                )
                if log is not None:
                    log.log(line, step=at)
            if at % config.run.save_every == 0 or at == end:
                state = trainer.state()
                if writes:
                    save_checkpoint(config.run.out, state)
    if writes and trainer.iteration > first:
        record_run(config, trainer, commit, seconds_before + time.perf_counter() - started)
    if log is not None:
        log.finish()
    return trainer


def peak_memory_mb(device: str) -> float:
    """Most memory in use so far: of the process on a CPU, of torch's tensors on a GPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def record_run(config: TrainConfig, trainer: Trainer, commit: str, seconds: float) -> None:
    """Write the manifest; a resumed run keeps the commits of its earlier parts."""
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
        train_images=None if config.data.stream else len(trainer.images),
        world_size=trainer.processes.count,
        peak_memory_mb=peak_memory_mb(config.run.device),
    )
