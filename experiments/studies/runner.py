"""Carry out many jobs at once: each is a process of its own, and none stops the others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.cli import Stopped
from experiments.studies.job import BUSY, STOPPED, Job, last_words, work
from experiments.training.stopping import StopSignals, name_of

POLL_S = 0.1
PATIENCE_S = 60.0
"""How long a job may take to end its iteration and write a checkpoint, before it is killed."""


class Running(Protocol):
    """A job that was started."""

    @property
    def exitcode(self) -> int | None:
        """Return how it ended; None = it runs, or waits for a machine."""

    def terminate(self) -> None:
        """Ask it to stop: a training writes a checkpoint."""

    def kill(self) -> None:
        """End it at once."""


Starter = Callable[[Path], Running]
"""Starts the job of a folder."""


@dataclass(frozen=True)
class Missing:
    """A job that is not done."""

    job: Job
    why: str | None
    """Why it failed; None = it waits, was stopped, or another process is at it."""


def start_here() -> Starter:
    """Return what starts jobs as processes of this machine.

    They are forked from a server that has imported torch once, where the system can.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["experiments.studies.job"])

    def start(folder: Path) -> Running:
        process = context.Process(target=work, args=(folder,), name=folder.name)
        process.start()
        started: Running = process
        return started

    return start


def run_jobs(
    jobs: Sequence[Job], start: Starter, *, workers: int | None = 1, stop_at: float = float("inf")
) -> list[Missing]:
    """Carry out all jobs that are not done yet; return those that are not done in the end.

    Args:
        jobs: with folders of their own; what one needs is done before it, or else neither is.
        start: starts one.
        workers: jobs at once; None = all, as a cluster has a queue of its own.
        stop_at: time of ``time.monotonic`` at which running jobs are asked to stop.

    Raises:
        Stopped: a signal asked for it; running jobs have stopped.
    """
    todo = [job for job in jobs if not job.is_done]
    lacking = {job.name for job in todo}
    total = len(jobs)
    if len(todo) < total:
        print(f"{total - len(todo)} of {total} are done already", flush=True)
    missing: list[Missing] = []
    running: list[tuple[Job, Running]] = []
    kill_at = float("inf")
    with StopSignals() as signals:
        try:
            while todo or running:
                if (signals.received or time.monotonic() >= stop_at) and kill_at == float("inf"):
                    kill_at = time.monotonic() + PATIENCE_S
                    missing += (Missing(job, None) for job in todo)
                    todo.clear()
                    for _, each in running:
                        each.terminate()
                if time.monotonic() >= kill_at:
                    for _, each in running:
                        each.kill()
                ready = [job for job in todo if lacking.isdisjoint(job.needs.values())]
                for job in ready[: None if workers is None else workers - len(running)]:
                    todo.remove(job)
                    job.write()
                    running.append((job, start(job.folder)))
                time.sleep(POLL_S)
                codes = [(job, each, each.exitcode) for job, each in running]
                running = [(job, each) for job, each, code in codes if code is None]
                ended = [(job, code) for job, _, code in codes if code is not None]
                for job, code in ended:
                    if code == 0:
                        lacking.remove(job.name)
                    else:
                        missing.append(missing_of(job, code, stopping=kill_at < float("inf")))
                    said = "done" if code == 0 else missing[-1].why or "not done"
                    done = total - len(lacking)
                    print(f"{job.name}: {said} ({done} of {total} are done)", flush=True)
                give_up(todo, missing)
        finally:
            for _, each in running:
                each.terminate()
    if signals.received:
        by = name_of(signals.received)
        done = total - len(lacking)
        raise Stopped(signals.received, f"stopped by {by}, {done} of {total} are done")
    return missing


def give_up(todo: list[Job], missing: list[Missing]) -> None:
    """Count what needs a run that is not done in the end among the missing, and say so."""
    while True:
        why_of = {each.job.name: each.why for each in missing}
        needing = ((job, run) for job in todo for run in job.needs.values() if run in why_of)
        found = next(needing, None)
        if found is None:
            return
        job, run = found
        why = why_of[run]
        missing.append(Missing(job, why and f"not run, as it needs {run}, which failed: {why}"))
        todo.remove(job)
        print(f"{job.name}: {missing[-1].why or 'not done'}", flush=True)


def missing_of(job: Job, code: int, *, stopping: bool) -> Missing:
    """Say why a job is not done.

    Args:
        job: which one.
        code: how it ended, not 0; below 0 the signal that ended it.
        stopping: whether it was asked to; then it waits, however it ended.
    """
    if stopping or code in (BUSY, STOPPED):
        return Missing(job, None)
    if code < 0:
        return Missing(job, f"ended by {name_of(-code)}, maybe for want of memory")
    return Missing(job, last_words(job.folder))
