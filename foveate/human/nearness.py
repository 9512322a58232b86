"""How far people look from where they look: a center bias that knows the gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from foveate.human.cells import CellPaths, middles_of
from foveate.human.densities import folds_of, normalized
from foveate.human.saccades import distance

NUM_LENGTHS = 24
"""Bins of saccade length, equally wide, up to the image's diagonal."""
DRAWN_FIXATIONS = (1000.0, 100.0, 10.0, 1.0)
"""Fixations drawn from the bias alone, counted beside the viewers', that are tried."""
NUM_UPDATES = 50
"""Of the factors, each of which makes the viewers likelier."""


@dataclass(frozen=True)
class SaccadeLengths:
    """How much likelier a cell is than the center bias says, by its distance from the gaze.

    It sees no image. A policy that pays for long saccades knows as much, so that only what it says
    beyond this can be about the image.
    """

    factor: Float64[np.ndarray, " L"]
    """Of each bin of length; the last one stands where there is no gaze yet."""
    of_others: Float64[np.ndarray, "K L"]
    """The same, fitted without each part of the training images."""
    aspect: float
    """Height over width of the images."""

    @classmethod
    def fit(
        cls, paths: CellPaths, bias: Float64[np.ndarray, "F N"], aspect: float
    ) -> SaccadeLengths:
        """Choose the factors by the likelihood of the viewers' new cells.

        How many fixations of DRAWN_FIXATIONS are counted beside them is chosen by the likelihood of
        images that are left out, a tenth after the other, as :meth:`CenterBias.fit` does. A single
        image decides nothing, and the most are counted.

        Args:
            paths: of training images.
            bias: center bias at each of their scored fixations, fitted on others of them.
            aspect: height over width of the images.
        """
        steps, length = paths.steps, length_bins(paths, aspect)
        rows = np.arange(len(length))
        num_folds, fold = folds_of(paths)
        # Cells of the same length share their factor, so that their sum is all that counts.
        mass = np.zeros((len(length), NUM_LENGTHS + 1))
        np.add.at(mass, (rows[:, None], length), normalized(bias, ~steps.viewed))
        new = ~steps.returns
        mass, chosen, fold = mass[new], length[rows, steps.cell][new], fold[new]

        best, fitted = -np.inf, None
        for drawn in DRAWN_FIXATIONS:
            parts = (fold != each for each in range(num_folds))
            of_others = np.stack([scaled(mass[part], chosen[part], drawn) for part in parts])
            factor = of_others[fold]
            density = factor[np.arange(len(chosen)), chosen] / (factor * mass).sum(1)
            likelihood = float(np.log(np.maximum(density, 1e-300)).sum())
            if likelihood > best:
                best, fitted = likelihood, cls(scaled(mass, chosen, drawn), of_others, aspect)
        assert fitted is not None, "a likelihood is finite"
        return fitted

    def density(
        self, bias: Float64[np.ndarray, "F N"], paths: CellPaths
    ) -> Float64[np.ndarray, "F N"]:
        """Return the density over cells that have not been viewed, at each scored fixation."""
        length = length_bins(paths, self.aspect)
        return normalized(bias * self.factor[length], ~paths.steps.viewed)

    def in_training(
        self, bias: Float64[np.ndarray, "F N"], paths: CellPaths
    ) -> Float64[np.ndarray, "F N"]:
        """Return the same on the training images, with factors that were fitted on others.

        What is fitted beside it would trust one that has seen its images too much.
        """
        _, fold = folds_of(paths)
        factor = np.take_along_axis(self.of_others[fold], length_bins(paths, self.aspect), axis=1)
        return normalized(bias * factor, ~paths.steps.viewed)


def scaled(
    mass: Float64[np.ndarray, "F L"], chosen: Int64[np.ndarray, " F"], drawn: float
) -> Float64[np.ndarray, " L"]:
    """Return the factors of lengths under which fixations and some from the bias are likeliest.

    The density is a log-linear model with one feature for each length, of which a cell has exactly
    one. So generalized iterative scaling (Darroch and Ratcliff 1972) finds its maximum: each factor
    is multiplied by the observed over the expected number of saccades.

    Args:
        mass: of the bias at each length, for each fixation.
        chosen: length of each.
        drawn: fixations that are drawn from the bias, evenly over all, and counted beside them.
    """
    number = max(len(chosen), 1)
    observed = np.bincount(chosen, minlength=NUM_LENGTHS + 1) + mass.sum(0) * (drawn / number)
    observed *= number / (number + drawn)
    factor = np.ones(NUM_LENGTHS + 1)
    for _ in range(NUM_UPDATES):
        expected = factor * (mass.T @ (1 / (mass @ factor)))
        factor = factor * np.where(expected > 0, observed / np.maximum(expected, 1e-300), 1.0)
    return factor


def length_bins(paths: CellPaths, aspect: float) -> Int64[np.ndarray, "F N"]:
    """Return the bin of the saccade from the gaze to the middle of each cell.

    The gaze is the fixation before; without one the bin is NUM_LENGTHS. Where revisits were dropped
    it is the last one that was kept, as for a model that does not go back.
    """
    steps = paths.steps
    begun = steps.number[:, None] > 0
    gaze = np.where(begun, paths.place[steps.trial, steps.number - 1], 0.0)
    middles = middles_of(np.arange(paths.num_cells), paths.grid)
    length = distance(gaze[:, None], middles, aspect)
    bins = np.minimum((length * NUM_LENGTHS).astype(np.int64), NUM_LENGTHS - 1)
    return np.where(begun, bins, NUM_LENGTHS)
