"""95% intervals: of a mean over images, of the share of a gap, and of a mean over seeds.

A single value has none: None.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

Interval = tuple[float, float]
"""Lower and upper end."""
NUM_RESAMPLES = 2000
"""Resamples of every bootstrap, which is percentile and has a fixed seed."""


def bootstrap_interval(
    samples: tuple[Float[np.ndarray, " B"], ...], statistic: Callable[..., np.ndarray]
) -> Interval:
    """Resample images; several samples of the same images stay paired."""
    interval = stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        n_resamples=NUM_RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def mean_interval(values: Float[np.ndarray, " B"]) -> tuple[float, Interval | None]:
    """Mean over images and its bootstrap interval."""
    if len(values) < 2:
        return float(values[0]), None
    if np.ptp(values) == 0:
        return float(values[0]), (float(values[0]), float(values[0]))
    return float(values.mean()), bootstrap_interval((values,), np.mean)


def gap_interval(
    random: Float[np.ndarray, " B"],
    policy: Float[np.ndarray, " B"],
    oracle: Float[np.ndarray, " B"],
) -> tuple[float | None, Interval | None]:
    """Share of the random-to-oracle gap that the policy closes, and its bootstrap interval.

    ``mean(random - policy) / mean(random - oracle)``: 0 = as random, 1 = as the oracle. Without a
    gap there is no share of it; if some resample has no gap, there is no interval.
    """

    def share(won: np.ndarray, gap: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(won.mean(axis) / gap.mean(axis))

    won, gap = random - policy, random - oracle
    if gap.mean() == 0:
        return None, None
    if len(gap) < 2:
        return float(share(won, gap)), None
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = bootstrap_interval((won, gap), share)
    return float(share(won, gap)), interval if np.isfinite(interval).all() else None


def half_width(curve: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " S"]:
    """Half of the normal interval of a mean over images: for drawing, it needs no resampling."""
    return 1.96 * curve.std(0) / np.sqrt(len(curve))


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Interval of a mean over seeds: Student's t."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
    mean = statistics.mean(values)
    return mean - half, mean + half
