"""Draws that follow from a seed or a generator, the same on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.devices import send

T = TypeVar("T")


def seeded(draw: Callable[[], T], seed: int) -> T:
    """Return what draws from torch's global CPU generator, as of a seed; its state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return draw()


def gumbel(like: Float[Tensor, "..."], generator: torch.Generator | None) -> Float[Tensor, "..."]:
    """Draw standard Gumbel noise on the CPU, of a tensor's shape, moved to its device and dtype."""
    uniform = torch.rand(like.shape, generator=generator).clamp_min(1e-20)
    return send((-(-uniform.log()).log()).to(like.dtype), like.device)


def sample(logits: Float[Tensor, "... K"], generator: torch.Generator | None) -> Int[Tensor, "..."]:
    """Draw one index per row.

    By hand, since torch.distributions takes no generator and torch.multinomial only one of the
    logits' device: noise from the CPU makes the same draw on every device.
    """
    return (logits + gumbel(logits, generator)).argmax(-1)
