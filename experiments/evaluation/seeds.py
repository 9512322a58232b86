"""Runs of one kind, which differ in their seeds alone: a result is a mean over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.run_folder import of_kind
from experiments.runs import Run, say_without_policy


def runs_of(run: Run | Sequence[Run] | None) -> tuple[Run, ...]:
    """Return the runs of one kind; none, one, or several. Print where no policy has learned.

    Raises:
        ValueError: they are not of one kind.
    """
    runs = () if run is None else (run,) if isinstance(run, Run) else tuple(run)
    check_one_kind(runs)
    say_without_policy(runs)
    return runs


def several(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what tells a result of several runs from that of the first one."""
    return {"seeds": [each.seed for each in runs]} if len(runs) > 1 else {}


def check_one_kind(runs: Sequence[Run]) -> None:
    """Raise ValueError if runs were trained otherwise, or less long, or with the same seed."""
    for run in runs[1:]:
        before, now = (
            {**each.config.flat(), "data": each.data, "iteration": each.iteration}
            for each in (runs[0], run)
        )
        kind, other = of_kind(before), of_kind(now)
        changed = [
            f"{name} {before.get(name)} and {now.get(name)}"
            for name in {**kind, **other}
            if kind.get(name) != other.get(name)
        ]
        if changed:
            raise ValueError(
                f"several runs must differ in nothing but their seeds, {runs[0].directory} and "
                f"{run.directory} have {', '.join(changed)}; compare each kind by itself"
            )
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"several runs must have seeds of their own, got {seeds}; name each once")
