"""What is fitted to viewers of training images, and the rows that viewers of test images get."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float64

from experiments.evaluation.human.contenders import Gaze
from experiments.evaluation.human.means import (
    CENTER,
    NEARNESS,
    OTHER_VIEWERS,
    RETURNING,
    UNIFORM,
    VIEWERS,
    ContenderFinding,
    by_image,
    joined,
)
from experiments.evaluation.human.rows import (
    Pairs,
    Viewing,
    contrast_ranks,
    density_found,
    drawn_pairs,
    habits_found,
    other_image_pairs,
    own_pairs,
    sampled_paths,
    similarity_found,
    viewer_pairs,
)
from experiments.evaluation.human.scores import Viewed
from experiments.evaluation.scanpaths import of_another_image
from experiments.tables import plural
from foveate.human.cells import Steps
from foveate.human.densities import (
    CenterBias,
    Returns,
    Softmax,
    center_of_others,
    normalized,
    uniform,
)
from foveate.human.metrics import information_gain_bits
from foveate.human.nearness import SaccadeLengths
from foveate.human.viewers import Viewers, left_out, of_other_images


@dataclass(frozen=True)
class FittedViewers:
    """Viewers of training and of test images, and all that is fitted to the former."""

    train: Viewed
    test: Viewed
    center: CenterBias
    viewers: Viewers
    returns: Returns
    nearness: SaccadeLengths
    asked: Viewing
    seed: int
    """Of what is drawn: another image for each, scanpaths of the nulls."""
    center_in_training: Float64[np.ndarray, "E N"]
    """Center bias at each scored fixation of the training images, fitted on others of them."""

    @classmethod
    def of(cls, train: Viewed, test: Viewed, *, seed: int) -> Self:
        """Fit center bias, viewers, returns and saccade lengths."""
        height, width = test.images.shape[2:]
        asked = Viewing(test.paths, contrast_ranks(test.images, test.paths.grid), (height, width))
        center = CenterBias.fit(train.paths)
        viewers = Viewers.fit(train.paths, center, asked.aspect)
        returns, of_others = Returns.fit(train.paths), center_of_others(train.paths)
        nearness = SaccadeLengths.fit(train.paths, of_others, asked.aspect)
        return cls(train, test, center, viewers, returns, nearness, asked, seed, of_others)

    @property
    def baseline(self) -> str:
        """The center bias that rows are compared with; it returns as orders and agents do."""
        return RETURNING if self.test.paths.may_return else CENTER

    def facts(self) -> dict[str, Any]:
        """Fields of the comparison that the viewers decide."""
        return {
            "baseline": self.baseline,
            "test_images": len(self.test.images),
            "train_images": len(self.train.images),
            "num_scanpaths": len(self.test.paths.cell),
            "num_fixations": len(self.test.paths.steps.cell),
            "spread": self.viewers.spread,
            "center_share": self.viewers.center_share,
        }

    @property
    def viewed_alone(self) -> Bool[np.ndarray, " M"]:
        """Test images with a single viewer, of whom no other tells anything."""
        trials = np.bincount(self.test.paths.image, minlength=len(self.test.images))
        alone: np.ndarray = trials < 2
        return alone

    def alone(self) -> tuple[str, ...]:
        """Say how many of them there are."""
        number = int(self.viewed_alone.sum())
        if number == 0:
            return ()
        return (f"test: {plural(number, 'image')} with a single viewer, not in viewers",)

    # --- nulls and ceilings

    def nulls_and_ceilings(self) -> dict[str, list[ContenderFinding]]:
        """Return what is found without a run, once of each."""
        paths, steps, aspect = self.test.paths, self.test.paths.steps, self.asked.aspect
        numbers = torch.arange(len(self.test.images)).unsqueeze(1)
        other = of_another_image(numbers, self.seed).squeeze(1).numpy()
        spread, uniform_of = self.viewers.spread, np.full((1, paths.num_cells), 1 / paths.num_cells)
        own, strange = (
            left_out(paths, spread, aspect),
            of_other_images(paths, other, spread, aspect),
        )
        densities = {
            VIEWERS: self.viewers.density(steps, own),
            OTHER_VIEWERS: self.viewers.density(steps, strange),
            CENTER: self.center.density(steps),
            UNIFORM: uniform(steps),
        }
        pairs: dict[str, Pairs | None] = {
            VIEWERS: viewer_pairs(paths),
            OTHER_VIEWERS: other_image_pairs(paths, other),
            CENTER: self._drawn(self.center.of_number),
            UNIFORM: self._drawn(uniform_of),
        }
        densities[NEARNESS], pairs[NEARNESS] = self._returning(self._near[1], steps), None
        if paths.may_return:
            densities[RETURNING], pairs[RETURNING] = self._baseline(steps), None
        if len(self.test.images) < 2:
            del densities[OTHER_VIEWERS], pairs[OTHER_VIEWERS]  # There is no other image.
        found = {name: self._found(densities[name], pairs[name]) for name in densities}
        known = found[VIEWERS].by_image.items()
        ceiling = {name: np.where(self.viewed_alone, np.nan, each) for name, each in known}
        found[VIEWERS] = replace(found[VIEWERS], by_image=ceiling)
        # In the pairs of all viewers of an image some come first more often than others.
        habits = habits_found(paths.cell, paths.image, self.asked)
        found[VIEWERS] = joined(found[VIEWERS], habits)
        return {name: [each] for name, each in found.items()}

    @cached_property
    def _near(self) -> tuple[Float64[np.ndarray, "E N"], Float64[np.ndarray, "F N"]]:
        """The center bias that knows the gaze, on training images fitted to others, and on test."""
        return (
            self.nearness.in_training(self.center_in_training, self.train.paths),
            self.nearness.density(self.center.at(self.test.paths.steps.number), self.test.paths),
        )

    def _drawn(self, of_number: Float64[np.ndarray, "T N"]) -> Pairs:
        paths = self.test.paths
        return drawn_pairs(sampled_paths(of_number, paths, self.seed), paths)

    def _baseline(self, steps: Steps) -> Float64[np.ndarray, "F N"]:
        return self._returning(self.center.density(replace(steps, may_return=False)), steps)

    def _returning(
        self, density: Float64[np.ndarray, "F N"], steps: Steps
    ) -> Float64[np.ndarray, "F N"]:
        """Let a density over new cells return, if revisits are kept."""
        return self.returns.mixed(density, steps) if steps.may_return else density

    # --- orders and agents

    def found(self, name: str, gaze: Gaze) -> ContenderFinding:
        """Return what is found of an order or agent: its density is a softmax of its scores.

        That is fitted on training images, to new cells alone; returns are the same for all.
        """
        steps = self.test.paths.steps.take(slice(len(gaze.test)))
        center = self.center_in_training, self.center.at(self.test.paths.steps.number)
        flat = np.broadcast_to(1.0, gaze.test.shape)
        factor, density = self._times(gaze, np.broadcast_to(1.0, gaze.train.shape), flat)
        added = {
            "with_center": self._added(gaze, *center),
            "with_near": self._added(gaze, *self._near),
        }
        extra = ContenderFinding(added, {"factor": factor})
        if name == "policy":
            own = self._returning(Softmax(1.0).density(gaze.test, flat, steps), steps)
            gain = self._by_image(information_gain_bits(own, uniform(steps), steps), steps)
            extra = joined(extra, ContenderFinding({}, {"as_trained": float(np.nanmean(gain))}))
        return joined(self._found(density, own_pairs(gaze.path, self.test.paths)), extra)

    def _times(
        self, gaze: Gaze, in_training: Float64[np.ndarray, "E N"], bias: Float64[np.ndarray, "F N"]
    ) -> tuple[float, Float64[np.ndarray, "F N"]]:
        """Return the fitted factor of the scores, and the density of their softmax times a bias."""
        train = self.train.paths.steps.take(slice(len(gaze.train)))
        steps = self.test.paths.steps.take(slice(len(gaze.test)))
        fitted = Softmax.fit(gaze.train, in_training, train)
        return fitted.factor, self._returning(fitted.density(gaze.test, bias, steps), steps)

    def _added(
        self, gaze: Gaze, in_training: Float64[np.ndarray, "E N"], bias: Float64[np.ndarray, "G N"]
    ) -> Float64[np.ndarray, " M"]:
        """Return the bits that scores add to a bias that they are multiplied with."""
        steps = self.test.paths.steps.take(slice(len(gaze.test)))
        bias = bias[: len(gaze.test)]
        _, density = self._times(gaze, in_training[: len(gaze.train)], bias)
        baseline = self._returning(normalized(bias, ~steps.viewed), steps)
        return self._by_image(information_gain_bits(density, baseline, steps), steps)

    def _found(self, density: Float64[np.ndarray, "F N"], pairs: Pairs | None) -> ContenderFinding:
        """Return what is found of a density and of scanpaths, if there are any."""
        steps, asked = self.test.paths.steps.take(slice(len(density))), self.asked
        found = density_found(density, self._baseline(steps), steps, asked.num_images)
        if pairs is None or not len(pairs.image):
            return found
        habits = habits_found(pairs.one, pairs.image, asked)
        return joined(found, similarity_found(pairs, asked), habits)

    def _by_image(
        self, values: Float64[np.ndarray, " F"], steps: Steps
    ) -> Float64[np.ndarray, " M"]:
        return by_image(values, steps.image, self.asked.num_images)
