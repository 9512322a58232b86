"""Where the other viewers of an image look: the density that a model of the image can hope for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

from foveate.human.cells import CellPaths, Steps
from foveate.human.densities import CenterBias, center_of_others, normalized, of_cell
from foveate.orders.paths import Grid

SPREADS = (0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.07, 0.1)
"""Standard deviations of the Gaussian around a gaze that are tried, over the image's diagonal."""
CENTER_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the center bias in the density of other viewers that are tried."""


@dataclass(frozen=True)
class Viewers:
    """Where other viewers look: a Gaussian around each of their fixations, and some center bias.

    Reference: the gold standard of Kuemmerer, Wallis and Bethge 2015 (PNAS 112(52), 16054-16059):
    a kernel density of all other subjects, with a regularization, both by maximum likelihood.
    Differs: one bandwidth for all images; the Gaussian is integrated over the cells.
    """

    spread: float
    """Standard deviation of the Gaussian, over the image's diagonal."""
    center_share: float
    """Share of the center bias in the density."""
    center: CenterBias

    @classmethod
    def fit(cls, paths: CellPaths, center: CenterBias, aspect: float) -> Viewers:
        """Choose spread and share by the likelihood of each viewer of training images.

        Neither the viewer nor the image is in what is mixed: see :func:`center_of_others`.

        Args:
            paths: of training images.
            center: fitted on the same; it is mixed in on others.
            aspect: height over width of the images.
        """
        steps = paths.steps
        bias, best, chosen = center_of_others(paths), -np.inf, (SPREADS[0], CENTER_SHARES[-1])
        for spread in SPREADS:
            others = left_out(paths, spread, aspect)[steps.trial]
            for share in CENTER_SHARES:
                mixed = share * bias + (1 - share) * others
                likelihood = np.log(of_cell(normalized(mixed, steps.available), steps)).mean()
                if likelihood > best:
                    best, chosen = likelihood, (spread, share)
        return cls(*chosen, center)

    def density(self, steps: Steps, of_trial: Float64[np.ndarray, "P N"]) -> np.ndarray:
        """Return the density over available cells, (F, N).

        Args:
            steps: the scored fixations.
            of_trial: mass of other gazes, for each scanpath; of :func:`left_out`, say.
        """
        mixed = self.center_share * self.center.at(steps.number)
        mixed += (1 - self.center_share) * of_trial[steps.trial]
        return normalized(mixed, steps.available)


def gaze_mass(
    place: Float64[np.ndarray, "G 2"], grid: Grid, spread: float, aspect: float
) -> Float64[np.ndarray, "G N"]:
    """Return the mass of a Gaussian around each gaze in every cell; it sums to 1 on the image.

    Args:
        place: rows and columns as shares of height and width.
        grid: rows and columns of cells.
        spread: standard deviation over the diagonal.
        aspect: height over width.
    """
    deviation = spread * np.hypot(1.0, aspect) / np.array([aspect, 1.0])
    by_row, by_col = (
        np.diff(stats.norm.cdf((np.arange(n + 1) / n - place[:, [axis]]) / deviation[axis]), axis=1)
        for axis, n in enumerate(grid)
    )
    mass = (by_row[:, :, None] * by_col[:, None, :]).reshape(len(place), -1)
    return mass / mass.sum(1, keepdims=True)


def mass_by_trial(
    paths: CellPaths, spread: float, aspect: float
) -> tuple[Float64[np.ndarray, "P N"], Int64[np.ndarray, " P"]]:
    """Return the summed mass of each scanpath's gazes, and how many gazes it has."""
    trial, number = np.nonzero(paths.cell >= 0)
    mass = gaze_mass(paths.place[trial, number], paths.grid, spread, aspect)
    total = np.zeros((len(paths.cell), paths.num_cells))
    np.add.at(total, trial, mass)
    return total, paths.length


def left_out(paths: CellPaths, spread: float, aspect: float) -> Float64[np.ndarray, "P N"]:
    """Return, for each scanpath, the mean mass of all gazes of the image's other viewers.

    Of an image with a single viewer it is 0: nothing is known there.
    """
    total, count = mass_by_trial(paths, spread, aspect)
    of_image = np.zeros((paths.image.max() + 1, paths.num_cells))
    num_gazes = np.zeros(len(of_image), np.int64)
    np.add.at(of_image, paths.image, total)
    np.add.at(num_gazes, paths.image, count)
    left = np.maximum(of_image[paths.image] - total, 0.0)
    others = num_gazes[paths.image] - count
    return left / np.maximum(others, 1)[:, None]


def of_other_images(
    paths: CellPaths, other: Int64[np.ndarray, " M"], spread: float, aspect: float
) -> Float64[np.ndarray, "P N"]:
    """Return, for each scanpath, the mean mass of all gazes on another image.

    Args:
        paths: the scanpaths.
        other: which image stands in for each.
        spread: standard deviation over the diagonal.
        aspect: height over width.
    """
    total, count = mass_by_trial(paths, spread, aspect)
    of_image, num_gazes = np.zeros((len(other), paths.num_cells)), np.zeros(len(other))
    np.add.at(of_image, paths.image, total)
    np.add.at(num_gazes, paths.image, count)
    return (of_image / np.maximum(num_gazes, 1)[:, None])[other[paths.image]]
