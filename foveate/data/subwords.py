"""Subwords: byte-level BPE, which writes any text of any language, learned from given sentences.

Text is brought to one form first: Unicode's NFC, lower case, single spaces. What no merge covers is
written in bytes, so that no word is unknown.

Reference: byte pair encoding (Sennrich et al. 2016, arXiv 1508.07909) of bytes, as GPT-2's, by the
package ``tokenizers``.
"""

from __future__ import annotations

import importlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

END_OF_TEXT = "<end>"
"""Number 0, the last subword of every caption. It stands beside the tokenizer's own, so that no
text can hold it."""
LEAST_SUBWORDS = 257
"""The end, and every byte."""


@dataclass(frozen=True)
class Subwords:
    """A vocabulary of subwords, and the merges that make them; a number is a place in it."""

    vocabulary: tuple[str, ...]
    """END_OF_TEXT, then the subwords in the alphabet of byte-level BPE."""
    merges: tuple[str, ...]
    """Pairs of subwords with a space between, in the order in which they were learned."""

    @classmethod
    def learned(cls, sentences: Iterable[str], size: int) -> Subwords:
        """Learn from sentences; the same sentences give the same subwords.

        Args:
            sentences: of the training images alone.
            size: entries of the vocabulary, at most.

        Raises:
            ValueError: ``size`` has no room for all bytes, or the package is missing.
        """
        if size < LEAST_SUBWORDS:
            raise ValueError(
                f"num_subwords must be at least {LEAST_SUBWORDS}, the bytes and the end, got {size}"
            )
        package = tokenizers()
        tokenizer = _on_bytes(package, package.models.BPE())
        trainer = package.trainers.BpeTrainer(
            vocab_size=size - 1,
            initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(normalized, sentences), trainer)
        model = json.loads(tokenizer.to_str())["model"]
        numbers: dict[str, int] = model["vocab"]
        pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
        return cls((END_OF_TEXT, *sorted(numbers, key=numbers.__getitem__)), tuple(pairs))

    @cached_property
    def _tokenizer(self) -> Any:
        package = tokenizers()
        numbers = {subword: number for number, subword in enumerate(self.vocabulary[1:])}
        pairs = [tuple(pair.split(" ")) for pair in self.merges]
        return _on_bytes(package, package.models.BPE(vocab=numbers, merges=pairs))

    def numbers(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the subwords of each sentence, its end included."""
        encoded = self._tokenizer.encode_batch(list(map(normalized, sentences)))
        return [[number + 1 for number in each.ids] + [0] for each in encoded]

    def decode(self, numbers: Int[Tensor, "L"]) -> str:
        """Return the text up to its end; -1 is padding."""
        kept: list[int] = []
        for number in numbers.tolist():
            if number == 0:
                break
            if number > 0:
                kept.append(number - 1)
        text: str = self._tokenizer.decode(kept)
        return text.strip()


def normalized(text: str) -> str:
    """Return text in the one form that is read: NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def padded(rows: Sequence[Sequence[int]], length: int) -> Int[Tensor, "S L"]:
    """Return rows of numbers, cut to ``length`` and padded with -1."""
    kept = [[*row[:length], *[-1] * (length - len(row))] for row in rows]
    return torch.tensor(kept, dtype=torch.long).reshape(len(kept), length)


def tokenizers() -> Any:
    """Return the package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ValueError("captions need the package tokenizers; install .[caption]") from error


def _on_bytes(package: Any, model: Any) -> Any:
    tokenizer = package.Tokenizer(model)
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = package.decoders.ByteLevel()
    return tokenizer
