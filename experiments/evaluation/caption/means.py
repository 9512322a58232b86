"""Numbers about captions, over images and runs, from what each run told of each image."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Num

from experiments.evaluation.intervals import Interval, of_shares, seeds_and_images

Name = TypeVar("Name", str, int)
ByImage = Float[np.ndarray, " M"]

RECALLS = (1, 5, 10)
"""Numbers of answers among which the right one is looked for."""


@dataclass(frozen=True, kw_only=True)
class Bits:
    """How surprising captions are, mean over images and runs.

    Of an image it is the sum over its captions, over the number of their words. 95% intervals of
    one run are over images, None = of a single one; of several over seeds and images at once.
    """

    bits_per_word: float
    bits_per_word_ci95: Interval | None
    minus_policy: float | None = None
    """That minus the policy's after as many fixations, paired over images and runs; of what has no
    fixations minus that of the whole image; above 0 = more is known there. None = it is that
    itself."""
    minus_policy_ci95: Interval | None = None
    per_seed: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Fields above by seed; empty of a single run."""

    @classmethod
    def of(cls, values: Sequence[ByImage], reference: Sequence[ByImage] | None = None) -> Bits:
        """Return the mean of bits per word of each run, and of their difference to a reference."""
        by_run = {"bits_per_word": np.stack(values)}
        if reference is not None:
            by_run["minus_policy"] = by_run["bits_per_word"] - np.stack(reference)
        fields: dict[str, Any] = {}
        for name, each in by_run.items():
            fields[name], fields[f"{name}_ci95"] = seeds_and_images(each)
        return cls(**fields, per_seed=by_seed(by_run))


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Share of questions whose right answer is among the first 1, 5 and 10."""

    recall: dict[int, float]
    recall_ci95: dict[int, Interval | None]
    """95% intervals over images, of several runs over seeds and images at once; within 0..1."""
    chance: dict[int, float]
    per_seed: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Recall by seed; empty of a single run."""

    @classmethod
    def of(cls, hits: Sequence[Mapping[int, ByImage]], chance: dict[int, float]) -> Retrieval:
        """Return the mean over images and runs of the share of questions that are answered right.

        Args:
            hits: of every run, by k, the share of each image's questions.
            chance: of a right answer among the first k.
        """
        by_run = {k: np.stack([each[k] for each in hits]) for k in hits[0]}
        means = {k: seeds_and_images(each) for k, each in by_run.items()}
        return cls(
            recall={k: mean for k, (mean, _) in means.items()},
            recall_ci95={k: of_shares(interval) for k, (_, interval) in means.items()},
            chance=chance,
            per_seed=by_seed(by_run),
        )


def by_seed(values: Mapping[Name, Num[np.ndarray, "S M"]]) -> dict[Name, tuple[float, ...]]:
    """Return each run's own means over images; nothing of a single run."""
    several = {name: each for name, each in values.items() if len(each) > 1}
    return {name: tuple(map(float, each.mean(1))) for name, each in several.items()}


# --- from what runs told


@dataclass(frozen=True)
class Retrieved:
    """What one run found, as the share of each image's questions that are answered right."""

    image_to_text: Mapping[int, ByImage]
    """By the number of answers among which the right one must be."""
    text_to_image: Mapping[int, ByImage]
    num_pairs: int
    """Pairs that the model was asked about."""


@dataclass(frozen=True)
class Told:
    """What one run told of the captions of test images: bits per word of each."""

    orders: Mapping[str, Mapping[int, ByImage]]
    """By whose fixations and how many."""
    whole: ByImage
    """All patches are visible."""
    alone: ByImage
    """Nothing is visible."""
    shuffled: ByImage
    """All patches of another image are visible."""
    retrieved: Retrieved | None = None
    """None = not asked for."""
    cut: int = 0
    """Captions that are too long for the run's subwords, of which the beginning counts."""
    commits: frozenset[str] = frozenset()
    """Of the code that asked."""


def found(
    told: Sequence[Told], chances: tuple[dict[int, float], dict[int, float]] | None
) -> dict[str, Any]:
    """Return what of a CaptionResult is a mean over runs.

    Args:
        told: by every run, of the same images.
        chances: of retrieval, both ways; None = not asked for.
    """
    whole = [each.whole for each in told]
    orders = {
        name: {k: [each.orders[name][k] for each in told] for k in row}
        for name, row in told[0].orders.items()
    }
    nats = np.stack([(each.alone - each.whole) * math.log(2) for each in told])
    mean, interval = seeds_and_images(nats)
    cut = np.array([[each.cut] for each in told])
    return {
        "orders": {
            name: {
                k: Bits.of(values, None if name == "policy" else orders["policy"][k])
                for k, values in row.items()
            }
            for name, row in orders.items()
        },
        "whole": Bits.of(whole),
        "alone": Bits.of([each.alone for each in told], whole),
        "shuffled": Bits.of([each.shuffled for each in told], whole),
        "image_nats_per_word": mean,
        "image_nats_per_word_ci95": interval,
        "cut": int(cut.max()),
        "per_seed": by_seed({"image_nats_per_word": nats, "cut": cut}),
        **retrieval_of([each.retrieved for each in told if each.retrieved is not None], chances),
    }


def retrieval_of(
    by_run: Sequence[Retrieved], chances: tuple[dict[int, float], dict[int, float]] | None
) -> dict[str, Any]:
    """Return what of a CaptionResult says how well images and captions find one another."""
    if chances is None:
        return {"image_to_text": None, "text_to_image": None, "retrieval_pairs": 0}
    of_image, of_caption = chances
    return {
        "image_to_text": Retrieval.of([each.image_to_text for each in by_run], of_image),
        "text_to_image": Retrieval.of([each.text_to_image for each in by_run], of_caption),
        "retrieval_pairs": round(statistics.fmean(each.num_pairs for each in by_run)),
    }
