"""Which questions the images of a probe can answer. One that they cannot gets a line, no number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from experiments.tables import plural
from foveate.data import ImageSet
from foveate.probes import hold_out

COLUMNS = {
    "linear": "linear",
    "sgd": "SGD",
    "attentive": "attentive",
    "knn": "k-NN",
    "knn_10": "10-NN",
}
"""Probes of frozen features in the order of the table, and its names for them."""
TITLES = {**COLUMNS, "finetune": "fine-tuning", "fixations": "recognition after fixations"}
"""All probes, and what notes call them."""
NEIGHBORS = {"knn": 20, "knn_10": 10}
"""k of the probes by neighbors."""
MOST_NAMED = 5
"""Classes that a note names before it leaves off."""


class NoLabels(ValueError):
    """The images say too little of classes, so that nothing can be probed."""


@dataclass(frozen=True)
class Questions:
    """Images that a probe can learn from and be asked of, and what it cannot be asked."""

    train: ImageSet
    test: ImageSet
    notes: dict[str, str]
    """Why a probe has no number, by its name; and what was left out, by split."""

    @classmethod
    def of(cls, train: ImageSet, test: ImageSet, probes: list[str], seed: int) -> Questions:
        """Leave out what has no answer, and say so.

        Args:
            train: training images of the probes.
            test: their test images.
            probes: what is asked, as results call it.
            seed: of the held-out images.

        Raises:
            NoLabels: a split has no labels.
        """
        notes: dict[str, str] = {}
        for split, images in (("train", train), ("test", test)):
            labeled = images.labels >= 0
            if not labeled.any():
                raise NoLabels(
                    f"the {split} split of {images.name} has no labels, so that nothing can be "
                    "probed; train on --data with labels"
                )
            if not labeled.all():
                notes[split] = f"{left_out(labeled, split)} have no label and are left out"
        train, test = with_labels(train), with_labels(test)
        # Nobody can name a class that was never shown.
        known = torch.isin(test.labels, train.labels)
        if known.any() and not known.all():
            notes["classes"] = (
                f"{left_out(known, 'test')} are of classes without a training image "
                f"({names_of(test, ~known)}) and are left out"
            )
            test = test.take(known.nonzero().flatten())
        elif not known.any():
            reason = (
                f"training lacks all classes of the {plural(len(test), 'test image')} "
                f"({names_of(test, ~known)})"
            )
            # Who asks no probe by its name is told as well.
            names = probes or ["classes"]
            return cls(train, test, {**notes, **dict.fromkeys(names, reason)})
        if len(test) == 1:
            notes["interval"] = "a single test image has no interval"
        unanswered = {name: unanswerable(name, train, seed) for name in probes}
        return cls(train, test, notes | {name: why for name, why in unanswered.items() if why})


def nothing_answers(notes: Mapping[str, str]) -> NoLabels:
    """Return the error that no probe has a number, with the reasons in the notes."""
    of_probes = [reason for name, reason in notes.items() if name in TITLES]
    reasons = "; ".join(dict.fromkeys(of_probes or notes.values()))
    return NoLabels(
        f"nothing can be probed: {reasons}; take a run or --data with images enough of two or more "
        "classes"
    )


def with_labels(images: ImageSet) -> ImageSet:
    """Return the images that have a label."""
    labeled = images.labels >= 0
    return images if labeled.all() else images.take(labeled.nonzero().flatten())


def left_out(kept: Bool[Tensor, " M"], split: str) -> str:
    """Count the images that are not kept."""
    return f"{int((~kept).sum())} of {len(kept)} {split} images"


def names_of(images: ImageSet, chosen: Bool[Tensor, " M"]) -> str:
    """Name the classes of the chosen images, the first ones."""
    classes = images.labels[chosen].unique().tolist()
    known = images.class_names
    names = [known[label] if label < len(known) else str(label) for label in classes]
    return ", ".join([*names[:MOST_NAMED], *(["..."] if len(names) > MOST_NAMED else [])])


def unanswerable(probe: str, train: ImageSet, seed: int) -> str | None:
    """Say why a probe cannot be asked after these training images; None = it can."""
    if probe in NEIGHBORS:
        if len(train.labels.unique()) < 2:
            return f"all {len(train)} training images are of one class ({train.labels[0]})"
        if len(train) < NEIGHBORS[probe]:
            return f"there are less than {NEIGHBORS[probe]} training images, {len(train)}"
        return None
    try:
        hold_out(train.labels.numpy(), seed)
    except ValueError as reason:
        return str(reason)
    return None
