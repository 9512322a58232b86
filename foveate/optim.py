"""How weights are updated: schedules, and Muon in float32 unless on a GPU."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, overload

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CosineDecay:
    """A rate of each step: up to its peak along a line, then down to a floor along a cosine.

    ``peak * max(floor, (1 + cos(pi * progress)) / 2) * min(1, steps since ramp_start / ramp)``,
    where progress goes from 0 at ``start`` to 1 at ``end``.

    Reference: Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.
    """

    peak: float
    end: int
    """Step at which the cosine ends."""
    start: int = 0
    """Step at which it begins."""
    floor: float = 0.0
    """Least share of the peak; 1 = no decay."""
    ramp_start: int = 0
    """First step of the way up; the rate of those before it is 0."""
    ramp: int = 1
    """Steps of the way up; after 1 the rate is at its peak at once."""

    def __call__(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        progress = min(1.0, max(0, step - self.start) / max(1, self.end - self.start))
        decay = 0.5 * (1 + math.cos(math.pi * progress))
        risen = max(0, step - self.ramp_start + 1) / self.ramp
        return self.peak * max(decay, self.floor) * min(1.0, risen)


@dataclass(frozen=True, kw_only=True)
class LinearRamp:
    """A number that goes along a line: ``first`` at step ``start``, ``last`` at step ``end``.

    It keeps these values before and after.
    """

    first: float
    last: float
    end: int
    """Step from which on it is ``last``."""
    start: int = 0
    """Step up to which it is ``first``."""

    def __call__(self, step: int) -> float:
        """Return the number at a step, counted from 0."""
        length = max(1, self.end - self.start)
        progress = min(1.0, max(0, step - self.start) / length)
        return self.first + (self.last - self.first) * progress


def set_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of all that the optimizers update."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


class Muon(torch.optim.Muon):
    """torch's Muon, its state and its learning rate ``match_rms_adamw``, with a step of its own.

    By hand, for two reasons. The optimizers of torch and timm orthogonalize in bfloat16, which on a
    processor without such arithmetic takes hundreds of times as long as float32. Here it is
    bfloat16 on CUDA and float32 elsewhere. And they take one matrix at a time, so that the small
    matrices of a narrow model are mostly overhead.

    Reference: Jordan et al. 2024 (KellerJordan/Muon); the scale of updates is Moonlight's (Liu et
    al. 2025, arXiv 2502.16982). Newton-Schulz iterations are timm's.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    same_shape[matrix.shape].append(matrix)
            for shape, matrices in same_shape.items():
                updates = self._orthogonal(
                    [self._momentum(each, group) for each in matrices], group
                )
                scale = 0.2 * max(shape) ** 0.5
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(update, alpha=group["lr"] * scale)
        return loss

    def _momentum(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """Average the gradient into the momentum and return Nesterov's look ahead."""
        gradient = matrix.grad
        assert gradient is not None, "matrices without a gradient are left out"
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(buffer, group["momentum"])

    @staticmethod
    def _orthogonal(matrices: list[Tensor], group: dict[str, Any]) -> Tensor:
        stack = torch.stack(matrices)
        dtype = torch.bfloat16 if stack.is_cuda else torch.float32
        return zeropower_via_newtonschulz(
            stack,
            group["ns_steps"],
            [group["ns_coefficients"]],
            eps=group["eps"],
            dtype=dtype,
        ).to(stack.dtype)
