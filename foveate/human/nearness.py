"""How far people look from where they look: a center bias that knows the gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from foveate.human.cells import CellPaths, middles_of
from foveate.human.densities import normalized

NUM_LENGTHS = 24
"""Bins of saccade length, equally wide, up to the image's diagonal."""
PRIOR_FIXATIONS = 10.0
"""Fixations drawn from the bias alone that are counted beside the viewers'."""
NUM_UPDATES = 50
"""Of the factors, each of which makes the viewers likelier."""


@dataclass(frozen=True)
class SaccadeLengths:
    """How much likelier a cell is than the center bias says, by its distance from the gaze.

    It sees no image. A policy that pays for long saccades knows as much, so that only what it says
    beyond this is about the image.
    """

    factor: Float64[np.ndarray, " L"]
    """Of each bin of length; the last one stands where there is no gaze yet."""
    aspect: float
    """Height over width of the images."""

    @classmethod
    def fit(
        cls, paths: CellPaths, bias: Float64[np.ndarray, "F N"], aspect: float
    ) -> SaccadeLengths:
        """Choose the factors by the likelihood of the viewers' new cells.

        The density is a log-linear model with one feature for each length, of which a cell has
        exactly one. So generalized iterative scaling (Darroch and Ratcliff 1972) finds its maximum:
        each factor is multiplied by the observed over the expected number of saccades.

        Args:
            paths: of training images.
            bias: center bias at each of their scored fixations, fitted on others of them.
            aspect: height over width of the images.
        """
        steps, length = paths.steps, length_bins(paths, aspect)
        new = ~steps.returns
        bias, length, available = bias[new], length[new], ~steps.viewed[new]
        chosen = length[np.arange(len(length)), steps.cell[new]]

        def expected(factor: Float64[np.ndarray, " L"]) -> Float64[np.ndarray, " L"]:
            density = normalized(bias * factor[length], available)
            return np.bincount(length.ravel(), density.ravel(), NUM_LENGTHS + 1)

        factor, number = np.ones(NUM_LENGTHS + 1), max(len(chosen), 1)
        drawn = expected(factor) * (PRIOR_FIXATIONS / number)
        observed = np.bincount(chosen, minlength=NUM_LENGTHS + 1) + drawn
        observed *= number / (number + PRIOR_FIXATIONS)
        for _ in range(NUM_UPDATES):
            counted = expected(factor)
            factor = factor * np.where(counted > 0, observed / np.maximum(counted, 1e-300), 1.0)
        return cls(factor, aspect)

    def density(
        self, bias: Float64[np.ndarray, "F N"], paths: CellPaths
    ) -> Float64[np.ndarray, "F N"]:
        """Return the density over cells that have not been viewed, at each scored fixation."""
        length = length_bins(paths, self.aspect)
        return normalized(bias * self.factor[length], ~paths.steps.viewed)


def length_bins(paths: CellPaths, aspect: float) -> Int64[np.ndarray, "F N"]:
    """Return the bin of the saccade from the gaze to the middle of each cell.

    The gaze is the fixation before; without one the bin is NUM_LENGTHS.
    """
    steps = paths.steps
    begun = steps.number[:, None] > 0
    gaze = np.where(begun, paths.place[steps.trial, steps.number - 1], 0.0)
    middles = middles_of(np.arange(paths.num_cells), paths.grid)
    away = (middles - gaze[:, None]) * np.array([aspect, 1.0])
    length = np.linalg.norm(away, axis=-1) / np.hypot(aspect, 1.0)
    bins = np.minimum((length * NUM_LENGTHS).astype(np.int64), NUM_LENGTHS - 1)
    return np.where(begun, bins, NUM_LENGTHS)
