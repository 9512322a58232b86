"""Two processes in one folder: one writes, the other is refused and touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .faults import slow_steps
from .plan import Plan, Trial
from .process import Lost, command, start
from .runs import KINDS, begin, check_same, finish, half_run, has_lines

LOCKED = "being written by|is in use by"
SLOW = (slow_steps(0.3),)
NATIVE = KINDS["native"]


def trials(plan: Plan) -> Iterator[Trial]:
    """List the encounters."""
    second = partial(meet, plan.shared)
    yield Trial("sharing", "new beside new", partial(second, False, False))
    if plan.short:
        return
    yield Trial("sharing", "resume beside new", partial(second, False, True))
    yield Trial("sharing", "new beside resume", partial(second, True, False))
    yield Trial("sharing", "resume beside resume", partial(second, True, True))
    for resume in (False, True):
        for i in range(3):
            name = f"both {'resume' if resume else 'start'} at once {i}"
            yield Trial("sharing", name, partial(race, plan.shared, resume))
    for name in ("native", "maskable-ppo", "streamed parquet"):
        yield Trial("sharing", f"a lock of a dead run, {name}", partial(dead, plan.shared, name))
    yield Trial("sharing", "a comparison beside a run", partial(compare_beside, plan.shared))
    yield Trial("sharing", "two comparisons at once", partial(compare_twice, plan.shared))
    yield Trial("sharing", "two seeds without --out", partial(two_seeds, plan.shared))


def meet(shared: Path, first_resumes: bool, second_resumes: bool, folder: Path) -> None:
    """Start a run into the folder of a live one."""
    if first_resumes:
        half_run(NATIVE, shared, folder)
    (first,) = begin(NATIVE, shared, folder, *resume(first_resumes), faults=SLOW)
    first.until(has_lines(folder / "run", 8 if first_resumes else 1))
    (second,) = begin(NATIVE, shared, folder, *resume(second_resumes))
    second.wait().refused(LOCKED)
    first.wait().well()
    check_same(NATIVE, shared, folder)


def resume(yes: bool) -> tuple[str, ...]:
    """Return the option, or none."""
    return ("--resume",) if yes else ()


def race(shared: Path, resumes: bool, folder: Path) -> None:
    """Start two at the same time."""
    if resumes:
        half_run(NATIVE, shared, folder)
    both = [begin(NATIVE, shared, folder, *resume(resumes), faults=SLOW)[0] for _ in range(2)]
    dones = sorted((each.wait() for each in both), key=lambda done: done.code)
    dones[0].well()
    dones[1].refused(f"{LOCKED}|holds")
    check_same(NATIVE, shared, folder)


def dead(shared: Path, name: str, folder: Path) -> None:
    """Resume at once what was killed at once; its workers do not keep the folder."""
    kind = KINDS[name]
    (first,) = begin(kind, shared, folder, faults=SLOW)
    first.until(has_lines(folder / "run", 3))
    first.kill()
    while first.code is None:
        pass
    finish(kind, shared, folder)
    first.wait()
    check_same(kind, shared, folder)


def compare_beside(shared: Path, folder: Path) -> None:
    """Evaluate a run while it trains: both succeed."""
    (first,) = begin(NATIVE, shared, folder, faults=[slow_steps(0.5)])
    first.until(has_lines(folder / "run", 3))
    options = ("--limit", "8", "--oracle-limit", "2")
    start(command("compare", "--run", folder / "run", *options), folder).wait().well()
    first.wait().well()


def compare_twice(shared: Path, folder: Path) -> None:
    """Evaluate a run twice at once: both succeed, and the result can be read."""
    finish(NATIVE, shared, folder)
    options = ("--limit", "8", "--oracle-limit", "2")
    call = command("compare", "--run", folder / "run", *options)
    for each in [start(call, folder) for _ in range(2)]:
        each.wait().well()
    start(partial(read_comparison, folder / "run" / "compare.json"), folder).wait().well()


def read_comparison(path: Path) -> None:
    """Read a comparison back."""
    from experiments.evaluation.compare.result import Comparison

    Comparison.read(path)


def two_seeds(shared: Path, folder: Path) -> None:
    """Train two seeds side by side with the folder left to the program."""
    arguments = NATIVE.arguments(shared)
    runs = [
        start(command("train", *arguments, "--seed", str(seed)), folder, faults=SLOW)
        for seed in (0, 1)
    ]
    for each in runs:
        each.wait().well()
    found = sorted(path.name for path in (folder / "runs").iterdir())
    if len(found) != 2:
        raise Lost(f"two seeds wrote into {', '.join(found)}")
