"""Kills: a run that is killed, and killed while it resumes, ends as one that was not."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .faults import Fault, die_at_byte, kill_at_write
from .plan import Plan, Trial
from .process import Lost
from .runs import KINDS, Kind, begin, begin_torchrun, check_same, finish, has_lines, resumes

PLACES = ("moment", "write", "byte")
"""At a random moment; just before a file is opened, synced or renamed; in the middle of a write."""
MOST_WRITES, MOST_BYTES, MOST_S = 40, 400_000, 1.2
"""Bounds of the places; a run that ends before its place is reached was not killed."""
TRIALS = {
    "native": 18,
    "native every 2nd": 3,
    "maskable-ppo": 12,
    "streamed parquet": 10,
    "streamed tar": 4,
    "recipe digpt": 3,
    "recipe autonat": 3,
    "sharded": 8,
}
"""Trials of each kind; each kills once or more."""


def trials(plan: Plan) -> Iterator[Trial]:
    """List the kills."""
    numbers = {"native": 1, "streamed parquet": 1} if plan.short else TRIALS
    for name, number in numbers.items():
        for i in range(number):
            seed = plan.rng.randrange(2**32)
            place = PLACES[i % len(PLACES)]
            yield Trial(
                "kills",
                f"{name}, {place} {i}",
                lambda folder, name=name, place=place, seed=seed: kill(
                    KINDS[name], plan.shared, folder, place, random.Random(seed)
                ),
            )
    if not plan.short:
        for i in range(2):
            yield Trial(
                "kills",
                f"torchrun {i}",
                lambda folder, i=i: kill_torchrun(KINDS["sharded"], plan.shared, folder, 2 + 3 * i),
            )


def kill(kind: Kind, shared: Path, folder: Path, place: str, rng: random.Random) -> int:
    """Kill a run until it has died once or twice, then let it finish; return how often it died."""
    died, wanted = 0, rng.choice((1, 2))
    for _ in range(3 * wanted):
        faults: list[Fault] = []
        if place == "write":
            faults = [kill_at_write(folder / "run", rng.randrange(MOST_WRITES))]
        if place == "byte":
            faults = [die_at_byte(rng.randrange(MOST_BYTES))]
        running = begin(kind, shared, folder, *resumes(folder / "run"), faults=faults)
        if place == "moment":
            time.sleep(rng.uniform(0, MOST_S * kind.processes))
            for each in running:
                each.kill()
        elif kind.processes > 1:
            # The death of one is the end of all, as under torchrun.
            while all(each.code is None for each in running):
                time.sleep(0.02)
            if any(each.code for each in running):
                for each in running:
                    each.kill()
        codes = [each.wait().code for each in running]
        deaths = [code for code in codes if code in (-signal.SIGKILL, -signal.SIGXFSZ)]
        died += bool(deaths)
        if not deaths and any(codes):
            raise Lost(f"it ended by itself with exit codes {codes}")
        if died == wanted or not deaths:
            break
    finish(kind, shared, folder)
    check_same(kind, shared, folder)
    return died


def kill_torchrun(kind: Kind, shared: Path, folder: Path, lines: int) -> int:
    """Kill a run of torchrun with all its processes, as a machine that fails does."""
    running = begin_torchrun(kind, shared, folder)
    running.until(has_lines(folder / "run", lines))
    running.end()
    finish(kind, shared, folder)
    check_same(kind, shared, folder)
    return 1
