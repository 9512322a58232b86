"""Actions: numbers of fixations, or gaze points; checked as a whole before a step counts them."""

from __future__ import annotations

from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from foveate.choices import told
from foveate.devices import send
from foveate.orders.paths import Grid

Numbers = TypeVar("Numbers", NDArray[Any], Tensor)
ROUNDING = 1e-4
"""How far a number may lie outside its bounds, as a share of them: rescaling rounds."""


class Actions:
    """Actions of one kind, as an environment takes them.

    Args:
        num_fixations: what there is to choose from.
        points: middle of every fixation, x and y in [-1, 1]: a gaze point is then the action, which
            is moved to the nearest selectable one. None = the number of a fixation is.
        grid: rows and columns of patches, by which near is measured.
    """

    def __init__(
        self, num_fixations: int, points: Float[Tensor, "A 2"] | None, grid: Grid = (1, 1)
    ) -> None:
        self.points = points
        self.columns_rows = torch.tensor(grid[::-1])
        self.space: gym.spaces.Discrete | gym.spaces.Box = (
            gym.spaces.Discrete(num_fixations)
            if points is None
            else gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        )

    def fixations(
        self, checked: NDArray[Any] | Tensor, selectable: Bool[Tensor, "B A"]
    ) -> Int[Tensor, "B"]:
        """Return the fixation of every row, of actions that have been checked."""
        kind = np.int64 if self.points is None else np.float32
        if isinstance(checked, np.ndarray):
            checked = torch.from_numpy(checked.astype(kind))
        given = send(checked, selectable.device)
        if self.points is None:
            # A copy: whoever acts may fill the same tensor again.
            return given.to(torch.long, copy=True)
        self.points = send(self.points, selectable.device)
        self.columns_rows = send(self.columns_rows, selectable.device)
        offset = (given.float().unsqueeze(1) - self.points) * self.columns_rows
        return offset.square().sum(-1).masked_fill(~selectable, torch.inf).argmin(1)


def checked_actions(
    actions: object,
    space: gym.spaces.Discrete | gym.spaces.Box,
    rows: tuple[int, ...],
    ignored: NDArray[np.bool_] | None = None,
) -> NDArray[Any] | Tensor:
    """Return actions as an array; nothing is broadcast, rounded or clipped.

    A tensor on a GPU stays one, and its values are not looked at: the host would wait for them.

    Args:
        actions: an array, or what NumPy makes one of; or a tensor.
        space: of one action.
        rows: ``(num_envs,)`` for a batch, ``()`` for a single environment.
        ignored: rows whose actions may be any numbers (True = ignored); None = no row.

    Raises:
        ValueError: another shape or kind of number, or a number that is not finite or outside the
            space.
    """
    shape = rows + (space.shape or ())
    if isinstance(space, gym.spaces.Discrete):
        low, high, slack = float(space.start), float(space.start + space.n - 1), 0.0
        kinds, one = "iu", "a fixation"
        wanted, limits = "fixations as integers", f"{low:.0f}..{high:.0f}"
    else:
        low, high, slack = float(space.low.min()), float(space.high.max()), ROUNDING  # Of 1.
        kinds, one = "iuf", "a gaze point"
        wanted, limits = "gaze points (x, y)", f"[{low:g}, {high:g}]"
    expected = f"the action must be an array of shape {shape} with {wanted} in {limits}"
    if isinstance(actions, Tensor) and not actions.is_cpu:
        is_whole = not (actions.is_floating_point() or actions.dtype == torch.bool)
        if actions.shape != shape or not (is_whole or kinds == "iuf") or actions.is_complex():
            raise ValueError(f"{expected}; got {told(actions)}")
        return zeroed(actions.detach(), ignored)
    try:
        given = np.asarray(actions.detach() if isinstance(actions, Tensor) else actions)
    except (TypeError, ValueError, RuntimeError) as reason:
        raise ValueError(f"{expected}; got {told(actions)}") from reason
    if given.shape != shape or given.dtype.kind not in kinds:
        kind = f"an array of {given.dtype} and shape {given.shape}"
        raise ValueError(f"{expected}; got {kind}")
    given = zeroed(given, ignored)
    # NaN is on neither side of a bound.
    outside = ~((given >= low - slack) & (given <= high + slack))
    if outside.any():
        row = f" in row {int(np.argwhere(outside)[0, 0])}" if rows else ""
        raise ValueError(f"{one} must lie in {limits}, got {given[outside].flat[0]}{row}")
    return given


def zeroed(numbers: Numbers, rows: NDArray[np.bool_] | None) -> Numbers:
    """Return an array, or a tensor, with 0 in the rows that are True; None = no row is."""
    if rows is None or not rows.any():
        return numbers
    mask = rows.reshape(-1, *(1,) * (numbers.ndim - 1))
    if isinstance(numbers, Tensor):
        return numbers.masked_fill(send(torch.from_numpy(mask), numbers.device), 0)
    return np.where(mask, numbers.dtype.type(0), numbers)
