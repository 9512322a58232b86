"""95% intervals: of a mean over images, over seeds, or over both, and of the share of a gap.

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
LEAST_RESAMPLED = 20
"""Values of a bootstrap: of fewer it is too narrow, of five normal ones it covers 83% instead of
95%. Those have Student's t instead."""


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
    """Mean over images and its interval: bootstrap, or Student's t of few; None = of one."""
    if len(values) < LEAST_RESAMPLED:
        return float(values.mean()), seed_interval(values.tolist())
    if np.ptp(values) == 0:
        return float(values[0]), (float(values[0]), float(values[0]))
    return float(values.mean()), bootstrap_interval((values,), np.mean)


def gap_interval(
    random: Float[np.ndarray, " B"],
    policy: Float[np.ndarray, " B"],
    oracle: Float[np.ndarray, " B"],
) -> tuple[float | None, Interval | None]:
    """Share of the random-to-oracle gap that the policy closes, and its interval.

    ``mean(random - policy) / mean(random - oracle)``: 0 = as random, 1 = as the oracle. Without a
    gap, or where the oracle is the worse, there is no share of it. The interval is a bootstrap, or
    of few images Student's t of the share's linear form (delta method). There is none of a single
    image, or if an end of it is not finite, as where many resamples have no gap.
    """

    def share(won: np.ndarray, gap: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(won.mean(axis) / gap.mean(axis))

    won, gap = random - policy, random - oracle
    if gap.mean() <= 0:
        return None, None
    if len(gap) < LEAST_RESAMPLED:
        closed = float(share(won, gap))
        return closed, seed_interval((closed + (won - closed * gap) / gap.mean()).tolist())
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = bootstrap_interval((won, gap), share)
    return float(share(won, gap)), interval if np.isfinite(interval).all() else None


def half_width(curve: Float[np.ndarray, "B S"]) -> Float[np.ndarray, " S"] | None:
    """Half of the normal interval of a mean over images: for drawing, it needs no resampling.

    None = of a single image there is none.
    """
    if len(curve) < 2:
        return None
    half: Float[np.ndarray, " S"] = 1.96 * curve.std(0, ddof=1) / np.sqrt(len(curve))
    return half


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Interval of a mean over seeds, or over as many images as need no resampling: Student's t."""
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def share_interval(values: Sequence[float]) -> Interval | None:
    """Interval of :func:`seed_interval`, of shares such as accuracies: cut to 0..1."""
    return of_shares(seed_interval(values))


def of_shares(interval: Interval | None) -> Interval | None:
    """Cut an interval to 0..1, where shares lie."""
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


def crossed_interval(values: Float[np.ndarray, "S I"]) -> Interval | None:
    """Interval of a mean over seeds and images that are both samples: Student's t.

    Every seed's run is asked about the same images, as readers are about cases. With the mean
    squares MS of the two-way analysis of variance, the variance of the mean is
    ``(MS_seeds + max(MS_images - MS_rest, 0)) / (S I)``. Its degrees of freedom are
    ``(MS_seeds + max(MS_images - MS_rest, 0))^2 / (MS_seeds^2 / (S - 1))``: few where seeds
    differ most, many where images do. Of paired differences it is the interval of a comparison.

    Reference: Hillis 2007, Statistics in Medicine 26(3), 596-619 (its ddf_H), for the analysis of
    Dorfman, Berbaum and Metz 1992. By hand, as SciPy has no such analysis.
    Differs: it is never narrower than over images alone, as it would be where the means of few
    seeds agree by chance.

    Args:
        values: of S seeds (rows) on I images.

    Returns:
        lower and upper end; None for a single seed or image.
    """
    num_seeds, num_images = values.shape
    if min(num_seeds, num_images) < 2:
        return None
    mean, of_seeds, of_images = values.mean(), values.mean(1), values.mean(0)
    rest = values - of_seeds[:, None] - of_images + mean
    ms_seeds = num_images * of_seeds.var(ddof=1)
    ms_images = num_seeds * of_images.var(ddof=1)
    ms_rest = (rest**2).sum() / ((num_seeds - 1) * (num_images - 1))
    spread = ms_seeds + max(ms_images - ms_rest, 0.0)
    # Seeds that agree exactly leave the normal distribution.
    freedom = (num_seeds - 1) * (spread / ms_seeds) ** 2 if ms_seeds > 0 else np.inf
    half = max(
        stats.t.ppf(0.975, freedom) * np.sqrt(spread / values.size),
        stats.t.ppf(0.975, num_images - 1) * np.sqrt(ms_images / values.size),
    )
    return float(mean - half), float(mean + half)


def seeds_and_images(values: Float[np.ndarray, "S I"]) -> tuple[float, Interval | None]:
    """Mean over seeds and images, and its interval.

    Of several seeds it is :func:`crossed_interval`, of one :func:`mean_interval` over images.
    """
    if len(values) == 1:
        return mean_interval(values[0])
    return float(values.mean()), crossed_interval(values)
