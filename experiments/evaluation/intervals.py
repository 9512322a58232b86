"""Intervals over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scipy import stats


def seed_interval(values: Sequence[float]) -> list[float]:
    """95% interval of a mean over seeds, two or more: Student's t."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
    mean = statistics.mean(values)
    return [mean - half, mean + half]
