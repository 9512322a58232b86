"""Saccades: how far the gaze moves between successive fixations, in patches.

A fixation looks at the middle of its patches. Movements from nowhere, before the first fixation,
and to or from a fixation of no patch have length 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.finite import check_price
from foveate.orders.paths import Grid
from foveate.orders.ranks import as_segments


def check_saccade_cost(cost: object) -> float:
    """Return a cost per patch of distance; raise ValueError unless it may be taken from rewards."""
    return check_price("saccade_cost", cost)


def centers_of(segments: Int[Tensor, "*B S"], grid: Grid) -> Float[Tensor, "*B 2"]:
    """Return row and column of the middle of each segment's patches; NaN if it holds none.

    Args:
        segments: patches in raster order; -1 = padding.
        grid: rows and columns of patches.
    """
    exists, place = (segments >= 0).unsqueeze(-1), segments.clamp_min(0)
    cells = torch.stack([place // grid[1], place % grid[1]], dim=-1).float()
    return (cells * exists).sum(-2) / exists.sum(-2)


def distances(origin: Float[Tensor, "*#B 2"], to: Float[Tensor, "*#B 2"]) -> Float[Tensor, "*B"]:
    """Return the Euclidean distance between rows and columns, patches; 0 where one is NaN."""
    return (to - origin).norm(dim=-1).nan_to_num(0.0)


def saccades(origin: Int[Tensor, "B S"], to: Int[Tensor, "B K"], grid: Grid) -> Float[Tensor, "B"]:
    """Return the distance between the middles of two segments in every row, patches."""
    return distances(centers_of(origin, grid), centers_of(to, grid))


def path_length(order: Int[Tensor, "B T *S"], grid: Grid) -> Float[Tensor, "B"]:
    """Return the summed length of each scanpath's saccades, patches.

    An episode charges the way between the segments that were chosen. Where segments overlap, its
    ``order`` holds only what each fixation newly opened, so that the length may differ.

    Args:
        order: the patch of each step, (B, T), or its segment, (B, T, S), padded with -1.
        grid: rows and columns of patches.
    """
    centers = centers_of(as_segments(order), grid)
    lengths: Tensor = distances(centers[:, :-1], centers[:, 1:]).sum(1)
    return lengths
