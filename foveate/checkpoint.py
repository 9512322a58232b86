"""Checkpoints: written whole, read with clear complaints, and models by name or path.

A run folder keeps its newest checkpoint as CHECKPOINT and earlier ones under their iterations. If
one is damaged, the one before is read.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foveate.config import ModelConfig
from foveate.data.notes import say_once
from foveate.files import expanded, replacing
from foveate.finite import not_finite
from foveate.forms import WEIGHTS, encoder_at, is_timm_folder
from foveate.model import AnyOrderTransformer
from foveate.model.teachers import AverageTeacher, attach_teacher
from foveate.targets import Features
from foveate.tensors import read_outline, read_state, write_state

CHECKPOINT = "checkpoint.safetensors"
"""Name of the newest checkpoint in a run folder."""
MANIFEST = "manifest.json"
"""What a run's result depends on beside its config, in its folder."""
OLD_CHECKPOINT = "checkpoint.pt"
"""Name of the only checkpoint in run folders of version 0.1."""
ASSETS = Path(__file__).parent / "assets"
PRETRAINED = {
    name: ASSETS / f"{name}.safetensors"
    for name in (
        "scenes",
        "scenes_blind",
        "scenes_rgb",
        "scenes_rgb_blind",
        "scenes_rgb_96",
        "scenes_rgb_96_blind",
        "cue",
    )
}
"""Small models that ship with the package: of gray scenes and of RGB ones, with a thumbnail or
blind, of 32 or 96 pixels; and of the cue world for tests."""
_EARLIER = re.compile(r"checkpoint-(\d+)\.safetensors")
_PARTS_OF_A_MODEL: Mapping[str, type] = {"model_config": dict, "model": dict}


