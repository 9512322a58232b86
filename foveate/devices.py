"""Where weights lie, and from the processor to there, without waiting.

What is drawn and counted here is used there.
"""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor, nn


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's weights lie."""
    return next(module.parameters()).device


def name_of_device(device: torch.device | str) -> str:
    """Return what a GPU of this machine is called, or of another device how torch writes it."""
    place = torch.device(device)
    is_here = place.type == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_name(place) if is_here else str(place)


def send(values: Shaped[Tensor, "..."], device: torch.device | str) -> Shaped[Tensor, "..."]:
    """Return values on a device; the host goes on before a GPU has them.

    From memory that is not pinned, a copy makes the host wait for all that the GPU has to do.
    torch keeps the pinned memory until the copy is done; a GPU has them contiguous. In the other
    direction, from a device to the processor, the host must wait, and does.
    """
    place = torch.device(device)
    if not values.is_cpu:
        return values.to(place)
    if place.type == "cuda":
        # Pinned memory has the same strides, which one of many readers cannot write.
        values = values.contiguous().pin_memory()
    return values.to(place, non_blocking=True)
