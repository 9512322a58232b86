"""Weights from files: those of a checkpoint, and those that a model starts from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agents.policies import PointerPolicy
from foveate.checkpoint import PRETRAINED, load_model
from foveate.files import expanded
from foveate.finite import not_finite
from foveate.forms import graph_at, is_timm_folder
from foveate.model import AnyOrderTransformer
from foveate.model.teachers import AverageTeacher, Teacher
from foveate.model.timm_import import TimmWeights, read_timm, start_from_timm
from foveate.targets import Features

FREE_AT_START = (
    "init",
    "num_targets",
    "error_loss_weight",
    "label_smoothing",
    "word_weight",
    "image_weight",
)
"""What may differ between a model and the one that it starts from: it shapes no function of it."""


def start_from(model: AnyOrderTransformer, teacher: Teacher | None, source: str) -> None:
    """Give a model, and the teacher of its own weights, the weights of another's.

    The other is a model of ours, or a vision transformer of timm. Of that one the encoder takes the
    weights, and all parts beside it stay as they start.

    Raises:
        ValueError: there is no such model, its weights are not finite, or it has other parts or
            sizes.
    """
    start = _model_or_timm(source)
    weights = start.weights if isinstance(start, TimmWeights) else start.state_dict()
    if place := not_finite({"model": weights}):
        raise ValueError(
            f"the model in {source} holds a weight that is not finite, {place}; start from another"
        )
    known = None
    if isinstance(start, TimmWeights):
        start_from_timm(model, start, source)
    else:
        _check_same_parts(model, start, source)
        model.load_state_dict(weights)
        known = start.target.teacher if isinstance(start.target, Features) else None
    if isinstance(teacher, AverageTeacher):
        if known is None:  # It holds a model alone.
            teacher.average.module.load_state_dict(model.state_dict())
        else:
            teacher.load_state_dict(known.state_dict())


def _model_or_timm(source: str) -> AnyOrderTransformer | TimmWeights:
    """Load a model of ours, or read weights of timm's.

    Raises:
        ValueError: it is neither.
    """
    path = expanded(source)
    folder = path if path.is_dir() else path.parent
    if source not in PRETRAINED and path.exists() and is_timm_folder(folder):
        return read_timm(path)
    try:
        return load_model(source)
    except ValueError as not_ours:
        if not path.is_file() or graph_at(path):
            raise
        try:
            found = read_timm(path)
        except ValueError as not_timm:
            raise ValueError(f"{not_ours}; {not_timm}") from not_timm
    print(
        f"note: {source} says neither its number of heads nor its pixel units; taken are those of "
        "this model",
        file=sys.stderr,
    )
    return found


def _check_same_parts(model: AnyOrderTransformer, start: AnyOrderTransformer, source: str) -> None:
    """Raise ValueError unless two models have the same parts and sizes."""
    ours, theirs = vars(model.config), vars(start.config)
    # Only a model of colors has a palette.
    free = FREE_AT_START if model.config.reads_colors else (*FREE_AT_START, "num_colors")
    differ = [
        f"another {name}" if isinstance(value, tuple) else f"{name} {theirs[name]}, not {value}"
        for name, value in ours.items()
        if theirs[name] != value and name not in free
    ]
    if differ:
        raise ValueError(
            f"the model in {source} cannot be the start of this one: it has {', '.join(differ)}"
        )


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
