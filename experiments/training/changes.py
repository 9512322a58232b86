"""Options that change when a run goes on: the manifest and config.json say so."""

from __future__ import annotations

import sys
from typing import Any

from experiments.run_folder import read_config, read_manifest, write_config, write_own
from experiments.training.config import TrainConfig
from experiments.training.locating import located
from foveate.checkpoint import MANIFEST
from foveate.choices import sources_of


def own_parts(config: TrainConfig) -> list[str]:
    """Return what a training takes of one's own, by ``MODULE:NAME``."""
    parts, policy = config.parts, config.policy
    named = [config.model.recipe, parts.order, parts.target, parts.memory]
    named += [] if policy is None else [policy.reward]
    return [each for each in named if ":" in each]


def changed_sources(config: TrainConfig) -> list[str]:
    """Return parts of one's own whose code is another than the run was last trained with.

    Runs from before this was kept do not say, nor does code that cannot be imported.
    """
    kept = read_manifest(config.run.out).get("sources", {})
    now = sources_of(own_parts(config))
    return [name for name, code in now.items() if kept.get(name, code) != code]


def say_changed_sources(config: TrainConfig) -> None:
    """Print a line for each of :func:`changed_sources`."""
    for name in changed_sources(config):
        out = config.run.out
        print(f"note: the code of {name} has changed since {out} was trained", flush=True)


def record_changes(config: TrainConfig, iteration: int) -> None:
    """Write what ``--change-on-resume`` changes into the manifest, then into config.json.

    From there on the run has the new values. A continuation that gives them, as ``--model-lr``,
    need not allow the change again.

    Args:
        config: of the continuation.
        iteration: of the checkpoint that it goes on from; 0 = it starts anew, all of it with the
            new values.
    """
    out = config.run.out
    old = read_config(out)
    before, now = old.flat(), config.flat()
    changed = [name for name in config.run.change_on_resume if before.get(name) != now.get(name)]
    for name in config.run.change_on_resume:
        if name not in changed:
            print(f"note: {name} is {now.get(name)} already, and stays so", file=sys.stderr)
    if not changed:
        return
    if iteration > 0:
        manifest = read_manifest(out)
        changes: list[dict[str, Any]] = manifest.get("changes", [])
        for name in changed:
            values = {"before": before[name], "after": now[name]}
            change = {"iteration": iteration, "option": name, **values}
            # A run that was cut off between the two files has recorded it already.
            if change not in [each for each in changes if each["option"] == name][-1:]:
                changes.append(change)
        write_own(out / MANIFEST, {**manifest, "changes": changes})
    write_config(old.replace(out=out, **{name: now[name] for name in changed}))


def record_move(config: TrainConfig) -> list[str]:
    """Write where data lie now into config.json, and return moves in words.

    So is what evaluations need to know as well: whether damaged images are left out.
    """
    out = config.run.out
    old = read_config(out)
    before, now = vars(located(old).data), vars(located(config).data)
    changed = [name for name in ("data", "data_root", "skip_damaged") if before[name] != now[name]]
    if changed:
        write_config(old.replace(out=out, **{name: now[name] for name in changed}))
    moved = [name for name in changed if name != "skip_damaged"]
    return [f"the data moved from {before[name]} to {now[name]}" for name in moved]
