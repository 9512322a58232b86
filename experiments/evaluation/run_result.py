"""What was measured of a run: it knows its options, and never overwrites a result of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.tables import Result, plural, read_object, set_aside, short_commit

FREE_IN_RESULT = ("run", "data", "device")
"""Options of a measurement that do not shape its result: where things are."""
SHAPES_RESULT = ("options", "iteration")
"""Where two results of a run may not differ, or one of them is kept apart."""


@dataclass(frozen=True, kw_only=True)
class RunResult(Result):
    """A result of one trained run."""

    options: dict[str, Any] = field(default_factory=dict)
    """Options of the measurement, as JSON holds them; without run and device."""
    iteration: int | None = None
    """Training iteration of the checkpoint; None = an older result does not say."""

    def keep(
        self, path: Path, options: Mapping[str, object], pictures: Sequence[Path] = ()
    ) -> None:
        """Write, with the options of the measurement.

        A result of other options, or of another iteration, or one that is damaged, is kept beside
        it under a number, with its pictures.
        """
        shaping = {name: each for name, each in options.items() if name not in FREE_IN_RESULT}
        result = replace(self, options=json.loads(json.dumps(shaping, default=str)))
        if any(each.exists() for each in (path, *pictures)):
            now = result.content()
            try:
                before = read_object(path)
                same = all(before.get(key) == now[key] for key in SHAPES_RESULT)
            except (ValueError, OSError):
                same = False
            if not same:
                set_aside(path, pictures)
        result.write(path)


def scans(budget: int, num_patches: int, fixation_patches: int) -> str:
    """Say how long scans are.

    Args:
        budget: fixations of each.
        num_patches: patches of an image.
        fixation_patches: patches that a fixation opens.
    """
    if fixation_patches == 1:
        return f"{budget} of {num_patches} patches"
    return f"{plural(budget, 'fixation')} of {fixation_patches} among {num_patches} patches"


def minutes(seconds: float | None) -> str:
    """Say how long a model was trained; older results do not know it."""
    return "an unknown time" if seconds is None else plural(round(seconds / 60), "minute")


def training_facts(manifest: dict[str, Any], config: dict[str, Any]) -> str:
    """Say how large a run's model is and how it was trained.

    Args:
        manifest: content of manifest.json.
        config: content of config.json.
    """
    return (
        f"{manifest['parameters']['model'] / 1e6:.2f} M parameters, "
        f"trained {manifest['train_seconds'] / 60:.1f} minutes on "
        f"{plural(manifest['threads'], 'CPU thread')} "
        f"({config['warmup_iterations']} + {config['iterations']} iterations), "
        f"commit `{short_commit(manifest['commit'])}`"
    )
