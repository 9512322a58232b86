"""What is fitted to viewers of training images, and the rows that viewers of test images get."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from jaxtyping import Float64

from experiments.evaluation.human_contenders import Gaze
from experiments.evaluation.human_result import (
    CENTER,
    HUMAN,
    OTHER_VIEWERS,
    RETURNING,
    UNIFORM,
    VIEWERS,
    HumanRow,
)
from experiments.evaluation.human_rows import (
    Pairs,
    Viewing,
    by_image,
    contrast_ranks,
    density_facts,
    drawn_pairs,
    meant,
    other_image_pairs,
    own_pairs,
    sampled_paths,
    scanpath_facts,
    strangers,
    viewer_pairs,
)
from experiments.evaluation.human_scores import Viewed
from foveate.human.cells import Steps
from foveate.human.densities import (
    CenterBias,
    Returns,
    Softmax,
    uniform,
)
from foveate.human.metrics import information_gain_bits
from foveate.human.viewers import Viewers, left_out, of_other_images


@dataclass(frozen=True)
class Study:
    """Viewers of training and of test images, and all that is fitted to the former."""

    train: Viewed
    test: Viewed
    center: CenterBias
    viewers: Viewers
    returns: Returns
    asked: Viewing
    seed: int
    bits: dict[str, Float64[np.ndarray, " M"]] = field(default_factory=dict)
    """Bits over uniform of every row so far, by image."""

    @classmethod
    def of(cls, train: Viewed, test: Viewed, *, seed: int) -> Self:
        """Fit center bias, viewers and returns."""
        height, width = test.images.shape[2:]
        asked = Viewing(test.paths, contrast_ranks(test.images, test.paths.grid), (height, width))
        center = CenterBias.fit(train.paths)
        viewers = Viewers.fit(train.paths, center, asked.aspect)
        return cls(train, test, center, viewers, Returns.fit(train.paths), asked, seed)

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

    # --- nulls and ceilings

    def human_rows(self) -> dict[str, HumanRow]:
        """Return the rows that need no run."""
        paths, steps, aspect = self.test.paths, self.test.paths.steps, self.asked.aspect
        other = strangers(len(self.test.images), self.seed)
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
        if paths.may_return:
            densities[RETURNING], pairs[RETURNING] = self._baseline(steps), None
        return {name: self._row(name, densities[name], pairs[name]) for name in densities}

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

    def row(self, name: str, gaze: Gaze) -> HumanRow:
        """Return the row of an order or agent: a softmax of its scores, fitted on training images.

        The fit is of new cells alone, and so is the softmax; returns are the same for all.
        """
        train = self.train.paths.steps.take(slice(len(gaze.train)))
        steps = self.test.paths.steps.take(slice(len(gaze.test)))
        bias, flat = self.center.at, np.ones(self.test.paths.num_cells)
        alone = Softmax.fit(gaze.train, np.broadcast_to(flat, gaze.train.shape), train)
        beside = Softmax.fit(gaze.train, bias(train.number), train)
        on_test = np.broadcast_to(flat, gaze.test.shape)
        density = self._returning(alone.density(gaze.test, on_test, steps), steps)
        tilted = beside.density(gaze.test, bias(steps.number), steps)
        added = information_gain_bits(self._returning(tilted, steps), self._baseline(steps), steps)
        extra: dict[str, Any] = {
            "factor": alone.factor,
            **meant("with_center", by_image(added, steps.image)),
        }
        if name == "policy":
            own = self._returning(Softmax(1.0).density(gaze.test, on_test, steps), steps)
            gain = information_gain_bits(own, uniform(steps), steps)
            extra["as_trained"] = float(by_image(gain, steps.image).mean())
        row = self._row(name, density, own_pairs(gaze.path, self.test.paths))
        return replace(row, **extra)

    def _row(self, name: str, density: Float64[np.ndarray, "F N"], pairs: Pairs | None) -> HumanRow:
        steps = self.test.paths.steps.take(slice(len(density)))
        facts, self.bits[name] = density_facts(density, self._baseline(steps), steps)
        return HumanRow(gap_covered=None, **facts, **scanpath_facts(pairs, self.asked))

    def compared(self, rows: dict[str, HumanRow]) -> dict[str, HumanRow]:
        """Return the rows most bits first, each with its share of the gap and beside the policy."""
        most = rows[VIEWERS].minus_center
        done = {}
        for name in sorted(rows, key=lambda name: -rows[name].minus_center):
            row = rows[name]
            beside: dict[str, Any] = {}
            if "policy" in rows and name not in HUMAN:
                number = min(len(self.bits[name]), len(self.bits["policy"]))
                policy = self.bits["policy"][:number]
                beside = meant("minus_policy", self.bits[name][:number] - policy)
            share = row.minus_center / most if most > 0 else None
            done[name] = replace(row, gap_covered=share, **beside)
        return done
