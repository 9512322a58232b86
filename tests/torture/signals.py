"""Signals: a run that is asked to stop saves what it has, says how to go on, and does go on."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .faults import slow_steps
from .plan import Plan, Trial
from .process import Done, Lost, command, python, start, start_cold
from .runs import KINDS, Kind, begin, begin_torchrun, check_same, finish, has_lines

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
RARE = ("--save-every", "200")
"""No checkpoint is due before the signal comes."""


def trials(plan: Plan) -> Iterator[Trial]:
    """List the signals."""
    kinds = ("native", "maskable-ppo", "streamed parquet", "sharded")
    pairs = [(KINDS[name], number) for name in kinds for number in SIGNALS]
    if plan.short:
        pairs = [(KINDS["native"], signal.SIGTERM)]
    for kind, number in pairs:
        lines = plan.rng.randrange(1, 11)
        name = f"{number.name}, {kind.name}, after {lines} iterations"
        yield Trial("signals", name, partial(stop, kind, plan.shared, number, lines))
    if plan.short:
        return
    for number in SIGNALS:
        yield Trial("signals", f"{number.name} twice", partial(stop_twice, plan.shared, number))
    yield Trial("signals", "SIGTERM, torchrun", partial(stop_torchrun, plan.shared))
    for i in range(3):
        seconds = plan.rng.uniform(0.1, 3.0)
        name = f"Ctrl-C {seconds:.1f} s after the start {i}"
        yield Trial("signals", name, partial(interrupt, seconds))
    yield Trial("signals", "Ctrl-C, a comparison", partial(interrupt_comparison, plan.shared))


def check_stopped(done: Done, number: signal.Signals) -> None:
    """Check what a run shows that was asked to stop."""
    done.expect(done.code in (128 + number, 0), f"exit {128 + number}")
    done.says("--resume")


def stop(kind: Kind, shared: Path, number: signal.Signals, lines: int, folder: Path) -> None:
    """Signal all processes of a run once; it must lose no iteration."""
    running = begin(kind, shared, folder, *RARE, faults=[slow_steps(0.05)])
    running[0].until(has_lines(folder / "run", lines))
    for each in running:
        each.signal(number)
    dones = [each.wait() for each in running]
    check_stopped(dones[0], number)
    note = finish(kind, shared, folder, *RARE).out
    at = next((int(w) for w in note.partition("goes on after iteration ")[2].split()[:1]), 0)
    if at < lines:
        raise Lost(f"went on after iteration {at}, signaled after {lines}")
    check_same(kind, shared, folder)


def stop_twice(shared: Path, number: signal.Signals, folder: Path) -> None:
    """Signal within a long iteration: it is finished, unless a second signal comes."""
    kind = KINDS["native"]
    (running,) = begin(kind, shared, folder, faults=[slow_steps(60, first=5)])
    running.until(has_lines(folder / "run", 5))
    time.sleep(0.3)
    running.signal(number)
    time.sleep(0.5)
    if running.code is not None:
        running.wait().expect(False, "that it finishes its iteration")
    running.signal(number)
    done = running.wait(5)
    done.expect(done.code in (128 + number, -number), f"exit {128 + number}")
    finish(kind, shared, folder)
    check_same(kind, shared, folder)


def stop_torchrun(shared: Path, folder: Path) -> None:
    """End a job of several processes as a cluster does."""
    kind = KINDS["sharded"]
    running = begin_torchrun(kind, shared, folder, "--iterations", "4000", *RARE)
    running.until(has_lines(folder / "run", 5))
    running.signal(signal.SIGTERM)
    running.wait(60)
    if not list((folder / "run").glob("checkpoint*")):
        raise Lost("no checkpoint was written")


def interrupt(seconds: float, folder: Path) -> None:
    """Press Ctrl-C while the imports are under way, or the data, or the first iterations."""
    options = ("--iterations", "4000", "--no-report", "--out", str(folder / "run"))
    running = start_cold(python("-m", "experiments.train", "smoke", *options), folder)
    time.sleep(seconds)
    running.signal(signal.SIGINT)
    done = running.wait(30)
    done.expect(done.code in (130, -signal.SIGINT), "exit 130")
    lines = [line for line in done.err.replace("\r", "\n").splitlines() if "it/s" not in line]
    done.expect(len([line for line in lines if line.strip()]) <= 2, "one line")


def interrupt_comparison(shared: Path, folder: Path) -> None:
    """Press Ctrl-C in an evaluation: one line, and the run is as it was."""
    kind = KINDS["native"]
    finish(kind, shared, folder)
    running = start(command("compare", "--run", folder / "run"), folder)
    time.sleep(random.Random(0).uniform(0.2, 0.6))
    running.signal(signal.SIGINT)
    done = running.wait(30)
    done.expect(done.code == 130, "exit 130")
    check_same(kind, shared, folder)
