"""Paths over a grid: the patches in visiting order, the same for all images.

``foveate.orders`` makes an ordering of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Grid = tuple[int, int]


def grid_cells(grid: Grid) -> list[tuple[int, int]]:
    """Return row and column of every patch, in raster order."""
    return [(row, col) for row in range(grid[0]) for col in range(grid[1])]


def _sorted_cells(grid: Grid, key: Callable[[tuple[int, int]], Any]) -> list[int]:
    return [row * grid[1] + col for row, col in sorted(grid_cells(grid), key=key)]


def _raster(grid: Grid) -> list[int]:
    return _sorted_cells(grid, lambda cell: cell)


def _column(grid: Grid) -> list[int]:
    return _sorted_cells(grid, lambda cell: (cell[1], cell[0]))


def _snake(grid: Grid) -> list[int]:
    return _sorted_cells(grid, lambda cell: (cell[0], -cell[1] if cell[0] % 2 else cell[1]))


def _spiral_in(grid: Grid) -> list[int]:
    """Clockwise from the top left corner inward."""
    ring = [[row * grid[1] + col for col in range(grid[1])] for row in range(grid[0])]
    path: list[int] = []
    while ring:
        path += ring.pop(0)
        ring = [list(line) for line in zip(*ring, strict=True)][::-1]
    return path


def _spiral_out(grid: Grid) -> list[int]:
    return _spiral_in(grid)[::-1]


def _center_out(grid: Grid) -> list[int]:
    """By distance to the center of the grid; equal distances clockwise.

    They begin above the left; the left itself comes last.
    """
    middle = (grid[0] - 1) / 2, (grid[1] - 1) / 2

    def key(cell: tuple[int, int]) -> tuple[float, float]:
        down, right = cell[0] - middle[0], cell[1] - middle[1]
        return round(math.hypot(down, right), 9), math.atan2(down, right)

    return _sorted_cells(grid, key)


def _checkerboard(grid: Grid) -> list[int]:
    return _sorted_cells(grid, lambda cell: (sum(cell) % 2, cell))


def _farthest_point(grid: Grid) -> list[int]:
    """From the center, always the patch farthest from all visited ones: blue noise.

    Reference: Eldar et al. 1997, The farthest point strategy for progressive image sampling.
    """
    cells = torch.tensor(grid_cells(grid), dtype=torch.float64)
    path = [_center_out(grid)[0]]
    distance = torch.cdist(cells[path], cells)[0]
    while len(path) < len(cells):
        path.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(cells[path[-1:]], cells)[0])
    return path


def _z_curve(grid: Grid) -> list[int]:
    """Morton order: by the interleaved bits of row and column."""

    def key(cell: tuple[int, int]) -> int:
        return sum(
            (cell[0] >> bit & 1) << 2 * bit + 1 | (cell[1] >> bit & 1) << 2 * bit
            for bit in range(16)
        )

    return _sorted_cells(grid, key)


def _hilbert(grid: Grid) -> list[int]:
    """The Hilbert curve of the smallest power-of-two square around the grid.

    Cells outside the grid are left out.
    """
    side = 1 << (max(grid) - 1).bit_length()

    def key(cell: tuple[int, int]) -> int:
        row, col = cell
        index, half = 0, side // 2
        while half:
            down, right = int(row & half > 0), int(col & half > 0)
            index += half * half * ((3 * right) ^ down)
            if not down:
                if right:
                    row, col = side - 1 - row, side - 1 - col
                row, col = col, row
            half //= 2
        return index

    return _sorted_cells(grid, key)


PATHS: dict[str, Callable[[Grid], list[int]]] = {
    "raster": _raster,
    "column": _column,
    "snake": _snake,
    "spiral_in": _spiral_in,
    "spiral_out": _spiral_out,
    "center_out": _center_out,
    "checkerboard": _checkerboard,
    "farthest_point": _farthest_point,
    "hilbert": _hilbert,
    "z_curve": _z_curve,
}
"""Paths by name."""
