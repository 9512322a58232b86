"""Weights & Biases: one run there per run folder, however often it is resumed."""

from __future__ import annotations

import json
import os
from typing import Any

from experiments.training.config import TrainConfig

ID = "wandb_id"
"""File in the run folder that holds the run's id."""
RESULTS = ("compare.json", "probe.json")
"""Reports whose numbers become the run's summary."""


def check_wandb(config: TrainConfig) -> None:
    """Raise ValueError, before anything is written, unless the mode can be used."""
    if config.run.wandb != "online":
        return
    wandb = _imported(config.run.wandb)
    try:
        is_known = wandb.login()
    except wandb.errors.Error as reason:
        raise ValueError(f"--wandb online: {reason} Or take --wandb offline.") from reason
    if not is_known:
        raise ValueError("--wandb online needs a login: run wandb login; offline needs none")


def open_run(config: TrainConfig) -> Any:
    """Open the run, or go on with the one that the run folder names; None if disabled.

    Project and entity are those of the options, else of the environment (WANDB_PROJECT and
    WANDB_ENTITY), else ``foveate`` and the user's own.

    Raises:
        ValueError: wandb refuses.
    """
    options = config.run
    if options.wandb == "disabled":
        return None
    wandb, file = _imported(options.wandb), options.out / ID
    known = file.read_text().strip() if file.is_file() else None
    online = options.wandb == "online"
    try:
        run = wandb.init(
            project=options.wandb_project or os.environ.get("WANDB_PROJECT") or "foveate",
            entity=options.wandb_entity,
            mode=options.wandb,
            dir=options.out,
            id=known,
            # Offline there is nobody to ask; runs of one id are joined by ``wandb sync --append``.
            resume="allow" if known and online else None,
            config=config.flat(),
        )
    except wandb.errors.Error as reason:
        raise ValueError(f"--wandb {options.wandb}: {reason}") from reason
    file.write_text(f"{run.id}\n")
    return run


def log_results(config: TrainConfig) -> None:
    """Add the numbers of the reports to the run's summary."""
    numbers: dict[str, float] = {}
    for name in RESULTS:
        if (path := config.run.out / name).is_file():
            numbers |= summary(json.loads(path.read_text()), path.stem)
    run = open_run(config)
    if run is not None:
        run.summary.update(numbers)
        run.finish()


def summary(content: object, place: str) -> dict[str, float]:
    """Return the numbers in nested dicts by their places, as in ``compare/orders/policy/auc``."""
    if isinstance(content, dict):
        return {
            name: number
            for key, value in content.items()
            for name, number in summary(value, f"{place}/{key}").items()
        }
    is_number = isinstance(content, int | float) and not isinstance(content, bool)
    return {place: content} if is_number else {}  # type: ignore[dict-item]


def _imported(mode: str) -> Any:
    """Import wandb, which takes seconds; offline it must ask no host at all."""
    if mode == "offline":
        # Else it looks for a host to tell of errors.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
    import wandb

    return wandb
