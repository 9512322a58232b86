"""Checkpoints: read with clear complaints, and models by name or path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from foveate.config import ModelConfig
from foveate.model import AnyOrderTransformer

CHECKPOINT = "checkpoint.pt"
"""Name of the checkpoint in a run folder."""
ASSETS = Path(__file__).parent / "assets"
PRETRAINED = {"scenes": ASSETS / "scenes.pt", "cue": ASSETS / "cue.pt"}
"""Small models that ship with the package: of the default data, and of the cue world for tests."""


def read_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint file.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise ValueError(
            f"no checkpoint at {path}; train one with: "
            f"python -m experiments.train PRESET --out {path.parent}"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as reason:
        raise ValueError(
            f"{path} is not a readable foveate checkpoint ({type(reason).__name__})"
        ) from reason
    return state


def check_device(device: str) -> None:
    """Raise ValueError unless torch can use the device."""
    try:
        torch.empty(1, device=device).item()
    except Exception as reason:
        # torch raises this and that, such as ModuleNotFoundError for a backend of others.
        line = str(reason).strip().splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {line}") from reason
    if device.startswith("cpu:"):
        raise ValueError(f"device {device!r} cannot be used here: all processors are one, cpu")


def load_model(source: str | Path, device: str = "cpu") -> AnyOrderTransformer:
    """Load a model, in eval mode.

    Args:
        source: a key of PRETRAINED, a run folder, or a checkpoint file.
        device: where the model goes.

    Raises:
        ValueError: no such checkpoint, one that holds no model of ours, or no such device.
    """
    check_device(device)
    path = PRETRAINED.get(str(source), Path(source))
    state = read_checkpoint(path / CHECKPOINT if path.is_dir() else path, device)
    try:
        model = AnyOrderTransformer(ModelConfig(**state["model_config"]))
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as reason:
        raise ValueError(
            f"{path} holds no model of this version of foveate ({' '.join(str(reason).split())})"
        ) from reason
    return model.to(device).eval()


def save_model(model: AnyOrderTransformer, path: Path) -> None:
    """Write the weights and sizes of a model, for :func:`load_model`."""
    torch.save({"model_config": vars(model.config), "model": model.state_dict()}, path)
