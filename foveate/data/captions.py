"""Captions: the words that belong to an image, or to each of its patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from foveate.data import scenes

if TYPE_CHECKING:
    from foveate.data.images import ImageSet


BACKGROUND = "background"
"""What is written where there is no object."""


END = "."
"""The last word of every sentence."""


@dataclass(frozen=True)
class Vocabulary:
    """The different words of some sentences; numbers are places in ``words``."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Sequence[str]) -> Vocabulary:
        """Collect words, lower case, split at spaces."""
        return cls(tuple(sorted({word for s in sentences for word in s.lower().split()} | {END})))

    def encode(self, sentences: Sequence[str]) -> Int[Tensor, "M L"]:
        """Return word numbers, each sentence followed by its end and padded with -1.

        Raises:
            ValueError: a word that is not in the vocabulary.
        """
        numbers = {word: number for number, word in enumerate(self.words)}
        unknown = {w for s in sentences for w in s.lower().split()} - set(numbers)
        if unknown:
            raise ValueError(f"not in the vocabulary: {', '.join(sorted(unknown))}")
        rows = [[numbers[word] for word in [*s.lower().split(), END]] for s in sentences]
        length = max(map(len, rows), default=0)
        return torch.tensor([row + [-1] * (length - len(row)) for row in rows])

    def decode(self, numbers: Int[Tensor, "L"]) -> str:
        """Return the sentence up to its end."""
        words = [self.words[int(number)] for number in numbers if number >= 0]
        return " ".join(words[: words.index(END)] if END in words else words)


@dataclass(frozen=True)
class Captions:
    """What is to be written at each patch of each image."""

    sentences: tuple[str, ...]
    number: Int[Tensor, "M N"]
    """Which sentence belongs to patch n of image m."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of all sentences."""
        return Vocabulary.of(self.sentences)

    @cached_property
    def encoded(self) -> Int[Tensor, "S L"]:
        """Word numbers of all sentences."""
        return self.vocabulary.encode(self.sentences)

    def words(self, index: Int[Tensor, "B"], anchors: Int[Tensor, "B K"]) -> Int[Tensor, "B K L"]:
        """Return the words of tracks at ``anchors`` of the images ``index``."""
        chosen = self.number[index.cpu()].gather(1, anchors.cpu())
        return self.encoded[chosen].to(anchors.device)


def class_captions(images: ImageSet, num_patches: int) -> Captions:
    """Write ``a photo of a NAME``, wherever one looks.

    Raises:
        ValueError: an image without a label.
    """
    if not images.class_names or int(images.labels.min()) < 0:
        raise ValueError(f"{images.name} has images without a label, so that nothing can be named")
    sentences = tuple(f"a photo of a {name.lower()}" for name in images.class_names)
    return Captions(sentences, images.labels.cpu().unsqueeze(1).expand(-1, num_patches))


def scene_captions(split: str, size_px: int, grid: tuple[int, int]) -> Captions:
    """Write what is at a patch of the embedded scenes, and where: ``NAME row R column C``.

    Row and column are those of the patch that holds the object's center; elsewhere than in the
    object's box there is ``background``.
    """
    world, object_px = scenes.default_scenes(split, size_px), scenes.object_size_px(size_px)
    rows, cols = grid
    side = torch.tensor([size_px / rows, size_px / cols])
    center = ((world.corner_px + object_px / 2) / side).long()
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    middle = (torch.stack([y, x], -1).flatten(0, 1) + 0.5) * side
    away = middle - world.corner_px.unsqueeze(1)
    inside = ((away >= 0) & (away < object_px)).all(-1)
    sentences = [BACKGROUND]
    sentences += [
        f"{name.lower()} row {row} column {col}"
        for name in world.class_names
        for row in range(rows)
        for col in range(cols)
    ]
    number = 1 + (world.labels * rows + center[:, 0]) * cols + center[:, 1]
    return Captions(tuple(sentences), number.unsqueeze(1) * inside)
