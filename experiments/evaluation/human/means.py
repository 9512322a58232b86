"""A row of a comparison with human viewers, from what was found on each image in each run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from experiments.evaluation.intervals import Interval, seeds_and_images

UNIFORM, CENTER, VIEWERS, OTHER_VIEWERS = "uniform", "center_bias", "viewers", "other_image_viewers"
RETURNING = "center_bias_returns"
NEARNESS = "center_bias_near"
HUMAN = (VIEWERS, OTHER_VIEWERS, RETURNING, NEARNESS, CENTER, UNIFORM)
"""Nulls and ceilings, which need no run."""
UNTRAINED = "policy_untrained"
HABITS = ("contrast", "center_distance")
"""Fields of a row that say what it prefers, and are set beside those of viewers."""


@dataclass(frozen=True, kw_only=True)
class HumanRow:
    """What one contender says of human fixations.

    Means are over fixations within an image, then over images, and then over runs. Intervals of one
    run, and of what knows no run, are over images; None = of a single one. Those of
    several runs are over seeds and images at once.
    """

    bits: float
    """Bits per fixation over the uniform density."""
    bits_ci95: Interval | None
    minus_center: float
    """Bits per fixation over the center bias, paired over images."""
    minus_center_ci95: Interval | None
    minus_policy: float | None = None
    """Bits per fixation over the policy, paired over images; None without a run, and of nulls and
    people except ``center_bias_near``."""
    minus_policy_ci95: Interval | None = None
    with_center: float | None = None
    """Bits over the center bias of the center bias times the softmax; None of nulls and people."""
    with_center_ci95: Interval | None = None
    with_near: float | None = None
    """Bits over the center bias that knows the gaze, of it times the softmax."""
    with_near_ci95: Interval | None = None
    as_trained: float | None = None
    """Bits over uniform of the policy's own probabilities, to which nothing is fitted."""
    gap_covered: float | None = None
    """Of the bits from center bias to other viewers, the share; None without a gap."""
    factor: float | None = None
    """Fitted factor of the scores, over their deviation; 0 = they say nothing."""
    nss: float
    nss_ci95: Interval | None
    auc_judd: float
    auc_judd_ci95: Interval | None
    scan_match: float | None = None
    """Mean over scanpaths of each image, compared with every viewer; None = it makes none."""
    scan_match_ci95: Interval | None = None
    multi_match: dict[str, float] | None = None
    """Mean of each dimension; None = not installed, or no scanpaths."""
    amplitude: float | None = None
    """Mean length of a saccade, over the image's diagonal."""
    amplitude_ci95: Interval | None = None
    directions: tuple[float, ...] | None = None
    """Share of saccades in 8 sectors, counterclockwise from the right."""
    revisit_share: float | None = None
    """Share of fixations that fall on a cell fixated before."""
    revisit_share_ci95: Interval | None = None
    contrast: float | None = None
    """Mean rank of the fixated cells by contrast, 0 = lowest of the image to 1 = highest."""
    contrast_ci95: Interval | None = None
    contrast_minus_viewers: float | None = None
    """The same less that of viewers, paired over images."""
    contrast_minus_viewers_ci95: Interval | None = None
    center_distance: float | None = None
    """Mean distance of fixated cells from the center, over the image's diagonal."""
    center_distance_ci95: Interval | None = None
    center_distance_minus_viewers: float | None = None
    """The same less that of viewers, paired over images."""
    center_distance_minus_viewers_ci95: Interval | None = None
    images: int
    """Test images, the first ones."""
    per_seed: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Fields above by seed; empty of a single run, and of what knows no run."""

    @property
    def horizontal(self) -> float | None:
        """Share of saccades to the right and to the left."""
        return None if self.directions is None else self.directions[0] + self.directions[4]


@dataclass(frozen=True)
class ContenderFinding:
    """What was found of one contender, in one run."""

    by_image: Mapping[str, Float64[np.ndarray, " M"]]
    """Fields of a row by their mean over each image; NaN where it was not asked, or has none."""
    whole: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are of all images at once: numbers, or several of them, or None."""

    def minus(self, other: ContenderFinding, name: str) -> Float64[np.ndarray, " M"]:
        """Return a field less another contender's, paired over images."""
        return self.by_image[name] - other.by_image[name]


