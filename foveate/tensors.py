"""Nested states with tensors as one safetensors file, which holds data only and no code.

Tensors are stored under their path in the state. All else is JSON in the file's metadata, beside a
checksum of both. A state that is read back equals the one written, type by type.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from foveate.files import replacing

Tensors = dict[str, Tensor]


def write_state(path: Path, state: object) -> None:
    """Write a state of dicts, lists, tuples, tensors, numbers, strings, bools and None.

    Raises:
        ValueError: the file cannot be written.
        TypeError: the state holds something else.
    """
    tensors: Tensors = {}
    outline = json.dumps(_encode(state, (), tensors), allow_nan=False)
    metadata = {"state": outline, "sha256": _checksum(outline, tensors)}
    content = safetensors.torch.save(tensors, metadata)
    with replacing(path) as file:
        file.write(content)


def read_state(path: Path) -> Any:
    """Read what :func:`write_state` wrote, into memory of the CPU.

    Raises:
        ValueError: the file is damaged, or none of ours.
    """
    outline, checksum, tensors = _read(path, with_tensors=True)
    if _checksum(outline, tensors) != checksum:
        raise ValueError("its checksum is another")
    return _decode(json.loads(outline), tensors.__getitem__)


def read_outline(path: Path) -> Any:
    """Read a state without its tensors, of which it has the names instead; no checksum is taken.

    Raises:
        ValueError: the file is damaged, or none of ours.
    """
    outline, _, _ = _read(path, with_tensors=False)
    return _decode(json.loads(outline), lambda name: name)


def _read(path: Path, *, with_tensors: bool) -> tuple[str, str, Tensors]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if with_tensors else []
            # Clones: the others would lie in a file that is soon replaced.
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except Exception as reason:
        line = " ".join(str(reason).split())
        raise ValueError(line or type(reason).__name__) from reason
    if not {"state", "sha256"} <= set(metadata):
        raise ValueError("a safetensors file without a state of foveate")
    return metadata["state"], metadata["sha256"], tensors


def digest(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of all values, on whichever device they lie."""
    found = hashlib.sha256()
    for each in tensors:
        found.update(f"{each.dtype} {tuple(each.shape)}".encode())
        found.update(each.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _checksum(outline: str, tensors: Tensors) -> str:
    """Digest everything that a state is made of."""
    digest = hashlib.sha256(outline.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(value: object, path: tuple[str, ...], tensors: Tensors) -> Any:
    """Return the JSON form of a value, and collect its tensors.

    JSON has lists, but neither tuples nor keys that are no strings, nor numbers that are not
    finite; these and tensors become an object of one tag. Exact types count: a number of numpy is
    a float to ``isinstance``.
    """
    if isinstance(value, Tensor):
        return {"tensor": _keep(value, path, tensors)}
    if isinstance(value, (np.generic, np.ndarray)):
        return {"numpy": _keep(torch.from_numpy(np.array(value)), path, tensors)}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple)):
        items = [_encode(each, (*path, str(at)), tensors) for at, each in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {
            "dict": [
                [_encode(key, path, tensors), _encode(each, (*path, str(key)), tensors)]
                for key, each in value.items()
            ]
        }
    raise TypeError(f"{'/'.join(path)} is a {type(value).__name__}, which no checkpoint holds")


def _keep(tensor: Tensor, path: tuple[str, ...], tensors: Tensors) -> str:
    """Collect a tensor, which may share its memory with others, and return its name."""
    name = "/".join(path) or "tensor"
    while name in tensors:
        name += "'"
    tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def _decode(value: Any, tensor: Callable[[str], Any]) -> Any:
    """Return the value of a JSON form; ``tensor`` gives what stands for a name."""
    if isinstance(value, list):
        return [_decode(each, tensor) for each in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    match tag:
        case "tensor":
            return tensor(content)
        case "numpy":
            held = tensor(content)
            return held.numpy()[()] if isinstance(held, Tensor) else held
        case "float":
            return float(content)
        case "tuple":
            return tuple(_decode(each, tensor) for each in content)
        case _:
            return {_decode(key, tensor): _decode(each, tensor) for key, each in content}
