"""Probes of what has been seen: settings chosen once per order, then trained for each k.

A probe answers with a class for every test image, so that orders can be paired over images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.evaluation.questions import NEIGHBORS, unanswerable
from experiments.evaluation.recognition.options import VectorProbe
from foveate.data import ImageSet
from foveate.probes import (
    choose_regularization,
    fit_linear,
    knn_classes,
)
from foveate.probes.attentive import attentive
from foveate.probes.heads import HeadProbe, Read
from foveate.probes.partial import PartialFeatures

Which = int | Int[Tensor, " M"]
"""An entry of the numbers of fixations, for all images or for each."""
Answer = Callable[["Views", int], Int[np.ndarray, " K"]]
"""From what is known of test images, and the entry, to a class for each."""
ReadBy = tuple[str, str]
"""Read-out and probe."""


@dataclass(frozen=True)
class Views:
    """What probes see of the images of a split, after each of several numbers of fixations."""

    num_images: int
    vectors: Mapping[str, Callable[[Which], Float[np.ndarray, "M D"]]]
    """By read-out."""
    tokens: Callable[[Which], Read] | None = None
    """Of the attentive read-out."""

    @classmethod
    def of(cls, features: PartialFeatures) -> Views:
        """Return the views of a model's features."""
        number = len(features.num_tokens)

        def vector(name: str) -> Callable[[Which], Float[np.ndarray, "M D"]]:
            values = features.pooled[name]  # type: ignore[index]
            return lambda which: values[torch.arange(number), which].numpy()

        vectors = {str(name): vector(name) for name in features.pooled}
        return cls(number, vectors, None if features.tokens is None else features.read_tokens)


@dataclass(frozen=True)
class Prober:
    """Training images of the probes, and what the probes are."""

    train: ImageSet
    index: Int[Tensor, " F"]
    """The training images that the probes learn from."""
    of_vectors: Sequence[VectorProbe]
    """Probes of vectors; tokens have one of their own, attentive."""
    num_heads: int
    seed: int
    device: str

    @cached_property
    def unanswered(self) -> dict[str, str]:
        """Why a probe has no number, of those that these images cannot answer."""
        used = self.train.take(self.index)
        probes = (*self.of_vectors, "attentive")
        why = {probe: unanswerable(probe, used, self.seed) for probe in probes}
        return {probe: reason for probe, reason in why.items() if reason}

    @property
    def labels(self) -> Int[np.ndarray, " F"]:
        """Classes of the training images used."""
        labels: Int[np.ndarray, " F"] = self.train.labels[self.index].numpy()
        return labels

    def answers(self, probe: VectorProbe) -> bool:
        """Whether vectors are probed so, and these images can answer it."""
        return probe in self.of_vectors and probe not in self.unanswered

    def choose(self, views: Views, which: Which) -> dict[ReadBy, float]:
        """Choose C, or a learning rate, on a held-out tenth; k-NN has its k."""
        found: dict[ReadBy, float] = {}
        for name in views.vectors:
            if self.answers("linear"):
                x = self.seen(views, name, which)
                found[name, "linear"] = choose_regularization(x, self.labels, seed=self.seed)[0]
            if self.answers("knn"):
                found[name, "knn"] = NEIGHBORS["knn"]
        if views.tokens is not None and "attentive" not in self.unanswered:
            read = self.tokens(views, which)
            rate, _ = self.head(views, which).choose(read, self.labels)
            found["attentive", "attentive"] = rate
        return found

    def fit(
        self, views: Views, which: Which, settings: dict[ReadBy, float]
    ) -> dict[ReadBy, Answer]:
        """Train every probe with its setting."""
        fit = {"linear": self._fit_linear, "knn": self._fit_knn, "attentive": self._fit_attentive}
        return {
            (name, probe): fit[probe](views, which, name, setting)
            for (name, probe), setting in settings.items()
        }

    def seen(self, views: Views, name: str, which: Which) -> Float[np.ndarray, "F D"]:
        """Return the vectors of the training images used."""
        return views.vectors[name](which)[self.index.numpy()]

    def tokens(self, views: Views, which: Which) -> Read:
        """Return what reads the tokens of the training images used."""
        assert views.tokens is not None, "tokens were not asked for"
        read = views.tokens(which)
        return lambda index: read(self.index[index])

    def head(self, views: Views, which: Which) -> HeadProbe:
        """Return how the attentive probe is trained."""
        width = self.tokens(views, which)(torch.arange(1)).shape[-1]
        num_classes = int(self.labels.max()) + 1
        return attentive(
            width, num_classes, num_heads=self.num_heads, seed=self.seed, device=self.device
        )

    def _fit_linear(self, views: Views, which: Which, name: str, strength: float) -> Answer:
        x = self.seen(views, name, which)
        fitted = fit_linear(x, self.labels, strength)
        return lambda test, entry: fitted.predict(test.vectors[name](entry))

    def _fit_knn(self, views: Views, which: Which, name: str, neighbors: float) -> Answer:
        x, labels, k = self.seen(views, name, which), self.labels, int(neighbors)
        return lambda test, entry: knn_classes(
            x, labels, test.vectors[name](entry), neighbors=(k,)
        )[k]

    def _fit_attentive(self, views: Views, which: Which, name: str, rate: float) -> Answer:
        probe, read = self.head(views, which), self.tokens(views, which)
        head = probe.fit(read, self.labels, rate, torch.arange(len(self.index)))

        def answer(test: Views, entry: int) -> Int[np.ndarray, " K"]:
            assert test.tokens is not None, "tokens were not asked for"
            return probe.classify(head, test.tokens(entry), torch.arange(test.num_images))

        return answer


def balanced_share(labels: Int[Tensor, " M"], share: float, seed: int) -> Int[Tensor, " F"]:
    """Draw a share of the images, equally of every class as far as there are so many; all for 1.

    A class of less images than its part gives all of them.
    """
    if share == 1:
        return torch.arange(len(labels))
    classes, generator = labels.unique(), torch.Generator().manual_seed(seed)
    each = max(1, round(share * len(labels) / len(classes)))
    shuffled = torch.randperm(len(labels), generator=generator)
    chosen = [shuffled[labels[shuffled] == label][:each] for label in classes]
    return torch.cat(chosen).sort().values
