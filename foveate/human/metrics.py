"""How well a density over cells says where the next fixation fell.

Every function takes the density at each scored fixation, given the viewer's own history, and counts
only the cells that were available to it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from scipy import stats

from foveate.human.cells import Steps
from foveate.human.densities import of_cell

LEAST = 1e-12
"""Density below which the logarithm is not taken: a fixation costs 40 bits at the most."""


def information_gain_bits(
    density: Float64[np.ndarray, "F N"], baseline: Float64[np.ndarray, "F N"], steps: Steps
) -> Float64[np.ndarray, " F"]:
    """Return log2 of the density where the viewer looked, less that of a baseline.

    Reference: conditional information gain of Kuemmerer and Bethge 2021 (arXiv 2102.12239), after
    Kuemmerer, Wallis and Bethge 2015 (PNAS 112(52), 16054-16059). Differs: cells in place of
    pixels, which leaves the difference of two logarithms as it is where a density is constant
    within cells; densities below ``LEAST`` count as that.
    """
    ratio = np.maximum(of_cell(density, steps), LEAST) / np.maximum(of_cell(baseline, steps), LEAST)
    return np.log2(ratio)


def nss(density: Float64[np.ndarray, "F N"], steps: Steps) -> Float64[np.ndarray, " F"]:
    """Return the normalized scanpath saliency: the density where the viewer looked, standardized.

    Mean and (population) deviation are over the available cells; 0 where they are all alike.

    Reference: Peters et al. 2005 (Vision Research 45(18), 2397-2416).
    """
    available = steps.available
    number = np.maximum(available.sum(1), 1)
    mean = np.where(available, density, 0.0).sum(1) / number
    squared = np.where(available, (density - mean[:, None]) ** 2, 0.0).sum(1) / number
    deviation = np.sqrt(squared)
    # What is alike but for rounding has no deviation.
    flat = deviation <= 1e-9 * np.maximum(mean, 1e-300)
    return np.where(flat, 0.0, (of_cell(density, steps) - mean) / np.where(flat, 1.0, deviation))


def auc_judd(
    density: Float64[np.ndarray, "F N"],
    fixated: Bool[np.ndarray, "F N"],
    available: Bool[np.ndarray, "F N"],
) -> Float64[np.ndarray, " F"]:
    """Return the area under the ROC curve: fixated cells against all others that are available.

    It is the share of pairs of a fixated and another cell in which the fixated one has the larger
    density; equal ones count half. NaN without a pair.

    Reference: Judd et al. 2009 (ICCV), as described by Bylinskii et al. 2019 (arXiv 1604.03605,
    Sec. 4.1): the thresholds are the values at fixations. Differs: ties count half on average,
    where they are broken by jitter there.
    """
    # What is not available ranks below everything else.
    rank = stats.rankdata(np.where(available, density, -1.0), axis=1)
    fixated = fixated & available
    positives = fixated.sum(1)
    negatives = available.sum(1) - positives
    below = (rank * fixated).sum(1) - positives * ((~available).sum(1) + (positives + 1) / 2)
    pairs = positives * negatives
    return np.where(pairs > 0, below / np.maximum(pairs, 1), np.nan)


def next_auc_judd(density: Float64[np.ndarray, "F N"], steps: Steps) -> Float64[np.ndarray, " F"]:
    """Return :func:`auc_judd` of each single next fixation."""
    fixated = np.zeros_like(steps.viewed)
    fixated[np.arange(len(steps.cell)), steps.cell] = True
    return auc_judd(density, fixated, steps.available)
