"""One step of a learner: its gradient is summed, clipped, and taken only if it is finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from experiments.training.distributed import Processes
from foveate.finite import NotFinite

LEAST_RATE = 0.05
"""Share of the peak learning rate that is left at the end, of policy and model.

The policy's orders change until then.
"""


def clip_and_step(
    module: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    processes: Processes,
    learner: str = "model",
    images: Sequence[Int[Tensor, "B"]] = (),
) -> None:
    """Take one step of a module's optimizers with :func:`clip`, then forget its gradient."""
    clip(module, processes, learner, images)
    take_step(module, optimizers)


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
) -> None:
    """Sum a module's gradient over processes, and clip it to norm 1.

    Args:
        module: what learns.
        processes: those that train together.
        learner: what an error calls the module.
        images: numbers of the images that it learns from, for an error.

    Raises:
        NotFinite: the gradient is not finite in any process; nothing is updated in all of them.
    """
    processes.sum_gradients(module)
    norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    # Clipping has read every gradient: of what it returns one look tells of them all.
    length = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if not math.isfinite(length):
        module.zero_grad()
        raise NotFinite(f"the {learner}'s gradient is {length}", images, cause=learner)
