"""Carry out many jobs at once: each is a process of its own, and none stops the others."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from experiments.cli import Stopped
from experiments.studies.job import BUSY, STOPPED, Job, work
from experiments.studies.job_log import last_words
from experiments.training.lock import is_held
from experiments.training.stopping import StopSignals, name_of

POLL_S = 0.1
BUSY_POLL_S = 5.0
"""Between looks at a job that another process is at."""
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


@dataclass
class Queue:
    """Jobs that are not done yet."""

    todo: list[Job]
    total: int
    """With those that were done before."""
    missing: list[Missing] = field(default_factory=list)
    again_at: dict[str, float] = field(default_factory=dict)
    """When a job is looked at again that another process is at, by its name."""

    def __post_init__(self) -> None:
        self.lacking = {job.name for job in self.todo}

    def ready(self) -> list[Job]:
        """Return the jobs that may start now: what they need is done, and nobody is at them."""
        free = [job for job in self.todo if self.lacking.isdisjoint(job.needs.values())]
        return [job for job in free if not self._waits(job)]

    def _waits(self, job: Job) -> bool:
        """Whether another process is at a job, as far as was looked by now."""
        now = time.monotonic()
        if job.name in self.again_at and self.again_at[job.name] <= now and is_held(job.folder):
            self.again_at[job.name] = now + BUSY_POLL_S
        return self.again_at.get(job.name, 0) > now

    def stop(self) -> None:
        """Start no more."""
        self.missing += (Missing(job, None) for job in self.todo)
        self.todo.clear()

    def end(self, job: Job, code: int, *, stopping: bool) -> None:
        """Note how a job ended, and say so; what another process is at is waited for."""
        if code == BUSY and not stopping:
            if job.name not in self.again_at:
                print(f"{job.name}: waits, another process is at it", flush=True)
            self.again_at[job.name] = time.monotonic() + BUSY_POLL_S
            self.todo.append(job)
            return
        if code == 0:
            self.lacking.remove(job.name)
        else:
            self.missing.append(missing_of(job, code, stopping=stopping))
        said = "done" if code == 0 else self.missing[-1].why or "not done"
        print(f"{job.name}: {said} ({self.done} of {self.total} are done)", flush=True)

    @property
    def done(self) -> int:
        """Count the jobs that are done."""
        return self.total - len(self.lacking)

    def give_up(self) -> None:
        """Count what needs a run that is not done in the end among the missing, and say so."""
        while True:
            why_of = {each.job.name: each.why for each in self.missing}
            needing = (
                (job, run) for job in self.todo for run in job.needs.values() if run in why_of
            )
            found = next(needing, None)
            if found is None:
                return
            job, run = found
            why = why_of[run]
            why = why and f"not run, as it needs {run}, which failed: {why}"
            self.missing.append(Missing(job, why))
            self.todo.remove(job)
            print(f"{job.name}: {why or 'not done'}", flush=True)


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
    queue = Queue([job for job in jobs if not job.is_done], len(jobs))
    if queue.done:
        print(f"{queue.done} of {queue.total} are done already", flush=True)
    running: list[tuple[Job, Running]] = []
    kill_at = float("inf")
    with StopSignals() as signals:
        try:
            while queue.todo or running:
                if (signals.received or time.monotonic() >= stop_at) and kill_at == float("inf"):
                    kill_at = time.monotonic() + PATIENCE_S
                    queue.stop()
                    for _, each in running:
                        each.terminate()
                if time.monotonic() >= kill_at:
                    for _, each in running:
                        each.kill()
                for job in queue.ready()[: None if workers is None else workers - len(running)]:
                    queue.todo.remove(job)
                    job.write()
                    running.append((job, start(job.folder)))
                time.sleep(POLL_S)
                codes = [(job, each, each.exitcode) for job, each in running]
                running = [(job, each) for job, each, code in codes if code is None]
                for job, _, code in codes:
                    if code is not None:
                        queue.end(job, code, stopping=kill_at < float("inf"))
                queue.give_up()
        finally:
            for _, each in running:
                each.terminate()
    if signals.received:
        by = name_of(signals.received)
        done = f"{queue.done} of {queue.total} are done"
        raise Stopped(signals.received, f"stopped by {by}, {done}")
    return queue.missing


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
        maybe = ", maybe for want of memory" if name_of(-code) == "SIGKILL" else ""
        return Missing(job, f"ended by {name_of(-code)}{maybe}")
    return Missing(job, last_words(job.folder))
