"""MultiMatch: shape, direction, length and position of two scanpaths, by multimatch-gaze.

Reference: Jarodzka, Holmqvist and Nystroem 2010 (ETRA); Dewhurst et al. 2012 (Behavior Research
Methods 44, 1079-1100). The package is that of Wagner, Halchenko and Hanke 2019 (JOSS 4(40), 1525).
It is of the extra ``human``.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from jaxtyping import Float64

DIMENSIONS = ("shape", "direction", "length", "position")
"""What is compared; durations, which no policy has, are left out."""
LEAST_FIXATIONS = 3
"""Scanpaths of less are not compared."""
NOT_INSTALLED = "MultiMatch is not installed: pip install multimatch-gaze, or install .[human]"
"""What a row says in its place."""
FIELDS = np.dtype([("start_x", "f8"), ("start_y", "f8"), ("duration", "f8")])


def is_installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("multimatch_gaze") is not None


def multi_match(
    one: Float64[np.ndarray, "T 2"], other: Float64[np.ndarray, "U 2"], size_px: tuple[int, int]
) -> Float64[np.ndarray, "4"]:
    """Return the similarity of two scanpaths in each of DIMENSIONS, 0 to 1, without simplification.

    NaN where one has less than LEAST_FIXATIONS.

    Args:
        one: rows and columns as shares of the image's height and width.
        other: the scanpath that it is compared with.
        size_px: height and width, by whose diagonal lengths are normalized.

    Raises:
        ValueError: the package is not installed.
    """
    if not is_installed():
        raise ValueError(NOT_INSTALLED)
    import multimatch_gaze

    if min(len(one), len(other)) < LEAST_FIXATIONS:
        return np.full(len(DIMENSIONS), np.nan)
    # The package takes x before y.
    found = multimatch_gaze.docomparison(
        _record(one * size_px), _record(other * size_px), list(size_px[::-1])
    )
    return np.array(found[: len(DIMENSIONS)], np.float64)


def _record(place_px: Float64[np.ndarray, "T 2"]) -> np.ndarray:
    record = np.zeros(len(place_px), FIELDS)
    record["start_y"], record["start_x"] = place_px.T
    # Durations weigh nothing in what is returned; the package asks for them.
    record["duration"] = 1.0
    return record