def joined(*found: ContenderFinding) -> ContenderFinding:
    """Return all that was found of one contender; of the same field the last."""
    return ContenderFinding(
        {name: each for one in found for name, each in one.by_image.items()},
        {name: each for one in found for name, each in one.whole.items()},
    )


def by_image(
    values: Float64[np.ndarray, " F"], image: Int64[np.ndarray, " F"], num_images: int
) -> Float64[np.ndarray, " M"]:
    """Return the mean of each image; NaN does not count, and an image without values is NaN."""
    known = ~np.isnan(values)
    total = np.bincount(image[known], values[known], num_images)
    number = np.bincount(image[known], minlength=num_images)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def rows_of(found: Mapping[str, Sequence[ContenderFinding]]) -> dict[str, HumanRow]:
    """Return a row for each contender, most bits first.

    Args:
        found: of every contender, by run; nulls and ceilings know no run and are found once.

    Raises:
        ValueError: no image has two viewers.
    """
    viewers, policy = found[VIEWERS][0], found.get("policy")
    of_viewers = viewers.by_image["minus_center"]
    if np.isnan(of_viewers).all():
        raise ValueError(
            "no test image has two viewers, so that nothing says how well one predicts another; "
            "give images of two viewers or more"
        )
    rows = {}
    for name, each in found.items():
        beside = None if name in HUMAN else policy
        if name == NEARNESS and policy is not None:
            # The policy is compared with it, in every run.
            each, beside = list(each) * len(policy), policy
        row = row_of([compared(one, viewers, beside, run) for run, one in enumerate(each)])
        # Oracles score few images, and images of one viewer have no ceiling: the gap is of those
        # that have both.
        scored = ~np.isnan(each[0].by_image["minus_center"] + of_viewers)
        most = float(of_viewers[scored].mean()) if scored.any() else 0.0
        own = [one.by_image["minus_center"][scored] for one in each]
        rows[name] = replace(row, gap_covered=float(np.mean(own)) / most if most > 0 else None)
    return dict(sorted(rows.items(), key=lambda item: -item[1].minus_center))


def compared(
    found: ContenderFinding,
    viewers: ContenderFinding,
    policy: Sequence[ContenderFinding] | None,
    run: int,
) -> ContenderFinding:
    """Add the differences to other viewers, and to the policy of the same run."""
    more = {
        f"{name}_minus_viewers": found.minus(viewers, name)
        for name in HABITS
        if name in found.by_image and name in viewers.by_image
    }
    if policy is not None:
        more["minus_policy"] = found.minus(policy[run], "bits")
    return replace(found, by_image={**found.by_image, **more})


def row_of(found: Sequence[ContenderFinding]) -> HumanRow:
    """Return the row of what one contender was found to be, in each run.

    Images on which a run has no value are left out of that value in all.
    """
    fields: dict[str, Any] = {}
    per_seed: dict[str, tuple[float, ...]] = {}
    for name in found[0].by_image:
        if not all(name in each.by_image for each in found):
            continue
        values = np.stack([each.by_image[name] for each in found])
        values = values[:, ~np.isnan(values).any(0)]
        if not values.size:
            continue
        fields[name], fields[f"{name}_ci95"] = seeds_and_images(values)
        per_seed[name] = tuple(map(float, values.mean(1)))
        if name == "bits":
            fields["images"] = values.shape[1]
    for name in found[0].whole:
        of_runs: list[Any] = [each.whole.get(name) for each in found]
        fields[name] = mean_of(of_runs)
        if isinstance(fields[name], float):
            per_seed[name] = tuple(of_runs)
    return HumanRow(**fields, per_seed=per_seed if len(found) > 1 else {})


def mean_of(values: Sequence[Any]) -> Any:
    """Return the mean of numbers, or of each of several; None if one is None."""
    first = values[0]
    if any(each is None for each in values):
        return None
    if isinstance(first, Mapping):
        return {key: mean_of([each[key] for each in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(map(statistics.fmean, zip(*values, strict=True)))
    return statistics.fmean(values)
