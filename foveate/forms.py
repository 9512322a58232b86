"""Forms of an export that hold no whole model: which one lies at a path, and what loads it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""Files of an exported folder, by the names that timm and the Hub look for."""
PROGRAM, ONNX = "encoder.pt2", "encoder.onnx"
"""Files of an exported graph."""
GRAPHS = {
    PROGRAM: ("torch.export", "torch.export.load({!r}).module()"),
    ONNX: ("ONNX", "onnxruntime.InferenceSession({!r})"),
}
"""What each graph is called, and what loads it."""


def is_timm_folder(folder: Path) -> bool:
    """Whether a folder holds a config.json as timm and the Hub write it."""
    try:
        return "architecture" in json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def graph_at(path: Path) -> str | None:
    """Say which graph a file is or a folder holds, and what loads it; None = none."""
    for name, (kind, load) in GRAPHS.items():
        file = path / name if path.is_dir() else path
        if file.suffix == Path(name).suffix and file.is_file():
            return f"{file} is the encoder as a graph of {kind}, for {load.format(str(file))}"
    return None


def encoder_at(path: Path) -> str | None:
    """Say which encoder alone lies at a path, a graph or timm's, and what loads it; None = none."""
    if graph := graph_at(path):
        return graph
    folder = path if path.is_dir() else path.parent
    if is_timm_folder(folder) and (path.is_dir() or path.name == WEIGHTS):
        return (
            f"{path} is an encoder for timm, for "
            f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"
        )
    if path.suffix == ".safetensors" and path.is_file() and _is_of_timm(path):
        return f"{path} holds weights of timm's, for timm.create_model(..., checkpoint_path=...)"
    return None


def _is_of_timm(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return "patch_embed.proj.weight" in file.keys()
    except (OSError, SafetensorError):
        return False
