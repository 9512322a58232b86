"""In which form an environment hands out numbers: arrays on the CPU, or tensors where they lie.

Tensors are the episode's own, without a copy: do not write to them. DLPack hands them on to other
libraries. The host waits for no GPU then. So its values are not checked, neither actions nor
rewards, and the scan is static.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray
from torch import Tensor

from foveate.devices import send

Output = Literal["numpy", "torch"]
PAID_IN = {"numpy": torch.float64, "torch": torch.float32}
"""Precision of rewards: that of gymnasium, and that in which learners in torch compute."""
Given: TypeAlias = Any
"""A tensor, an array, or a dict of such."""
Observations: TypeAlias = NDArray[Any] | Tensor | dict[str, NDArray[Any]] | dict[str, Tensor]
"""Arrays, or with ``output="torch"`` tensors, as of all that a step returns."""
Told: TypeAlias = tuple[Observations, Given, Given, Given, dict[str, Any]]
"""What a step returns: observation, reward, whether terminated and truncated, and ``info``."""


def to_numpy(values: Tensor) -> NDArray[Any]:
    """Return a tensor as an array on the CPU.

    Without a copy, which would cost a tenth of a step: a step makes new tensors and changes none
    that an observation has shown.
    """
    array: NDArray[Any] = values.detach().cpu().numpy()
    return array


def handed_out(values: Given, output: str, device: torch.device) -> Given:
    """Return tensors and arrays in one form; what has it already is not copied.

    Args:
        values: a tensor, an array, or a dict or tuple of such.
        output: ``numpy``: arrays on the CPU. ``torch``: detached tensors on ``device``, for which
            the host does not wait.
        device: of the model.
    """
    if isinstance(values, tuple):
        return tuple(handed_out(each, output, device) for each in values)
    if isinstance(values, dict):
        return {name: handed_out(each, output, device) for name, each in values.items()}
    if output == "torch":
        tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values.detach()
        return send(tensor, device)
    return to_numpy(values) if isinstance(values, Tensor) else values


def ended_info(
    observation: Given, info: dict[str, Any], ended: NDArray[np.bool_], space: gym.Space[Any]
) -> dict[str, Any]:
    """Return what ``info`` tells of the rows that have ended: ``final_obs`` and ``final_info``.

    As gymnasium has them, arrays of observations come one by one, and None for the other rows.
    Tensors stay as they are, of all rows, so that none is taken apart.

    Args:
        observation: the last of every row, as it is handed out.
        info: what was told beside it.
        ended: which rows have ended (True = ended).
        space: of the observations of all rows.
    """
    parts = observation.values() if isinstance(observation, dict) else (observation,)
    last = observation
    if not any(isinstance(each, Tensor) for each in parts):
        last = np.full(len(ended), None, dtype=object)
        for row, seen in enumerate(iterate(space, observation)):
            if ended[row]:
                last[row] = seen
    known = {"_final_obs": ended.copy(), "_final_info": ended}
    # What is known of rows that go on is no end of theirs.
    info = {name: ended.copy() if name[0] == "_" else told for name, told in info.items()}
    return {"final_obs": last, "final_info": info, **known}
