"""Scanpaths as cells of a grid, and every scored fixation with what was seen before it.

A cell is a place where a policy may look: a patch, or a square of patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64

from foveate.human.reading import HumanScanpaths
from foveate.orders.paths import Grid


@dataclass(frozen=True)
class Steps:
    """Scored fixations, one a row: F of them over N cells."""

    trial: Int64[np.ndarray, " F"]
    """Which scanpath it belongs to."""
    number: Int64[np.ndarray, " F"]
    """Which fixation of the scanpath it is, from 0."""
    cell: Int64[np.ndarray, " F"]
    """Where the viewer looked."""
    image: Int64[np.ndarray, " F"]
    viewed: Bool[np.ndarray, "F N"]
    """True = the viewer has fixated the cell before."""
    may_return: bool
    """Whether viewed cells can be fixated again. Revisits were dropped otherwise."""

    @property
    def available(self) -> Bool[np.ndarray, "F N"]:
        """Cells that this fixation can fall on, given its history."""
        return np.ones_like(self.viewed) if self.may_return else ~self.viewed

    @property
    def returns(self) -> Bool[np.ndarray, " F"]:
        """Which fixations fall on a cell that the viewer has fixated before."""
        return self.viewed[np.arange(len(self.cell)), self.cell]

    def take(self, rows: slice | Bool[np.ndarray, " F"]) -> Steps:
        """Return some of the fixations."""
        return replace(
            self,
            trial=self.trial[rows],
            number=self.number[rows],
            cell=self.cell[rows],
            image=self.image[rows],
            viewed=self.viewed[rows],
        )


@dataclass(frozen=True)
class CellPaths:
    """P scanpaths over the cells of a grid."""

    grid: Grid
    cell: Int64[np.ndarray, "P T"]
    """Cells in raster order; -1 = padding."""
    place: Float64[np.ndarray, "P T 2"]
    """Row and column as shares of the image: of a human's gaze, or of the middle of the cell."""
    image: Int64[np.ndarray, " P"]
    """Number of the image, ascending."""
    num_given: int = 0
    """Fixations at the start that are history alone and never scored."""
    may_return: bool = True
    """Whether a cell can be fixated again; if not, revisits were dropped."""
    num_short: int = 0
    """Scanpaths that were left out, since nothing of them is left to score."""

    @property
    def length(self) -> Int64[np.ndarray, " P"]:
        """Number of fixations."""
        return (self.cell >= 0).sum(1)

    @property
    def num_cells(self) -> int:
        """Cells of the grid, N."""
        return self.grid[0] * self.grid[1]

    def of_first(self, num_images: int) -> CellPaths:
        """Return the scanpaths on the first images."""
        kept = self.image < num_images
        return replace(self, cell=self.cell[kept], place=self.place[kept], image=self.image[kept])

    @cached_property
    def steps(self) -> Steps:
        """All scored fixations, in the order of scanpaths and time."""
        trial, number = np.nonzero(self.cell[:, self.num_given :] >= 0)
        number = number + self.num_given
        hits = np.zeros((*self.cell.shape, self.num_cells + 1), bool)
        np.put_along_axis(hits, self.cell[:, :, None], True, axis=2)
        seen = np.logical_or.accumulate(hits[..., :-1], axis=1)
        viewed = np.zeros_like(seen)
        viewed[:, 1:] = seen[:, :-1]
        cell, image = self.cell[trial, number], self.image[trial]
        return Steps(trial, number, cell, image, viewed[trial, number], self.may_return)


def cell_paths(
    human: HumanScanpaths,
    grid: Grid,
    *,
    first_fixation: bool = False,
    revisits: bool = False,
    most: int | None = None,
) -> CellPaths:
    """Lay human scanpaths on a grid.

    Args:
        human: images and viewers.
        grid: rows and columns of cells.
        first_fixation: whether each scanpath's first fixation is scored; if not it is still part of
            the history. Where viewers start at the center by instruction it says nothing.
        revisits: whether fixations of a cell that the viewer has fixated before are kept.
        most: the most fixations of a scanpath, the first ones; None = all.

    Raises:
        ValueError: nothing is left to score.
    """
    num_given = 0 if first_fixation else 1
    found, image, num_short = [], [], 0
    for trial in human.trials:
        cells = cells_of(trial.place, grid)
        kept = (
            np.arange(len(cells)) if revisits else np.sort(np.unique(cells, return_index=True)[1])
        )
        kept = kept[:most]
        # Of a single cell there is no saccade, whether it is scored or not.
        if len(kept) < 2:
            num_short += 1
            continue
        found.append((cells[kept], trial.place[kept]))
        image.append(trial.image)
    if not found:
        raise ValueError(
            f"no scanpath of {human.name} has two fixations on a {grid[0]}x{grid[1]} grid"
            f"{f' among its first {most}' if most is not None else ''}; take a finer grid"
        )
    longest = max(len(cells) for cells, _ in found)
    cell = np.full((len(found), longest), -1)
    place = np.full((len(found), longest, 2), np.nan)
    for row, (cells, places) in enumerate(found):
        cell[row, : len(cells)], place[row, : len(cells)] = cells, places
    return CellPaths(grid, cell, place, np.array(image), num_given, revisits, num_short)


def cells_of(place: Float64[np.ndarray, "T 2"], grid: Grid) -> Int64[np.ndarray, " T"]:
    """Return the cell of each place, given as shares of height and width in [0, 1)."""
    row, col = np.floor(place * np.array(grid)).astype(np.int64).T
    return row * grid[1] + col


def middles_of(cell: Int64[np.ndarray, "*B"], grid: Grid) -> Float64[np.ndarray, "*B 2"]:
    """Return row and column of the middle of each cell, as shares; NaN where it is -1."""
    middle = (np.stack(np.divmod(cell, grid[1]), axis=-1) + 0.5) / np.array(grid)
    middle[cell < 0] = np.nan
    return middle


def center_cell(grid: Grid) -> int:
    """Return the cell that holds the center of the image."""
    return (grid[0] // 2) * grid[1] + grid[1] // 2
