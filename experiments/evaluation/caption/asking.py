"""One run is asked about the captions of test images; what it answered before is read instead.

Every answer is of a block of images. It is kept by what it depends on: the weights, these images,
the captions asked about with them, and the patches that are visible, in their order. So other
orders, fixations and more images cost no more than what is new. Which captions are asked about in a
retrieval depends on all that are retrieved: another number of these costs all its pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.evaluation.caption.likelihood import bits_per_word, nats_of_own, nats_of_pairs
from experiments.evaluation.caption.means import ByImage, Told
from experiments.evaluation.caption.retrieval import retrieved
from experiments.evaluation.kept import Kept, defaults_of
from experiments.evaluation.scanpaths import of_another_image
from experiments.runs import Run
from foveate.config import ModelConfig
from foveate.data import ImageSet
from foveate.data.subwords import normalized
from foveate.data.texts import ImageTexts, texts_of, writes_captions
from foveate.model.tracks import NOTHING
from foveate.orders import order_to_rank
from foveate.tensors import digest

KEPT = "caption.npz"
"""File of a run folder."""
ASKED_AT_ONCE = 100
"""Images whose captions are one answer that is kept."""
PAIRED_AT_ONCE = 50
"""Images whose pairs with captions are one answer that is kept."""


@dataclass(frozen=True)
class CaptionAsking:
    """A run, and those of its test images that have captions."""

    run: Run
    test: ImageSet
    texts: ImageTexts
    without: int
    """Test images without captions."""

    @classmethod
    def of(cls, run: Run, limit: int) -> Self:
        """Read test images and captions, these as the model writes them.

        Raises:
            ValueError: the model writes no captions, or less than two images have some.
        """
        config = run.model.config
        if not writes_captions(config):
            raise ValueError(
                f"the model in {run.directory} writes no captions; "
                "train one with: python -m experiments.train caption"
            )
        test = run.split("test", limit)
        told = [
            number for number, own in enumerate(test.captions or ()) if any(map(normalized, own))
        ]
        if test.captions is not None and len(told) < 2:
            raise ValueError(
                f"{len(told)} of {len(test)} test images have a caption, 2 are needed, as one is "
                "asked about with another's; give more"
            )
        without = len(test) - len(told)
        test = test.take(torch.tensor(told)) if told and without else test
        return cls(run, test, texts_of(config, test), without)

    @cached_property
    def kept(self) -> Kept:
        """What the run's model answered before."""
        model = self.run.model
        subject = {
            "iteration": self.run.iteration,
            "weights": digest(model.state_dict().values()),
            "model": asdict(model.config),
        }
        usual = {"model": defaults_of(ModelConfig)}
        return Kept(self.run.directory / KEPT, json.dumps(subject, default=str), usual)

    @cached_property
    def images(self) -> Int[Tensor, " M"]:
        """A number for each image, by which it is known again."""
        return numbers_of(self.test.images)

    @cached_property
    def captions(self) -> Int[Tensor, " M"]:
        """A number for the captions of each image."""
        return numbers_of(self.texts.tokens.split(self.texts.count.tolist()))

    def told(
        self,
        paths: Mapping[str, Int[Tensor, "M T *S"]],
        after: tuple[int, ...],
        number: int,
        candidates: int,
        seed: int,
    ) -> Told:
        """Ask how surprising captions are, and which belong to which image.

        Args:
            paths: scanpaths of each image, by whose they are; one is the policy's.
            after: numbers of fixations.
            number: the first images, which are retrieved; 0 = no retrieval.
            candidates: see :func:`experiments.evaluation.caption.retrieval.scores`.
            seed: of the images that others' captions come from, and of the retrieval's first pass.
        """
        print(f"asking {self.run.name} after fixations of {', '.join(paths)}", flush=True)
        patches = self.run.model.num_patches
        rank = {name: order_to_rank(path, patches).cpu() for name, path in paths.items()}
        with self.kept:
            policy, alone = rank["policy"], self.own(rank["policy"], NOTHING)
            other = of_another_image(torch.arange(len(self.test)).unsqueeze(1), seed).squeeze(1)
            orders = {
                name: {k: self._bits(self.own(each, k)) for k in after}
                for name, each in rank.items()
            }
            whole = self._bits(self.own(policy, patches))
            shuffled = self._bits(self.own(policy[other], patches, other))
            few, found = self.texts.among(number), None
            if number:

                def fit(wanted: Bool[Tensor, "R S"]) -> Float[Tensor, "R S"]:
                    return alone[: len(few.tokens)] - self.pairs(policy, patches, wanted)

                print(f"asking {self.run.name} which captions belong to which image", flush=True)
                found = retrieved(fit, few, candidates, seed)
        self.kept.say()
        return Told(
            orders=orders,
            whole=whole,
            alone=self._bits(alone),
            shuffled=shuffled,
            retrieved=found,
            cut=self.texts.num_cut,
            commits=frozenset(self.kept.commits),
        )

    def own(
        self, rank: Int[Tensor, "M N"], steps: int, image: Int[Tensor, " M"] | None = None
    ) -> Float[Tensor, " S"]:
        """Return the cross-entropy of every caption, nats; see :func:`nats_of_own`.

        Args:
            rank: decoding step of every patch.
            steps: the patches of rank < steps are visible; -1 = nothing is.
            image: which one is seen with the captions of each; None = their own.
        """
        image = torch.arange(len(self.test)) if image is None else image

        def ask(index: Int[Tensor, " B"]) -> Float[np.ndarray, " K"]:
            texts = self.texts.among(int(index[-1]) + 1, int(index[0]))
            pixels = self.test.images[image[index]]
            return nats_of_own(self.run.model, pixels, texts, rank[index], steps).numpy()

        found = []
        for index in torch.arange(len(self.test)).split(ASKED_AT_ONCE):
            seen = self.images[image[index]], visible(rank[index], steps)
            question = _question("own", *seen, self.captions[index])
            found.append(self.kept.answer(question, partial(ask, index)))
        return torch.from_numpy(np.concatenate(found))

    def pairs(
        self, rank: Int[Tensor, "M N"], steps: int, wanted: Bool[Tensor, "R S"]
    ) -> Float[Tensor, "R S"]:
        """Return the cross-entropy of captions given images, nats; see :func:`nats_of_pairs`.

        Args:
            rank: decoding step of every patch.
            steps: the patches of rank < steps are visible; -1 = nothing is.
            wanted: which captions are asked about with each of the first images; of others it is 0.
        """
        few = self.texts.among(len(wanted))
        found = torch.zeros(wanted.shape)

        def ask(index: Int[Tensor, " P"]) -> Float[np.ndarray, " K"]:
            images, chosen = self.test.images[index], wanted[index]
            nats = nats_of_pairs(self.run.model, images, few, rank[index], steps, chosen)
            return nats[chosen].numpy()

        for index in torch.arange(len(wanted)).split(PAIRED_AT_ONCE):
            seen = self.images[index], visible(rank[index], steps)
            question = _question("pairs", *seen, self.captions[: len(few)], wanted[index])
            nats = torch.from_numpy(self.kept.answer(question, partial(ask, index)))
            found[index] = found[index].masked_scatter(wanted[index], nats)
        return found

    def _bits(self, nats: Float[Tensor, " S"]) -> ByImage:
        return bits_per_word(nats, self.texts)


def _question(what: str, *about: Tensor) -> str:
    return f"{what}_{digest(about)[:32]}"


def numbers_of(tensors: Iterable[Tensor]) -> Int[Tensor, " M"]:
    """Return a number for each tensor, the same for equal ones alone."""
    return torch.tensor([int(digest([each])[:15], 16) for each in tensors])


def visible(rank: Int[Tensor, "M N"], steps: int) -> Int[Tensor, "M N"]:
    """Return the rank of every visible patch; -1 elsewhere, -2 where not even a periphery is seen.

    These are all that words depend on.
    """
    return rank.masked_fill(rank >= steps, -2 if steps == NOTHING else -1)
