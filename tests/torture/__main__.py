"""Torture the project and print the tally.

    python -m tests.torture                          all of it, at most 20 minutes on two cores
    python -m tests.torture --only kills,checkpoints
    python -m tests.torture --short                  a little of each kind

Exits with 1 if anything was lost, silently wrong, or ended in a traceback.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from experiments.evaluation.torture_result import TortureResult, TortureRow

from .plan import Plan, Trial
from .process import Lost, Skipped, Traced, prepare, start
from .runs import write_commit, write_shards

KINDS = (
    *("kills", "signals", "sharing", "inputs", "changed", "checkpoints", "machine", "numbers"),
    *("fuzz", "determinism", "network"),
)
"""Modules of trials, and rows of the tally."""
WORKERS = 2


@dataclass(frozen=True)
class Tried:
    """How a trial went."""

    trial: Trial
    verdict: str
    """right, lost, traced, skipped, or late."""
    number: int
    seconds: float
    reason: str = ""


def attempt(trial: Trial, folders: Path, until: float) -> Tried:
    """Try one trial in a folder of its own."""
    started = time.monotonic()
    if started > until:
        return Tried(trial, "late", 0, 0.0, "no time was left")
    folder = Path(tempfile.mkdtemp(prefix=f"{trial.kind}_", dir=folders))
    number, verdict, reason = 1, "right", ""
    try:
        returned = trial.run(folder)
        number = 1 if returned is None else returned
    except Lost as lost:
        verdict, reason = "lost", str(lost)
    except Traced as traced:
        verdict, reason = "traced", str(traced)
    except Skipped as skipped:
        verdict, reason = "skipped", str(skipped)
    except Exception as error:
        verdict, reason = "lost", f"{type(error).__name__}: {error}"
    shutil.rmtree(folder, ignore_errors=True)
    return Tried(trial, verdict, number, time.monotonic() - started, reason)


def torture(
    only: Sequence[str] = KINDS,
    *,
    match: str = "",
    short: bool = False,
    seed: int = 0,
    minutes: float = 20.0,
) -> tuple[TortureResult, list[Tried]]:
    """Try everything of some kinds whose name holds a text, two trials at a time."""
    started = time.monotonic()
    prepare()
    with tempfile.TemporaryDirectory(prefix="torture_") as name:
        shared, folders = Path(name) / "shared", Path(name) / "trials"
        folders.mkdir()
        write_shards(shared)
        commit = commit_of(shared)
        trials: list[Trial] = []
        for kind in only:
            module = importlib.import_module(f".{kind}", __package__)
            # A kind draws the same whichever kinds are tried beside it.
            rng = random.Random(f"{kind} {seed}")
            listed = module.trials(Plan(shared, rng, short))
            trials += [trial for trial in listed if match in trial.name]
        tried = []
        with ThreadPoolExecutor(WORKERS) as pool:
            until = started + 60 * minutes
            coming = [pool.submit(attempt, trial, folders, until) for trial in trials]
            for number, future in enumerate(as_completed(coming), start=1):
                tried.append(future.result())
                say(tried[-1], number, len(trials), time.monotonic() - started)
    rows = tuple(row_of(kind, [t for t in tried if t.trial.kind == kind]) for kind in only)
    seconds = round(time.monotonic() - started, 1)
    result = TortureResult(seed=seed, commit=commit, seconds=seconds, rows=rows)
    return result, tried


def commit_of(folder: Path) -> str:
    """Ask a warm process for the commit: this one has no need of torch."""
    path = folder / "commit"
    start(functools.partial(write_commit, path), folder).wait(300).well()
    return path.read_text()


def row_of(kind: str, tried: list[Tried]) -> TortureRow:
    """Count one row of the tally."""

    def count(verdict: str) -> int:
        return sum(each.verdict == verdict for each in tried)

    return TortureRow(
        trials=kind,
        tried=sum(each.number for each in tried if each.verdict not in ("skipped", "late")),
        right=sum(each.number for each in tried if each.verdict == "right"),
        lost=count("lost"),
        tracebacks=count("traced"),
        skipped=count("skipped") + count("late"),
        seconds=round(sum(each.seconds for each in tried), 1),
    )


def say(tried: Tried, number: int, total: int, seconds: float) -> None:
    """Print a line of what went wrong, and now and then how far it is."""
    if tried.verdict not in ("right", "late"):
        print(f"{tried.verdict}: {tried.trial.kind}, {tried.trial.name}: {tried.reason}")
    if number % 25 == 0 or number == total:
        print(f"{number} of {total} trials, {seconds:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, torture, print and write the tally."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, separated by commas")
    parser.add_argument("--match", default="", help="only trials whose name holds this text")
    parser.add_argument("--short", action="store_true", help="a little of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of places, moments and inputs")
    parser.add_argument("--minutes", type=float, default=20.0, help="no trial begins later")
    parser.add_argument("--out", type=Path, help="file of the tally, JSON")
    options = parser.parse_args(arguments)
    only = options.only.split(",")
    if unknown := sorted(set(only) - set(KINDS)):
        parser.error(f"no kind {unknown[0]}; there are {', '.join(KINDS)}")
    result, tried = torture(
        only, match=options.match, short=options.short, seed=options.seed, minutes=options.minutes
    )
    late = sum(each.verdict == "late" for each in tried)
    if late:
        print(f"late: {late} trials were not tried, since no time was left")
    print(f"\n{result.to_text()}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result.write(options.out)
        print(f"written: {options.out}")
    return int(any(each.verdict in ("lost", "traced", "late") for each in tried))


if __name__ == "__main__":
    sys.exit(main())
