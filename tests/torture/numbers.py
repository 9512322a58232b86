"""Numbers that are not finite, at every place: skipped and counted, or one line; never saved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .faults import not_finite
from .plan import Plan, Trial
from .process import Done, Lost
from .runs import KINDS, begin, check_same, finish, outcome, strict_json

PLACES = ("model forward", "model gradient", "model weight", "policy gradient", "policy weight")
LAST = 11
"""The last iteration of the tiny runs."""
ALWAYS = tuple(range(5, 4000))
REWARD = """
import torch

from envs.rewards import reward_named

calls = 0


def sometimes_nan(fixation):
    global calls
    calls += 1
    value = reward_named("auc")(fixation)
    return value * float("nan") if {when} else value
"""


def trials(plan: Plan) -> Iterator[Trial]:
    """List the places and times."""
    kinds = ("native", "maskable-ppo") if not plan.short else ("native",)
    for name in kinds:
        for where in PLACES if not plan.short else PLACES[1:2]:
            once = partial(once_not_finite, plan.shared, name, where)
            yield Trial("numbers", f"{where} once, {name}", partial(once, 7))
            if plan.short:
                continue
            yield Trial("numbers", f"{where} in the last iteration, {name}", partial(once, LAST))
            always = partial(always_not_finite, plan.shared, name, where)
            yield Trial("numbers", f"{where} always, {name}", always)
        if not plan.short:
            for when in ("calls == 20", "calls > 20", "True"):
                run = partial(reward_not_finite, plan.shared, name, when)
                yield Trial("numbers", f"a reward is NaN if {when}, {name}", run)


def check_saved(folder: Path) -> None:
    """Check that what is saved is finite, metrics are JSON, and every checkpoint can be read."""
    out = folder / "run"
    for line in (out / "metrics.jsonl").read_text().splitlines():
        strict_json(line)
    if list(out.glob("checkpoint*")) and not outcome(out, folder)["weights"]["finite"]:
        raise Lost("weights that are not finite were saved")


def skipped(out: Path) -> float:
    """Number of steps that the run says it skipped."""
    lines = [strict_json(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return max((line.get("skipped_steps") or 0 for line in lines), default=0)


def once_not_finite(shared: Path, name: str, where: str, at: int, folder: Path) -> None:
    """Spoil one iteration: the step is skipped and counted, or the run stops in one line."""
    kind = KINDS[name]
    (running,) = begin(kind, shared, folder, faults=[not_finite(where, at)])
    done: Done = running.wait()
    check_saved(folder)
    if done.code == 0:
        done.well()
        if not skipped(folder / "run"):
            raise Lost("exit 0 without a word of the step that was skipped")
        return
    done.refused("not finite|nan")
    # The fault was of the machine; from the last checkpoint the run is as any other.
    finish(kind, shared, folder)
    check_same(kind, shared, folder)


def always_not_finite(shared: Path, name: str, where: str, folder: Path) -> None:
    """Spoil every iteration from one on: the run stops in one line that names a checkpoint."""
    kind = KINDS[name]
    more = ("--iterations", "40")
    (running,) = begin(kind, shared, folder, *more, faults=[not_finite(where, *ALWAYS)])
    running.wait().refused("not finite|nan", "checkpoint|--resume")
    check_saved(folder)


def reward_not_finite(shared: Path, name: str, when: str, folder: Path) -> None:
    """Train with a reward of one's own that is not a number now and then, or always."""
    kind = KINDS[name]
    (folder / "own_reward.py").write_text(REWARD.format(when=when))
    options = ("--reward", "own_reward:sometimes_nan", "--iterations", "40")
    (running,) = begin(kind, shared, folder, *options)
    done = running.wait()
    if done.code == 0:
        done.well()
        if not skipped(folder / "run"):
            raise Lost("exit 0 without a word of the reward that is not finite")
    else:
        done.refused("not finite|nan", "reward")
    if (folder / "run" / "metrics.jsonl").exists():
        check_saved(folder)
