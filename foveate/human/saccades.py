"""Saccades and revisits: how far, in which direction, how often back, how far from the center."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

NUM_DIRECTIONS = 8
"""Sectors: right, up right, up, and so on, counterclockwise."""


def saccades(
    place: Float64[np.ndarray, "P T 2"], aspect: float
) -> tuple[Float64[np.ndarray, "P S"], Float64[np.ndarray, "P S"]]:
    """Return amplitude, as a share of the image's diagonal, and direction of every saccade.

    Directions are in degrees, counterclockwise from the right, in [0, 360). Both are NaN at the
    padding; the direction too where the gaze does not move.

    Args:
        place: rows and columns as shares of the image, padded with NaN.
        aspect: height over width.
    """
    moved = np.diff(place, axis=1) * np.array([aspect, 1.0])
    amplitude = np.hypot(*np.moveaxis(moved, -1, 0)) / np.hypot(aspect, 1.0)
    # Rows count downward.
    direction = np.degrees(np.arctan2(-moved[..., 0], moved[..., 1])) % 360
    return amplitude, np.where(amplitude > 0, direction, np.nan)


def center_distance(place: Float64[np.ndarray, "*B 2"], aspect: float) -> Float64[np.ndarray, "*B"]:
    """Return the distance of each place from the center of the image, as a share of its diagonal.

    Args:
        place: rows and columns as shares of the image; NaN remains.
        aspect: height over width.
    """
    return distance(place, np.array(0.5), aspect)


def distance(
    place: Float64[np.ndarray, "... 2"], other: Float64[np.ndarray, "..."], aspect: float
) -> Float64[np.ndarray, "..."]:
    """Return the distance of places from others, as a share of the image's diagonal.

    Args:
        place: rows and columns as shares of the image; NaN remains.
        other: the same, or what broadcasts with it.
        aspect: height over width.
    """
    away = (place - other) * np.array([aspect, 1.0])
    return np.linalg.norm(away, axis=-1) / np.hypot(aspect, 1.0)


def direction_shares(direction: Float64[np.ndarray, "*B"]) -> Float64[np.ndarray, "8"]:
    """Return the share of saccades in each of NUM_DIRECTIONS sectors; NaN does not count.

    The first sector is centered on the right.
    """
    known = direction[~np.isnan(direction)]
    sector = np.rint(known / (360 / NUM_DIRECTIONS)).astype(np.int64) % NUM_DIRECTIONS
    return np.bincount(sector, minlength=NUM_DIRECTIONS) / max(1, len(known))


def revisit_share(cell: Int64[np.ndarray, "P T"]) -> Float64[np.ndarray, " P"]:
    """Return the share of each scanpath's fixations that fall on a cell fixated before.

    Args:
        cell: cells, padded with -1; every scanpath has one or more.
    """
    different = np.array([len({*row.tolist()} - {-1}) for row in cell])
    return 1 - different / (cell >= 0).sum(1)
