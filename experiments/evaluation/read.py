"""What a model with tracks writes at the policy's fixations, and at random points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.evaluation.intervals import Interval, mean_interval
from experiments.evaluation.run_result import RunResult, minutes
from experiments.evaluation.scanpaths import scanned_in_chunks
from experiments.run_folder import git_commit
from experiments.runs import Run, say_without_policy
from experiments.tables import Table, short_commit, with_interval
from experiments.training.build import captions_of
from foveate.data.captions import BACKGROUND, Vocabulary
from foveate.data.texts import writes_captions
from foveate.orders import order_to_rank, ordering, rank_to_order

SHOWN = 3
"""Images whose sentences are kept as examples."""
SHOWN_TRACKS = 4
"""Sentences of each that are."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How much was right at some points of the images, with 95% intervals over images.

    None = of a single one.
    """

    sentences: float
    """Share of right sentences."""
    sentences_ci95: Interval | None
    images: float
    """Share of images with more right than wrong sentences."""
    images_ci95: Interval | None
    examples: tuple[str, ...] = ()
    """Of the first images: what was written, and in brackets what should have been."""


@dataclass(frozen=True, kw_only=True)
class ReadResult(RunResult):
    """Readings at the policy's fixations and at random points."""

    kind: ClassVar[str] = "read"

    points: dict[str, Reading]
    """By who chose the points."""
    tracks: int
    """Points of each image."""
    test_images: int
    train_seconds: float | None
    data: str
    seed: int
    """Seed of the training."""
    commit: str

    def tables(self) -> list[Table]:
        """Return shares of right sentences by who chose the points."""
        return [
            Table(
                caption=f"{self.data}, {self.test_images} test images, {self.tracks} points of "
                f"each, seed {self.seed}, trained for {minutes(self.train_seconds)}, "
                f"commit `{short_commit(self.commit)}`; intervals over images.",
                columns=(
                    "points",
                    "sentences right, 95% interval",
                    "most sentences of an image right",
                ),
                rows=tuple(
                    (
                        name,
                        with_interval(row.sentences, row.sentences_ci95),
                        with_interval(row.images, row.images_ci95),
                    )
                    for name, row in self.points.items()
                ),
            )
        ]

    def examples_text(self) -> str:
        """Return what was written on the first images, a line each."""
        lines = []
        for name, row in self.points.items():
            lines += [f"{name}:", *(f"    {example}" for example in row.examples)]
        return "\n".join(lines)


def read(run: Run, *, limit: int = 500, tracks: int = 8, seed: int = 0) -> ReadResult:
    """Write sentences at the policy's fixations and at random points of test images.

    Args:
        run: its model has tracks.
        limit: test images, two or more.
        tracks: points of each image that are read.
        seed: of the random points.

    Raises:
        ValueError: the model writes no words, or has no more patches than ``tracks``.
    """
    model = run.model
    if not model.config.vocabulary:
        raise ValueError(
            f"the model in {run.directory} writes no words; "
            "train one with: python -m experiments.train git"
        )
    if writes_captions(model.config):
        raise ValueError(
            f"the model in {run.directory} writes captions, not words at fixations; ask it with: "
            f"python -m experiments.caption --run {run.directory}"
        )
    if tracks >= model.num_patches:
        raise ValueError(
            f"tracks must be less than the {model.num_patches} patches of an image, got {tracks}"
        )
    say_without_policy([run])
    test = run.split("test", limit)
    captions = captions_of(run.config, test)
    images = test.batch(torch.arange(len(test)), device=torch.device(run.device))
    generator = torch.Generator().manual_seed(seed)
    random = rank_to_order(ordering("random", model.grid)(images, generator=generator))
    background = None
    if BACKGROUND in captions.sentences:
        background = captions.sentences.index(BACKGROUND)
    wanted = Vocabulary(model.config.vocabulary).encode(captions.sentences)
    # As in training tracks start at the first patches that are opened, in squares by their number.
    # What the policy does depends on the fixations that are left.
    steps = max(tracks, run.budget) if run.fixations.is_single else run.budget
    opened = scanned_in_chunks(run.agent, model, images, steps, fixations=run.fixations).order
    points = {
        "policy": rank_to_order(order_to_rank(opened, model.num_patches))[:, :tracks],
        "random": random[:, :tracks],
    }
    return ReadResult(
        points={
            name: reading(run, images, each, captions.number, wanted, background)
            for name, each in points.items()
        },
        tracks=tracks,
        test_images=len(test),
        train_seconds=run.train_seconds,
        data=run.dataset(test),
        seed=run.seed,
        commit=git_commit(),
        iteration=run.iteration,
        options={"limit": limit, "tracks": tracks, "seed": seed, **run.data_options},
    )


def reading(
    run: Run,
    images: Float[Tensor, "B C H W"],
    points: Int[Tensor, "B K"],
    sentence_of_patch: Int[Tensor, "B N"],
    sentences: Int[Tensor, "V M"],
    background: int | None,
) -> Reading:
    """Write at some points of the images, and measure how much is right.

    Args:
        run: whose model writes.
        images: pixels in [0, 1].
        points: patches to write at.
        sentence_of_patch: number of the right sentence at every patch.
        sentences: words of every sentence, padded with -1.
        background: number of the sentence that says nothing of an image; None = there is none.
    """
    number = sentence_of_patch.gather(1, points.cpu())
    wanted = sentences[number].to(points.device)
    parts = zip(images.split(100), points.split(100), strict=True)
    written = torch.cat([run.model.reader.read(run.model, part, at) for part, at in parts])
    right = same_sentence(written, wanted)
    about_image = number != background if background is not None else number >= 0
    # Over images: the tracks of one image are not independent.
    share, share_ci95 = mean_interval(right.float().mean(1).cpu().numpy())
    most, most_ci95 = mean_interval(right_in_most(right, about_image).float().cpu().numpy())
    vocabulary = Vocabulary(run.model.config.vocabulary)
    examples = []
    for image in range(min(SHOWN, len(images))):
        pairs = zip(written[image], wanted[image], strict=True)
        said = [f"{vocabulary.decode(own)} ({vocabulary.decode(true)})" for own, true in pairs]
        examples.append(f"image {image}: {'; '.join(said[:SHOWN_TRACKS])}")
    return Reading(
        sentences=share,
        sentences_ci95=share_ci95,
        images=most,
        images_ci95=most_ci95,
        examples=tuple(examples),
    )


def same_sentence(
    written: Int[Tensor, "B K L"], wanted: Int[Tensor, "B K M"]
) -> Bool[Tensor, "B K"]:
    """Return whether all words up to the end of the wanted sentence were written."""
    length = wanted.shape[2]
    return ((written[:, :, :length] == wanted) | (wanted < 0)).all(-1)


def right_in_most(
    right: Bool[Tensor, "B K"], about_image: Bool[Tensor, "B K"]
) -> Bool[Tensor, "B"]:
    """Return whether most tracks are right, of those that say something of the image.

    Those of the background say nothing. An image none of whose tracks says something is wrong.
    """
    return (right & about_image).sum(1) * 2 > about_image.sum(1)
