"""What every streamed source gives: pieces, each of samples that are still encoded."""

from __future__ import annotations

import contextlib
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow

from foveate.data.decoding import Encoded
from foveate.data.splits import split_name


@dataclass(frozen=True)
class Sample:
    """An image still encoded, or decoded by who made the set, and its label."""

    content: Encoded
    label: int
    where: str


@dataclass(frozen=True)
class PieceSource(ABC):
    """A data set in pieces."""

    names: list[str]
    """One for each piece; where they differ, so do the data."""
    kind: ClassVar[str]
    """What its pieces are, in the plural."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Name of each label; None where nobody listed them."""
        return None

    @abstractmethod
    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the samples of a piece, without the first ``row``."""


def own_split(stored: Sequence[str], split: str, name: str) -> str:
    """Return what a source that nothing can be held out of calls a split."""
    own = {split_name(called): called for called in stored}
    if split not in own:
        raise ValueError(
            f"{name} has no {split} split; it has {sorted(own)}, and nothing is held out of tar "
            "files and Hugging Face datasets: store the split on its own"
        )
    return own[split]


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name the file in what goes wrong while it is read.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        yield
    except (pyarrow.ArrowException, tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot read {file} as {file.suffix[1:]} ({reason}); write it again"
        ) from error
