"""Where the next fixation may fall: densities over cells, each fitted on other images.

A density is an array (F, N) that sums to 1 over the cells that are available at each of F scored
fixations, given the viewer's own history.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import optimize

from foveate.human.cells import CellPaths, Steps

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1000.0)
"""Pseudo-counts of the center bias that are tried."""
NUM_FOLDS = 10
"""Parts of the training images, each of which is left out in turn."""
STEEPEST = 60.0
"""Largest factor of scores that is tried; they are scaled to a deviation of 1."""


def normalized(
    weight: Float64[np.ndarray, "F N"], available: Bool[np.ndarray, "F N"]
) -> Float64[np.ndarray, "F N"]:
    """Return weights over their sum where available, and 0 elsewhere.

    Where no available cell has any weight all have the same. Where none is available, as when a
    viewer has fixated every cell, all are 0.
    """
    kept = np.where(available, weight, 0.0)
    none = kept.sum(1, keepdims=True) <= 0
    kept = np.where(none, available.astype(np.float64), kept)
    return kept / np.maximum(kept.sum(1, keepdims=True), 1e-300)


def uniform(steps: Steps) -> Float64[np.ndarray, "F N"]:
    """Return the density of all available cells alike."""
    return normalized(np.ones(steps.viewed.shape), steps.available)


def smoothed(
    counts: Float64[np.ndarray, "T N"], anywhere: float, numbered: float
) -> Float64[np.ndarray, "T N"]:
    """Return densities by the number of the fixation, from counts and pseudo-counts.

    That of all numbers is ``p = (counts + a) / (n + a N)``, that of number t is
    ``(counts_t + b N p) / (n_t + b N)``.

    Args:
        counts: fixations of each number in each cell.
        anywhere: a, pseudo-counts of a cell towards uniform.
        numbered: b, those of a cell and number towards all numbers.
    """
    num_cells = counts.shape[1]
    every = (counts.sum(0) + anywhere) / (counts.sum() + anywhere * num_cells)
    more = numbered * num_cells
    return (counts + more * every) / (counts.sum(1, keepdims=True) + more)


@dataclass(frozen=True)
class CenterBias:
    """Where people look, whatever the image, by the number of the fixation."""

    of_number: Float64[np.ndarray, "T N"]

    @classmethod
    def fit(cls, paths: CellPaths) -> CenterBias:
        """Count the scored fixations of training images, see :func:`smoothed`.

        Both kinds of pseudo-counts are chosen among STRENGTHS by the likelihood of images that are
        left out of the counts, a tenth after the other: so a baseline of few images is no worse
        than it must be. A single image decides nothing, and the largest are taken.
        """
        counts, _ = counts_by_fold(paths)
        return cls(_believed(counts))

    def at(self, number: Int64[np.ndarray, " F"]) -> Float64[np.ndarray, "F N"]:
        """Return the density of each fixation number; beyond the last one, that of the last."""
        return self.of_number[np.minimum(number, len(self.of_number) - 1)]

    def density(self, steps: Steps) -> Float64[np.ndarray, "F N"]:
        """Return the density over available cells."""
        return normalized(self.at(steps.number), steps.available)


def center_of_others(paths: CellPaths) -> Float64[np.ndarray, "F N"]:
    """Return the center bias at each scored fixation, fitted without a tenth that holds its image.

    Weights are fitted beside this bias on the same images. Of a bias that had seen these images
    they would trust more than it deserves on others. Of a single image it is uniform.
    """
    counts, fold = counts_by_fold(paths)
    others = np.stack([_believed(np.delete(counts, each, 0)) for each in range(len(counts))])
    return others[fold, paths.steps.number]


def folds_of(paths: CellPaths) -> tuple[int, Int64[np.ndarray, " F"]]:
    """Part the images: return the number of parts, and the part of each scored fixation.

    There are NUM_FOLDS parts, or as many as images.
    """
    images = np.unique(paths.image)
    num_folds = min(NUM_FOLDS, len(images))
    return num_folds, np.searchsorted(images, paths.steps.image) % num_folds


def counts_by_fold(
    paths: CellPaths,
) -> tuple[Float64[np.ndarray, "K T N"], Int64[np.ndarray, " F"]]:
    """Count the scored fixations of each part of the images, by number and cell.

    The part of each fixation is returned too, see :func:`folds_of`.
    """
    steps, (num_folds, fold) = paths.steps, folds_of(paths)
    counts = np.zeros((num_folds, paths.cell.shape[1], paths.num_cells))
    np.add.at(counts, (fold, steps.number, steps.cell), 1.0)
    return counts, fold


def _believed(counts: Float64[np.ndarray, "K T N"]) -> Float64[np.ndarray, "T N"]:
    """Return the densities of all counts, smoothed as each part asks for, given the others."""
    total, best, chosen = counts.sum(0), -np.inf, (STRENGTHS[-1], STRENGTHS[-1])
    for strengths in itertools.product(STRENGTHS, STRENGTHS) if len(counts) > 1 else ():
        likelihood = sum(
            float((each * np.log(smoothed(total - each, *strengths))).sum()) for each in counts
        )
        if likelihood > best:
            best, chosen = likelihood, strengths
    return smoothed(total, *chosen)


@dataclass(frozen=True)
class Returns:
    """How often people return to a cell, by the number of the fixation, whatever the image.

    It stands in for what a rule that never returns cannot say: with the share of returns, one of
    the viewed cells, all alike.
    """

    share: Float64[np.ndarray, " T"]

    @classmethod
    def fit(cls, paths: CellPaths) -> Returns:
        """Count on training images, as if one return and one other had been seen before."""
        steps = paths.steps
        length = paths.cell.shape[1]
        number = np.bincount(steps.number, minlength=length)
        return cls((np.bincount(steps.number, steps.returns, length) + 1) / (number + 2))

    def mixed(
        self, density: Float64[np.ndarray, "F N"], steps: Steps
    ) -> Float64[np.ndarray, "F N"]:
        """Return the density over new cells, less the share of returns, which viewed ones get.

        The first fixation has nowhere to return to.
        """
        share = self.share[np.minimum(steps.number, len(self.share) - 1), None]
        num_viewed = steps.viewed.sum(1, keepdims=True)
        share = np.where(num_viewed > 0, share, 0.0)
        share = np.where(num_viewed == steps.viewed.shape[1], 1.0, share)
        return (1 - share) * density + share * steps.viewed / np.maximum(num_viewed, 1)


@dataclass(frozen=True)
class Softmax:
    """Scores as a density over cells: ``prior * exp(factor * score / scale)``, normalized.

    Viewed cells have none of it. With ``prior`` the center bias, a factor of 0 leaves that bias.
    """

    factor: float
    """Inverse temperature; 0 = the scores say nothing."""
    scale: float = 1.0
    """Deviation of the training scores within a fixation."""

    @classmethod
    def fit(
        cls,
        scores: Float64[np.ndarray, "F N"],
        prior: Float64[np.ndarray, "F N"],
        steps: Steps,
    ) -> Softmax:
        """Choose the factor, at least 0, by the likelihood of new cells on training images.

        The likelihood is concave in it, so that one search along a line finds it. Where there is no
        new cell to judge by it is 0.
        """
        new = ~steps.returns
        if not new.any():
            return cls(0.0)
        some, scores, prior = steps.take(new), scores[new], prior[new]
        inside = np.where(some.viewed, np.nan, scores)
        scale = float(np.sqrt(np.nanmean((inside - np.nanmean(inside, 1, keepdims=True)) ** 2)))
        if not scale > 0:
            return cls(0.0)

        def loss(factor: float) -> float:
            density = cls(factor, scale).density(scores, prior, some)
            return -float(np.log(np.maximum(of_cell(density, some), 1e-300)).mean())

        found = optimize.minimize_scalar(loss, bounds=(0.0, STEEPEST), method="bounded")
        # The bounded search never quite reaches its ends.
        return cls(0.0 if loss(0.0) <= found.fun else float(found.x), scale)

    def density(
        self,
        scores: Float64[np.ndarray, "F N"],
        prior: Float64[np.ndarray, "F N"],
        steps: Steps,
    ) -> Float64[np.ndarray, "F N"]:
        """Return the density over cells that have not been viewed."""
        new = ~steps.viewed
        tilted = np.where(new, self.factor / self.scale * scores, -np.inf)
        highest = tilted.max(1, keepdims=True)
        tilted = np.exp(tilted - np.where(np.isfinite(highest), highest, 0.0))
        return normalized(prior * tilted, new)


def of_cell(density: Float64[np.ndarray, "F N"], steps: Steps) -> Float64[np.ndarray, " F"]:
    """Return the density of the cells that the viewers fixated."""
    return density[np.arange(len(steps.cell)), steps.cell]


def fixation_density(
    cell: Int64[np.ndarray, "P T"],
    image: Int64[np.ndarray, " P"],
    num_cells: int,
    num_images: int,
) -> Float64[np.ndarray, "M N"]:
    """Return the share of all fixations on an image that fall into each cell.

    Args:
        cell: cells of each scanpath, padded with -1.
        image: the image of each.
        num_cells: cells of the grid, N.
        num_images: images, M; one without fixations has shares of 0.
    """
    scanpath, number = np.nonzero(cell >= 0)
    counts = np.zeros((num_images, num_cells))
    np.add.at(counts, (image[scanpath], cell[scanpath, number]), 1.0)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)
