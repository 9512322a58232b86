"""Rows of the study of knowing: means and differences over seeds, of what each run got right."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import numpy as np
from jaxtyping import Float

from experiments.evaluation.intervals import (
    Interval,
    crossed_interval,
    seed_interval,
    share_interval,
)
from experiments.evaluation.knowing.plan import POLICY, RANDOM
from experiments.evaluation.recognition.asking import REFERENCES
from experiments.tables import signed

Key = TypeVar("Key")
Condition = tuple[str, int, str]
"""Order, number of fixations, and read-out."""


@dataclass(frozen=True, kw_only=True)
class MeanOverSeeds:
    """A mean over test images and seeds."""

    mean: float
    ci95: Interval | None
    """Over seeds, Student's t, of accuracies within 0..1; None = there is one only."""
    per_seed: tuple[float, ...]

    @classmethod
    def of(cls, values: Float[np.ndarray, "S I"]) -> Self:
        """Return the mean of S seeds (rows) on the same I images."""
        per_seed = tuple(map(float, values.mean(1)))
        return cls(mean=statistics.mean(per_seed), ci95=seed_interval(per_seed), per_seed=per_seed)

    @classmethod
    def of_correct(cls, values: Float[np.ndarray, "S I"]) -> Self:
        """Return the accuracy over S seeds and I images, of values 1 = correct and 0 = not."""
        accuracy = cls.of(values)
        return replace(accuracy, ci95=share_interval(accuracy.per_seed))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference, paired over seeds and test images."""

    mean: float
    ci95: Interval | None
    """Over seeds and images at once (``crossed_interval``); None = there is one seed only."""
    ci95_seeds: Interval | None
    """Over seeds alone, of the means over images: Student's t."""
    ci95_images: Interval | None
    """Over images alone, of the means over these very seeds: Student's t."""
    per_seed: tuple[float, ...]

    @classmethod
    def of(cls, values: Float[np.ndarray, "S I"]) -> Self:
        """Return the difference whose values these are, of S seeds (rows) on the same I images."""
        over_seeds = MeanOverSeeds.of(values)
        return cls(
            mean=over_seeds.mean,
            ci95=crossed_interval(values),
            ci95_seeds=over_seeds.ci95,
            ci95_images=seed_interval(values.mean(0)),
            per_seed=over_seeds.per_seed,
        )

    @property
    def interval(self) -> Interval | None:
        """The interval to judge by: of a single seed over images, of means alone over seeds."""
        return self.ci95 or self.ci95_images or self.ci95_seeds

    @property
    def sign(self) -> int:
        """Return 1 or -1 if :attr:`interval` lies above or below 0, else 0, as without any."""
        low, high = self.interval or (0.0, 0.0)
        return int(low > 0) - int(high < 0)

    def __str__(self) -> str:
        return signed(self.mean, self.interval, 3)


@dataclass(frozen=True, kw_only=True)
class KnownRow:
    """Share of test images that a probe of a model classifies after some fixations."""

    model: str
    """What the model learned from: random scans, or also the policy's."""
    order: str
    """Of the fixations; or one of REFERENCES or CONTROLS."""
    after: int
    """Fixations."""
    read_out: str
    """Features, and their probe."""
    accuracy: MeanOverSeeds
    policy_minus: Difference | None
    """The policy's accuracy on the same model minus this one; None = it is the policy's, or the
    policy has no such read-out. Of REFERENCES it is that after the last fixation."""


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What learning from the policy's orders adds, after fixations of one kind."""

    order: str
    """Of the fixations: random, or of the policy that learned on the model that is asked."""
    after: int
    read_out: str
    policy_model_minus_random_model: Difference


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area under the error curve of the reconstruction, or that plus the cost of saccades.

    Lower is better.
    """

    model: str
    order: str
    auc: MeanOverSeeds
    policy_minus: Difference | None
    """The policy's area on the same model minus this one; None = it is the policy's."""


# --- from what was measured


@dataclass(frozen=True)
class RunKnowledge:
    """What was measured of one run, on each test image."""

    correct: Mapping[Condition, Float[np.ndarray, " I"]]
    """1 = classified correctly, 0 = not."""
    areas: Mapping[str, Float[np.ndarray, " R"]]
    """Area under the error curve of the first R test images, by order."""
    paid: Mapping[str, Float[np.ndarray, " R"]] = field(default_factory=dict)
    """The same areas plus what the saccades cost; empty where they cost nothing."""
    train_images: int = 0
    """Training images that the probes used."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Why there is no number, and which images were left out."""
    commit: str = "unknown"
    """Of the code that measured."""
    tuned_commits: tuple[str, ...] = ()
    """Of the code that fine-tuned, if any did."""


def known_rows(runs: Mapping[str, Sequence[RunKnowledge]]) -> tuple[KnownRow, ...]:
    """Return what each model knows, from its runs by seed.

    References are compared with the policy's accuracy after its last fixation.
    """
    rows = []
    for model, each in runs.items():
        correct = by_seed([run.correct for run in each])
        last = max(after for order, after, _ in correct if order == POLICY)
        for (order, after, read_out), values in correct.items():
            counterpart = last if order in REFERENCES else after
            policy = correct.get((POLICY, counterpart, read_out))
            rows.append(
                KnownRow(
                    model=model,
                    order=order,
                    after=after,
                    read_out=read_out,
                    accuracy=MeanOverSeeds.of_correct(values),
                    policy_minus=None if policy is None else lead(policy, values, order),
                )
            )
    return tuple(rows)


def taught_rows(runs: Mapping[str, Sequence[RunKnowledge]]) -> tuple[Taught, ...]:
    """Return what learning from the policy's orders added, where both models were asked."""
    taught, plain = (by_seed([run.correct for run in runs[model]]) for model in (POLICY, RANDOM))
    return tuple(
        Taught(
            order=order,
            after=after,
            read_out=read_out,
            policy_model_minus_random_model=Difference.of(
                taught[order, after, read_out] - plain[order, after, read_out]
            ),
        )
        for order, after, read_out in plain
        if order in (POLICY, RANDOM)
    )


def area_rows(
    runs: Mapping[str, Sequence[RunKnowledge]],
    which: Callable[[RunKnowledge], Mapping[str, Float[np.ndarray, " R"]]] = lambda run: run.areas,
) -> tuple[Area, ...]:
    """Return the areas under the error curve of each model's orders, or other errors of a run."""
    rows = []
    for model, each in runs.items():
        areas = by_seed([which(run) for run in each])
        rows += [
            Area(
                model=model,
                order=order,
                auc=MeanOverSeeds.of(values),
                policy_minus=lead(areas[POLICY], values, order),
            )
            for order, values in areas.items()
        ]
    return tuple(rows)


def lead(
    policy: Float[np.ndarray, "S I"], values: Float[np.ndarray, "S I"], order: str
) -> Difference | None:
    """Return the policy's values minus an order's; None = the order is the policy's."""
    return None if order == POLICY else Difference.of(policy - values)


def by_seed(
    runs: Sequence[Mapping[Key, Float[np.ndarray, " I"]]],
) -> dict[Key, Float[np.ndarray, "S I"]]:
    """Stack what the runs of all seeds were asked, on the same images."""
    return {key: np.stack([np.asarray(run[key], float) for run in runs]) for key in runs[0]}
