"""What every streamed source gives: pieces, each of samples that are still encoded."""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow

from foveate.data.decoding import Encoded
from foveate.data.notes import listed
from foveate.data.scenes import SPLITS
from foveate.data.splits import Fingerprint, fingerprint, split_name, split_source

_END_BYTES = 2**16


@dataclass(frozen=True)
class Sample:
    """An image still encoded, or decoded by who made the set, and its label."""

    content: Encoded
    label: int
    where: str
    captions: tuple[str, ...] = ()
    """Sentences about the image; none where the source has none."""


@dataclass(frozen=True)
class PieceSource(ABC):
    """A data set in pieces."""

    names: list[str]
    """One for each piece; where they differ, so do the data."""
    fingerprints: Mapping[str, Fingerprint] | None
    """Of every split that has shards of its own; None: not known."""
    kind: ClassVar[str]
    """What its pieces are, in the plural."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Name of each label; None where nobody listed them."""
        return None

    def advice(self, *, shared: bool) -> str:
        """Say what to do where there are no images, be it in one worker's share alone."""
        return "remove empty ones or use fewer workers" if shared else "give some that hold any"

    def digests(self) -> dict[str, str]:
        """Return in short what is read: the pieces and, where it is known, their content."""
        names = "\n".join(self.names).encode("utf-8", "surrogateescape")
        pieces = hashlib.sha256(names).hexdigest()[:8]
        source = {"source": f"{len(self.names)} {self.kind} ({pieces})"}
        if self.fingerprints is None:
            return source
        content = "".join(found.names for found in self.fingerprints.values())
        return {**source, "content": hashlib.sha256(content.encode()).hexdigest()[:8]}

    @abstractmethod
    def read(self, piece: int, row: int) -> Iterator[Sample | ValueError]:
        """Yield the samples of a piece, without the first ``row``.

        A row whose image is missing comes as the error that says so: whether that ends the stream
        is for the reader to decide, and the row counts.
        """


def own_split(stored: Sequence[str], split: str, name: str) -> str:
    """Return what a source that nothing can be held out of calls a split."""
    own = {split_name(called): called for called in stored}
    if split not in own:
        raise ValueError(
            f"{name} has no {split} split; it has {listed(own)}, and nothing is held out of tar "
            "files and Hugging Face datasets: store the split on its own, or of tar files hold val "
            "and test out of all by --split-column None"
        )
    return own[split]


def shard_fingerprints(
    shards: Mapping[str, Mapping[Path, int]], beside: Callable[[Path], str] = lambda file: ""
) -> dict[str, Fingerprint]:
    """Return the fingerprint of every split with shards of its own.

    A shard is told by its name, size, number of rows, and a hash of its first and last 64 KiB: of
    a tar file the first header, of parquet the footer.

    Args:
        shards: For each stored split its files, and how many of its rows lie in each; 0 where
            nobody counted.
        beside: A digest of the files that a shard names, empty where it names none.
    """
    found = {}
    for split in SPLITS:
        with contextlib.suppress(ValueError):  # Nobody asked for this one, which may be missing.
            stored, _ = split_source(shards, split, "")
            if split == "train" or stored != "train":
                rows = shards[stored]
                parts = []
                for file, num_rows in rows.items():
                    told = f"{file.name} {_digest_of_ends(file)} {num_rows}{beside(file)}"
                    parts.append((told, file.stat().st_size))
                found[split] = fingerprint(sum(rows.values()), parts)
    return found


def _digest_of_ends(file: Path) -> str:
    with reading(file), file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(_END_BYTES))
        opened.seek(max(0, file.stat().st_size - _END_BYTES))
        digest.update(opened.read(_END_BYTES))
    return digest.hexdigest()


class SameDamage(ValueError):
    """A sample cannot be read for what was told of the one before it."""


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
