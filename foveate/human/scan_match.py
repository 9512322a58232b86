"""ScanMatch: similarity of two scanpaths by alignment of the cells that they go through.

Reference: Cristino, Mathot, Theeuwes and Gilchrist 2010, ScanMatch (Behavior Research Methods 42,
692-700), with the global alignment of Needleman and Wunsch 1970. Written from the description.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

BINS = (12, 16)
"""Rows and columns into which an image is cut."""
THRESHOLD = 3.5
"""Distance of two bins, in bins, at which a substitution scores 0.

Twice the deviation of human saccades, as the authors recommend, is about 3.5 of 16 columns.
"""


def scan_match(
    one: Float64[np.ndarray, "B T 2"],
    other: Float64[np.ndarray, "B U 2"],
) -> Float64[np.ndarray, " B"]:
    """Return the similarity of pairs of scanpaths: 1 = the same bins in the same order.

    Two bins at a distance d score ``THRESHOLD - d``, and a gap scores 0. The best alignment's sum
    is divided by the most that the longer scanpath could score, ``THRESHOLD`` times its length.

    Args:
        one: rows and columns as shares of the image's height and width, padded with NaN.
        other: the scanpaths that they are compared with.

    Raises:
        ValueError: a scanpath is empty.
    """
    first, second = (np.floor(each * np.array(BINS)) for each in (one, other))
    lengths, others = ((~np.isnan(each[..., 0])).sum(1) for each in (one, other))
    if not (lengths.all() and others.all()):
        raise ValueError("a scanpath has no fixations; leave it out")
    score = THRESHOLD - np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
    best = np.zeros((len(one), one.shape[1] + 1, other.shape[1] + 1))
    # Gaps are free, so that the first row and column stay 0.
    for t in range(one.shape[1]):
        for u in range(other.shape[1]):
            matched = best[:, t, u] + score[:, t, u]
            best[:, t + 1, u + 1] = np.maximum(
                matched, np.maximum(best[:, t, u + 1], best[:, t + 1, u])
            )
    aligned = best[np.arange(len(one)), lengths, others]
    return aligned / (THRESHOLD * np.maximum(lengths, others))