@dataclass(frozen=True)
class FoundCheckpoint:
    """The newest checkpoint of a run folder that can be read."""

    state: dict[str, Any]
    path: Path
    damaged: tuple[Path, ...]
    """Newer ones, which cannot."""


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the checkpoints of a run folder, the newest first."""
    found = [directory / CHECKPOINT] if (directory / CHECKPOINT).exists() else []
    earlier = {
        int(match[1]): path
        for path in directory.glob("checkpoint-*.safetensors")
        if (match := _EARLIER.fullmatch(path.name))
    }
    found += [earlier[at] for at in sorted(earlier, reverse=True)]
    return found + [each for each in (directory / OLD_CHECKPOINT,) if each.exists()]


def read_newest(directory: Path, parts: Mapping[str, type] = _PARTS_OF_A_MODEL) -> FoundCheckpoint:
    """Read the newest checkpoint of a run folder that is whole, and say which newer ones are not.

    Args:
        directory: the run folder.
        parts: what the checkpoint has to hold, and of which type.

    Raises:
        ValueError: there is none, or all are damaged.
    """
    complaints: dict[Path, str] = {}
    for path in checkpoints_in(directory):
        try:
            state = read_checkpoint(path, parts)
        except ValueError as reason:
            complaints[path] = str(reason)
            continue
        for complaint in complaints.values():
            taken = f"{path.name} of iteration {state.get('iteration')} is taken instead"
            print(f"warning: {complaint}; {taken}", file=sys.stderr)
        return FoundCheckpoint(state, path, tuple(complaints))
    if not complaints:
        raise ValueError(
            f"no checkpoint at {directory / CHECKPOINT}; train one with: "
            f"python -m experiments.train PRESET --out {directory}"
        )
    others = f", nor is any of the {len(complaints) - 1} before it" if len(complaints) > 1 else ""
    raise ValueError(f"{next(iter(complaints.values()))}{others}; train anew with another --out")


def read_checkpoint(path: Path, parts: Mapping[str, type] = _PARTS_OF_A_MODEL) -> dict[str, Any]:
    """Read a checkpoint file, of this version or of 0.1, into memory of the CPU.

    Raises:
        OSError: it cannot be read now.
        ValueError: there is none, it is damaged, or one of the parts is missing or of another type.
    """
    if not path.exists():
        raise ValueError(
            f"no checkpoint at {path}: the path does not exist; give a run folder, a checkpoint "
            f"file, or a model that ships ({', '.join(PRETRAINED)})"
        )
    try:
        state = _read_old(path) if path.is_file() and _is_zip(path) else read_state(path)
    except Exception as reason:
        if isinstance(reason, OSError) and reason.errno not in (None, errno.EISDIR, errno.EINVAL):
            raise  # The file cannot be read now, which says nothing of what is in it.
        why = " ".join(str(reason).split()) if type(reason) is ValueError else type(reason).__name__
        raise ValueError(f"{path} is not a readable foveate checkpoint ({why})") from reason
    held = state if isinstance(state, dict) else {}
    missing = [part for part, kind in parts.items() if not isinstance(held.get(part), kind)]
    if missing:
        raise ValueError(
            f"{path} is not a readable foveate checkpoint (no proper {', '.join(missing)} in it)"
        )
    whole: dict[str, Any] = state
    return whole


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_old(path: Path) -> Any:
    """Read a file of torch.save; torch runs no code of it, but takes no notice of flipped bits."""
    with zipfile.ZipFile(path) as archive:
        if (record := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {record} is another")
    return torch.load(path, map_location="cpu", weights_only=True)


def save_checkpoint(directory: Path, state: dict[str, Any], keep: int = 2) -> None:
    """Write the newest checkpoint of a run folder, and keep so many in all.

    Whatever interrupts it leaves a folder whose newest checkpoint is whole.

    Raises:
        ValueError: weights of the model or of the policy are not finite, or the file cannot be
            written; what was there before is kept.
    """
    newest = directory / CHECKPOINT
    if place := not_finite({part: state[part] for part in ("model", "policy")}):
        good = checkpoints_in(directory)[:1]
        last = f"the last good one is {good[0]}" if good else "there is none yet"
        raise ValueError(
            f"{place} is not finite after iteration {state['iteration']}, hence no checkpoint of "
            f"it; {last}"
        )
    iteration = _iteration_of(newest)
    if keep > 1 and iteration is not None and iteration != state["iteration"]:
        _keep_beside(newest, directory / f"checkpoint-{iteration:06d}.safetensors")
    write_state(newest, state)
    for path in checkpoints_in(directory)[keep:]:
        path.unlink()


def _iteration_of(path: Path) -> int | None:
    """Return the iteration of a checkpoint of this version; None if it says none."""
    try:
        return int(read_outline(path)["iteration"])
    except Exception:
        return None


def _keep_beside(path: Path, other: Path) -> None:
    """Give a file another name as well; where the disk cannot, copy it."""
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:
        with path.open("rb") as source, replacing(other) as copy:
            shutil.copyfileobj(source, copy)


def check_device(device: str | torch.device) -> None:
    """Raise ValueError unless torch can use the device."""
    try:
        # Losses and returns are summed in float64, which not all devices have.
        torch.empty(1, dtype=torch.float64, device=device).item()
    except Exception as reason:
        # torch raises this and that, such as ModuleNotFoundError for a backend of others.
        line = str(reason).strip().splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {line}") from reason
    if str(device).startswith("cpu:"):
        raise ValueError(
            f"device {device!r} cannot be used here: torch does not number processors; write cpu"
        )


def load_model(source: str | Path, device: str | torch.device = "cpu") -> AnyOrderTransformer:
    """Load a model, in eval mode.

    Args:
        source: a key of PRETRAINED, even where a folder has its name; a run folder; a folder that
            ``foveate.export`` wrote as safetensors; or a checkpoint file.
        device: where the model goes.

    Raises:
        ValueError: no such checkpoint, one that holds no model of ours, an export of the encoder
            alone, or no such device.
    """
    check_device(device)
    path = PRETRAINED.get(str(source), expanded(source))
    if str(source) in PRETRAINED and checkpoints_in(Path(str(source))):
        say_once(f"{source} is the model that ships; the folder of that name is ./{source}")
    if not checkpoints_in(path):
        # A graph of the encoder may lie beside a whole model.
        whole = (path / WEIGHTS).is_file() and not is_timm_folder(path)
        if not whole and (encoder := encoder_at(path)):
            raise ValueError(
                f"{encoder}; a whole model is exported with: "
                "python -m experiments.export --run DIR --to safetensors"
            )
        if (path / WEIGHTS).is_file():
            path /= WEIGHTS
    state = read_newest(path).state if path.is_dir() else read_checkpoint(path)
    try:
        # The first weights are replaced: whoever seeds torch's generator finds it as it was.
        with torch.random.fork_rng(devices=[]):
            model = AnyOrderTransformer(ModelConfig(**state["model_config"]))
        model.load_state_dict(state["model"])
        model = model.to(device).eval()
        # A timm model leaves no state: whoever scans its features attaches it.
        if isinstance(model.target, Features) and state.get("teacher"):
            teacher = AverageTeacher(model)
            teacher.load_state_dict(state["teacher"])
            attach_teacher(model, teacher)
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as reason:
        raise ValueError(
            f"{path} holds no model of this version of foveate ({' '.join(str(reason).split())})"
        ) from reason
    return model


def save_model(model: AnyOrderTransformer, path: Path) -> None:
    """Write the weights and sizes of a model, for :func:`load_model`, and its teacher's state."""
    state = {"model_config": vars(model.config), "model": model.state_dict()}
    if isinstance(model.target, Features) and model.target.teacher is not None:
        state["teacher"] = model.target.teacher.state_dict()
    write_state(path, state)
