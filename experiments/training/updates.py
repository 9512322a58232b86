"""One step of a learner: its gradient is summed, clipped, and taken only if it is finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from experiments.training.distributed import Processes
from foveate.finite import NotFinite


def clip_and_step(
    module: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    processes: Processes,
    learner: str = "model",
    images: Sequence[Int[Tensor, "B"]] = (),
    loss: Float[Tensor, ""] | None = None,
) -> float | None:
    """Take one step of a module's optimizers with :func:`clip`, then forget its gradient."""
    value = clip(module, processes, learner, images, loss)
    take_step(module, optimizers)
    return value


def take_step(module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Take one step of a module's optimizers, then forget its gradient."""
    for optimizer in optimizers:
        optimizer.step()
    module.zero_grad()


def clip(
    module: nn.Module,
    processes: Processes,
    learner: str = "model",
    images: Sequence[Int[Tensor, "B"]] = (),
    loss: Float[Tensor, ""] | None = None,
) -> float | None:
    """Sum a module's gradient over processes, clip it to norm 1, and return the summed loss.

    The host waits for the device once: here it looks at the loss and at the gradient together.

    Args:
        module: what learns.
        processes: those that train together.
        learner: what an error calls the module.
        images: numbers of the images that it learns from, for an error.
        loss: this process's part of the loss; None = the gradient alone tells.

    Raises:
        NotFinite: the loss or the gradient is not finite in any process; nothing is updated in all
            of them.
    """
    processes.sum_gradients(module)
    norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    # Clipping has read every gradient: of what it returns one look tells of them all.
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    looked_at = [norm] if loss is None else [norm, loss]
    length, *parts = torch.stack([each.double() for each in looked_at]).tolist()
    value = processes.sum(parts)[0] if parts else None
    if value is not None and not math.isfinite(value):
        module.zero_grad()
        raise NotFinite(f"the loss is {value}", images, cause=learner)
    if not math.isfinite(length):
        module.zero_grad()
        raise NotFinite(f"the {learner}'s gradient is {length}", images, cause=learner)
    return value
