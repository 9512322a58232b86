"""Determinism: the same command comes to the same, stopped and resumed anywhere, or at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .plan import Plan, Trial
from .process import Lost
from .runs import KINDS, Kind, check_same, finish, outcome

LENGTHS = {"streamed tar": 4, "recipe saim": 4, "recipe digpt": 4, "recipe autonat": 4}
"""Iterations of the runs without a policy; all others have 12."""


def trials(plan: Plan) -> Iterator[Trial]:
    """List the trials."""
    kinds = [KINDS["native"]] if plan.short else list(KINDS.values())
    for kind in kinds:
        yield Trial("determinism", f"twice, {kind.name}", partial(twice, kind, plan.shared))
        if plan.short:
            return
        length = LENGTHS.get(kind.name, 12)
        stops = sorted(plan.rng.sample(range(1, length), 2))
        run = partial(in_parts, kind, plan.shared, stops)
        yield Trial("determinism", f"in parts, {kind.name}, {stops}", run)
    two = partial(same_twice, KINDS["native"], plan.shared)
    for options in (
        ("--threads", "2"),
        ("--precision", "bf16"),
        ("--seed", "5"),
        ("--log-every", "1", "--save-every", "1"),
    ):
        yield Trial("determinism", f"twice, {' '.join(options)}", partial(two, options))


def twice(kind: Kind, shared: Path, folder: Path) -> None:
    """Repeat a run."""
    finish(kind, shared, folder)
    check_same(kind, shared, folder)


def in_parts(kind: Kind, shared: Path, stops: list[int], folder: Path) -> None:
    """Stop and resume a run."""
    for stop in stops:
        finish(kind, shared, folder, "--stop-after", str(stop))
    finish(kind, shared, folder)
    check_same(kind, shared, folder)


def same_twice(kind: Kind, shared: Path, options: tuple[str, ...], folder: Path) -> None:
    """Repeat a run with other options."""
    found = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        finish(kind, shared, folder / name, *options)
        found.append(outcome(folder / name / "run", folder))
    if found[0] != found[1]:
        raise Lost("two runs of one command differ")
