"""Whose fixations are probed: every order's, the controls', and what all patches say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.evaluation.progress import Advance, Progress
from experiments.evaluation.recognition.options import ReadOut, VectorProbe
from experiments.evaluation.recognition.paths import OF_TRAINING, PathMakers, Scanpaths, scan_of
from experiments.evaluation.recognition.probes import (
    Answer,
    Prober,
    ReadBy,
    Views,
    balanced_share,
)
from experiments.evaluation.recognition.result import of_the_labels
from experiments.runs import Run
from foveate.data import ImageSet
from foveate.model import AnyOrderTransformer
from foveate.probes.partial import partial_features, path_features, pixels_after

CONTROLS = ("path_only", "distinct_pixels", "untrained_encoder")
"""Probed on the policy's path, each without a part of what the policy's features have."""
REFERENCES = ("all_patches", "periphery_alone")
"""Probed once: they do not depend on an order."""
MOST_COMPONENTS = 256
"""Principal components of the pixels that a scan has seen."""


class Answered(NamedTuple):
    """What was asked of the test images."""

    order: str
    """Or a control, or a reference."""
    after: int
    """Fixations; of all patches their number."""
    read_out: str
    probe: str
    """linear, knn or attentive."""
    label_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RecognitionAsking:
    """What is probed, and what was answered so far."""

    run: Run
    train: ImageSet
    test: ImageSet
    after: tuple[int, ...]
    """Numbers of fixations, ascending."""
    read_outs: tuple[ReadOut, ...]
    probes: tuple[VectorProbe, ...]
    """Of the read-outs that are vectors."""
    layer: int | None
    label_shares: tuple[float, ...]
    """The whole first."""
    seed: int
    correct: dict[Answered, Bool[np.ndarray, " K"]] = field(default_factory=dict)

    @cached_property
    def probers(self) -> dict[float, Prober]:
        """The probes of each share of the labels."""
        heads, device = self.run.model.config.num_heads, self.run.device
        labels, seed = self.train.labels, self.seed
        return {
            share: Prober(
                self.train, balanced_share(labels, share, seed), self.probes, heads, seed, device
            )
            for share in self.label_shares
        }

    @property
    def label_images(self) -> dict[float, int]:
        """Training images of the smaller shares: balanced over classes, at least one of each."""
        return {share: len(each.index) for share, each in self.probers.items() if share < 1}

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The probes of the read-outs."""
        of_vectors = self.probes if {*self.read_outs} != {"attentive"} else ()
        return (*of_vectors, *(("attentive",) if "attentive" in self.read_outs else ()))

    @property
    def answerable(self) -> bool:
        """Whether any of them has a number with all labels."""
        return not {*self.asked} <= {*self.probers[1.0].unanswered}

    @property
    def notes(self) -> dict[str, str]:
        """Why a probe has no number."""
        labels = {share: "after fixations" for share in self.probers}
        labels |= {
            share: of_the_labels(used, len(self.train), share)
            for share, used in self.label_images.items()
        }
        return {
            f"{probe}_of_{share:g}": f"{labels[share]}, no number of {probe}: {why}"
            for share, prober in self.probers.items()
            for probe, why in prober.unanswered.items()
            if probe in self.asked
        }

    def ask_all(self, makers: PathMakers, *, shared: bool, controls: bool) -> None:
        """Probe every order, the controls, all patches, and the periphery alone.

        Args:
            makers: the orders.
            shared: whether all orders are judged by probes of random subsets.
            controls: whether the controls are probed.
        """
        model, after = self.run.model, self.after
        judges = self.shared_judges() if shared else None
        number = len(self.train) + len(self.test)
        print(f"probing fixations: first the policy scans {number} images", file=sys.stderr)
        policy = makers.policy(self.train, self.test)
        parts = (len(CONTROLS) * controls + len(makers.asked) * len(self.probers)) * len(after)
        parts += 1 + bool(model.config.periphery)
        with Progress("probing fixations", parts, "probe") as shown:
            for name in makers.asked:
                paths = makers.paths(name, self.train, self.test, policy)
                if judges is None:
                    both = self.both(model, paths, after)
                    self.ask(name, after, *both, self.probers, shown.advance)
                else:
                    views = self.views(model, self.test, paths.test, after)
                    self.judge(name, after, views, judges, shown.advance)
            whole = {1.0: self.probers[1.0]}
            if controls:
                for name, of_both in self.controls(policy):
                    self.ask(name, after, *of_both, whole, shown.advance)
            self.ask_references(whole, shown.advance)

    def ask_references(self, probers: dict[float, Prober], advance: Advance) -> None:
        """Probe all patches, in random order, and the periphery alone."""
        model = self.run.model
        draw = torch.Generator().manual_seed(self.seed)
        full = Scanpaths(
            *(
                torch.rand(len(images), model.num_patches, generator=draw).argsort(1)
                for images in (self.train, self.test)
            )
        )
        every = (model.num_patches,)
        self.ask("all_patches", every, *self.both(model, full, every), probers, advance)
        if model.config.periphery:
            self.ask("periphery_alone", (0,), *self.both(model, full, (0,)), probers, advance)

    def controls(self, policy: Scanpaths) -> Iterator[tuple[str, tuple[Views, Views]]]:
        """Return what the controls see of both splits."""
        yield (
            "path_only",
            (
                self.path_views(self.train, policy.train),
                self.path_views(self.test, policy.test),
            ),
        )
        yield "distinct_pixels", self.pixel_views(policy)
        untrained = self.run.untrained_model(self.train.image_shape, self.seed)
        yield "untrained_encoder", self.both(untrained, policy, self.after)

    def ask(
        self,
        name: str,
        after: tuple[int, ...],
        train: Views,
        test: Views,
        probers: dict[float, Prober],
        advance: Advance,
    ) -> None:
        """Train probes for each number of fixations, and ask them.

        What they choose (C, a learning rate) they choose once, after the most fixations.
        """
        for share, prober in probers.items():
            settings = prober.choose(train, len(after) - 1)
            for entry, number in enumerate(after):
                answers = prober.fit(train, entry, settings)
                self.keep(name, number, share, answers, test, entry)
                advance(1)

    def judge(
        self,
        name: str,
        after: tuple[int, ...],
        test: Views,
        judges: dict[float, dict[ReadBy, Answer]],
        advance: Advance,
    ) -> None:
        """Ask probes that have been trained once."""
        for share, answers in judges.items():
            for entry, number in enumerate(after):
                self.keep(name, number, share, answers, test, entry)
                advance(1)

    def keep(
        self,
        name: str,
        after: int,
        share: float,
        answers: dict[ReadBy, Answer],
        test: Views,
        entry: int,
    ) -> None:
        """Keep which test images are classified correctly."""
        labels = self.test.labels.numpy()
        for (read_out, probe), answer in answers.items():
            asked = Answered(name, after, read_out, probe, share)
            self.correct[asked] = answer(test, entry) == labels

    def shared_judges(self) -> dict[float, dict[ReadBy, Answer]]:
        """Train probes once: on random fixations, each image after a random one of the numbers."""
        order = scan_of(self.run, "random")(self.train.images, OF_TRAINING)
        train = self.views(self.run.model, self.train, order, self.after)
        draw = torch.Generator().manual_seed(self.seed)
        entry = torch.randint(len(self.after), (len(self.train),), generator=draw)
        return {
            share: prober.fit(train, entry, prober.choose(train, entry))
            for share, prober in self.probers.items()
        }

    # --- what is seen

    def both(
        self, model: AnyOrderTransformer, paths: Scanpaths, after: tuple[int, ...]
    ) -> tuple[Views, Views]:
        """Return what probes see of both splits."""
        return (
            self.views(model, self.train, paths.train, after),
            self.views(model, self.test, paths.test, after),
        )

    def views(
        self,
        model: AnyOrderTransformer,
        images: ImageSet,
        order: Int[Tensor, "M T *S"],
        after: tuple[int, ...],
    ) -> Views:
        """Return what probes see of images in an order."""
        return Views.of(
            partial_features(
                model,
                images,
                order,
                after,
                pooled=[name for name in self.read_outs if name != "attentive"],
                tokens="attentive" in self.read_outs,
                layer=self.layer,
            )
        )

    def path_views(self, images: ImageSet, order: Int[Tensor, "M T *S"]) -> Views:
        """Return where a policy has been, without a pixel."""
        made = path_features(order.cpu(), self.after, self.run.model.grid)
        return Views(len(images), {"path": lambda which: made[which].numpy()})

    def pixel_views(self, policy: Scanpaths) -> tuple[Views, Views]:
        """Return the pixels that a policy has seen, as principal components of train's."""
        from sklearn.decomposition import PCA  # Takes seconds, and studies import this module.

        made: list[tuple[np.ndarray, np.ndarray]] = []
        for number in self.after:
            train, test = (
                pixels_after(self.patches(images), order.cpu(), number).numpy()
                for images, order in ((self.train, policy.train), (self.test, policy.test))
            )
            most = min(MOST_COMPONENTS, *train.shape)
            reduce = PCA(most, svd_solver="randomized", random_state=self.seed).fit(train)
            made.append((reduce.transform(train), reduce.transform(test)))
        return (
            Views(len(self.train), {"pixels": lambda which: made[which][0]}),
            Views(len(self.test), {"pixels": lambda which: made[which][1]}),
        )

    def patches(self, images: ImageSet) -> Float[Tensor, "M N P"]:
        """Return all pixels of a split, in [0, 1], as patches."""
        return self.run.model.patchify(images.images.float() / 255)
