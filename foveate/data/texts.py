"""The captions of images as subwords: any number of an image, also none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from foveate.config import ModelConfig
from foveate.data.columns import CAPTION_COLUMNS
from foveate.data.images import ImageSet
from foveate.data.subwords import END_OF_TEXT, Subwords, normalized, padded


@dataclass(frozen=True)
class ImageTexts:
    """The captions of a set's images.

    A caption without a letter is none. One that is longer than the model writes is cut, and has no
    end then.
    """

    subwords: Subwords
    tokens: Int[Tensor, "S L"]
    """Subwords of all captions, image by image; -1 = padding."""
    first: Int[Tensor, " M1"]
    """Where the captions of each image begin; last, how many there are."""
    num_words: Int[Tensor, " S"]
    """Words of each caption as far as it is kept, split at spaces, its end counted as one."""
    num_empty: int
    """Captions without a letter, which were left out."""
    num_cut: int
    """Captions that were cut."""

    @classmethod
    def of(
        cls, captions: Sequence[Sequence[str]], subwords: Subwords, max_words: int
    ) -> ImageTexts:
        """Turn the captions of each image into subwords, at most ``max_words`` of each."""
        kept = [[text for text in own if normalized(text)] for own in captions]
        sentences = [text for own in kept for text in own]
        rows = subwords.numbers(sentences)
        tokens = padded(rows, max_words)
        cut = [len(row) > max_words for row in rows]
        words = [
            len(subwords.decode(tokens[place]).split()) if is_cut else len(text.split()) + 1
            for place, (text, is_cut) in enumerate(zip(sentences, cut, strict=True))
        ]
        return cls(
            subwords=subwords,
            tokens=tokens,
            first=torch.tensor([0, *map(len, kept)]).cumsum(0),
            num_words=torch.tensor(words, dtype=torch.long).clamp_min(1),
            num_empty=sum(map(len, captions)) - len(sentences),
            num_cut=sum(cut),
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.first) - 1

    @property
    def count(self) -> Int[Tensor, " M"]:
        """Captions of each image."""
        return self.first.diff()

    @property
    def owner(self) -> Int[Tensor, " S"]:
        """The image of each caption."""
        return torch.arange(len(self)).repeat_interleave(self.count)

    def among(self, stop: int, start: int = 0) -> ImageTexts:
        """Return the captions of the images from ``start`` on, before ``stop``."""
        captions = slice(int(self.first[start]), int(self.first[stop]))
        return replace(
            self,
            tokens=self.tokens[captions],
            first=self.first[start : stop + 1] - self.first[start],
            num_words=self.num_words[captions],
        )

    def of_images(self, index: Int[Tensor, "B"]) -> Int[Tensor, "B K L"]:
        """Return all captions of each image, padded to the most of any image of the set."""
        place = self.first[index].unsqueeze(1) + torch.arange(int(self.count.max()))
        absent = place >= self.first[index + 1].unsqueeze(1)
        tokens = self.tokens[place.clamp_max(len(self.tokens) - 1)]
        return tokens.masked_fill(absent.unsqueeze(2), -1)

    def draw(
        self, index: Int[Tensor, "B"], generator: torch.Generator, number: int = 1
    ) -> Int[Tensor, "B K L"]:
        """Draw different captions of each image; where it has too few the rest is padding.

        Args:
            index: numbers of the images.
            generator: randomness, on the CPU.
            number: captions of each image, K.
        """
        index = index.cpu()
        if not len(self.tokens):
            return torch.full((len(index), number, self.tokens.shape[1]), -1)
        count = self.count[index].unsqueeze(1)
        noise = torch.rand(len(index), max(number, int(count.max())), generator=generator)
        absent = torch.arange(noise.shape[1]) >= count
        shift = noise.masked_fill(absent, 2).argsort(1)[:, :number]
        place = (self.first[index].unsqueeze(1) + shift).clamp_max(len(self.tokens) - 1)
        return self.tokens[place].masked_fill((shift >= count).unsqueeze(2), -1)

    def notes(self) -> Iterator[str]:
        """Say what was left out and cut, a line each."""
        without = int((self.count == 0).sum())
        length = self.tokens.shape[1]
        if without:
            yield f"{without} of {len(self)} images have no caption, and teach no words"
        if self.num_empty:
            yield f"{self.num_empty} captions are empty, and left out"
        if self.num_cut:
            yield f"{self.num_cut} captions are longer than {length} subwords, and cut there"


def writes_captions(config: ModelConfig) -> bool:
    """Whether a model writes captions, in subwords.

    The words that are read at fixation points are whole ones, and have another end.
    """
    return config.vocabulary[:1] == (END_OF_TEXT,)


def texts_for(config: ModelConfig, images: ImageSet) -> ImageTexts | None:
    """Return the captions of a set as a model writes them; None of a model that writes none.

    Raises:
        ValueError: the set has no captions.
    """
    return texts_of(config, images) if writes_captions(config) else None


def texts_of(config: ModelConfig, images: ImageSet) -> ImageTexts:
    """Return the captions of a set as a model writes them, which writes captions.

    Raises:
        ValueError: the set has no captions.
    """
    return ImageTexts.of(captions_in(images), subwords_of(config), config.max_words)


def subwords_of(config: ModelConfig) -> Subwords:
    """Return the subwords in which a model writes captions."""
    return Subwords(tuple(config.vocabulary), tuple(config.merges))


def captions_in(images: ImageSet) -> tuple[tuple[str, ...], ...]:
    """Return the captions of a set.

    Raises:
        ValueError: it has none, or all are empty; says which columns its table has.
    """
    found = f"; its columns: {list(images.columns)}" if images.columns else ""
    if images.captions is None:
        raise ValueError(
            f"{images.name} has no captions: give a table with a column of text or lists of text "
            f"named {' or '.join(CAPTION_COLUMNS)}, or name it by --caption-column, in Python "
            f"by caption_column of load_data{found}"
        )
    if not any(normalized(text) for own in images.captions for text in own):
        raise ValueError(
            f"all captions of {images.name} are empty or missing; give images that have some{found}"
        )
    return images.captions
