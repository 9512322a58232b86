"""Learning rates over a run, and Muon, which orthogonalizes matrices of one shape together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor


def warm_up(step: int, length: int) -> float:
    """Share of the learning rate at a step: it rises linearly to 1 at step ``length - 1``.

    Steps before 0, of what does not learn yet, have none of it.
    """
    return min(1.0, max(step + 1, 0) / length)


def cosine_decay(step: int, total: int, floor: float = 0.0) -> float:
    """Share of the learning rate at a step: half a cosine from 1 at step 0 to 0 at ``total``.

    It stays at 1 before step 0, and never falls below ``floor``.
    """
    progress = max(0, step) / max(1, total)
    return max(0.5 * (1 + math.cos(math.pi * progress)), floor)


class Muon(torch.optim.Muon):
    """torch's Muon, its state and its learning rate ``match_rms_adamw``, with a step of its own.

    By hand, since the optimizers of torch and timm orthogonalize in bfloat16, for which a processor
    without such arithmetic takes hundreds of times as long as for float32, and one matrix at a
    time, which leaves the small matrices of a narrow model to overhead. Here it is bfloat16 on
    CUDA and float32 elsewhere.

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
        assert gradient is not None
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
