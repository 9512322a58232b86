"""Weights from files: those of a checkpoint, and those that a model starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.policies import PointerPolicy
from foveate.checkpoint import load_model
from foveate.finite import not_finite
from foveate.model import AnyOrderTransformer
from foveate.model.teachers import AverageTeacher, Teacher
from foveate.targets import Features

FREE_AT_START = ("init", "num_targets", "error_loss_weight", "label_smoothing")
"""What may differ between a model and the one that it starts from: it shapes no function of it."""


def start_from(model: AnyOrderTransformer, teacher: Teacher | None, source: str) -> None:
    """Give a model, and the teacher of its own weights, the weights of another's.

    Raises:
        ValueError: there is no such model, its weights are not finite, or it has other parts or
            sizes.
    """
    start = load_model(source)
    ours, theirs = vars(model.config), vars(start.config)
    # Only a model of colors has a palette.
    free = FREE_AT_START if model.config.reads_colors else (*FREE_AT_START, "num_colors")
    differ = [
        f"{name} {theirs[name]}, not {value}"
        for name, value in ours.items()
        if theirs[name] != value and name not in free
    ]
    if differ:
        raise ValueError(
            f"the model in {source} cannot be the start of this one: it has {', '.join(differ)}"
        )
    if place := not_finite({"model": start.state_dict()}):
        raise ValueError(
            f"the model in {source} holds a weight that is not finite, {place}; start from another"
        )
    model.load_state_dict(start.state_dict())
    if isinstance(teacher, AverageTeacher):
        known = start.target.teacher if isinstance(start.target, Features) else None
        if known is None:  # Its checkpoint holds a model alone.
            teacher.average.module.load_state_dict(start.state_dict())
        else:
            teacher.load_state_dict(known.state_dict())


def load_weights(
    model: AnyOrderTransformer, policy: PointerPolicy, state: dict[str, Any], directory: Path
) -> None:
    """Load the weights of a checkpoint.

    Raises:
        ValueError: the checkpoint is of another shape, or holds a weight that is not finite.
    """
    try:
        model.load_state_dict(state["model"])
        policy.load_state_dict(state["policy"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as reason:
        line = str(reason).strip().splitlines()[-1].strip()
        raise ValueError(
            f"the checkpoint in {directory} is of another shape than its config: {line}"
        ) from reason
    if place := not_finite({name: state[name] for name in ("model", "policy")}):
        raise ValueError(
            f"the checkpoint in {directory} holds a weight that is not finite, {place}; "
            "take an earlier one, or train anew"
        )
