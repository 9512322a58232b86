"""The rows of a data set before they are decoded, and how those of one split become pixels."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from foveate.data import scenes
from foveate.data.decoding import Encoded, ImageSize, decode_image, height_and_width, read_header
from foveate.data.splits import Fingerprint, choose_rows, fingerprint, place


@dataclass(frozen=True)
class Rows:
    """What a source holds, before any image is decoded."""

    name: str
    encoded: dict[str, list[Encoded]]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    names: dict[str, list[str | None]]
    """The path of each image that is a file of its own, below the folder of the set or split or as
    a table names it; None: its bytes lie in a table or array."""
    where: dict[str, list[str]]
    """Where each row lies, as an error says it: a file, or a row of one."""
    captions: dict[str, list[tuple[str, ...]]] | None = None
    """Sentences about each image; None for a source without captions."""
    columns: tuple[str, ...] = ()
    """All columns of a table; empty for other sources."""

    def files_beside(self, files: Iterable[Path]) -> list[Path]:
        """Return the files of images that are not among ``files``: tables may name them."""
        every = itertools.chain.from_iterable(self.encoded.values())
        return sorted({item for item in every if isinstance(item, Path)} - set(files))


@dataclass(frozen=True)
class DecodedSplit:
    """What a split holds."""

    pixels: UInt8[np.ndarray, "M C H W"]
    labels: Int64[np.ndarray, " M"]
    captions: tuple[tuple[str, ...], ...] | None
    fingerprints: Mapping[str, Fingerprint]
    """Of every split that the set has, not of this one alone."""


def decode(
    rows: Rows, split: str, image_size: ImageSize | None, limit: int | None = None
) -> DecodedSplit:
    """Decode one split, or its first ``limit`` images; see :func:`foveate.data.load_data`.

    Raises:
        ValueError: No rows for the split, or an image that is unreadable, too large, gray of more
            than 8 bits or, without an image_size, of another size than the rest.
    """
    choose = _chooser(rows)
    source, chosen = choose(split)
    chosen = chosen[np.argsort(scenes.turn(rows.labels[source][chosen]), kind="stable")][:limit]
    mode, (width, height) = _mode_and_size(rows, image_size)
    pixels = np.empty((len(chosen), 1 if mode == "L" else 3, height, width), np.uint8)
    for row, number in enumerate(chosen):
        where = rows.where[source][number]
        pixels[row] = decode_image(rows.encoded[source][number], where, mode, (width, height))
    captions = None
    if rows.captions is not None:
        captions = tuple(rows.captions[source][number] for number in chosen)
    return DecodedSplit(pixels, rows.labels[source][chosen], captions, _fingerprints(rows, choose))


def _mode_and_size(rows: Rows, image_size: ImageSize | None) -> tuple[str, tuple[int, int]]:
    """Return mode, width and height that all images are brought to.

    Headers of every split are read, so that all splits agree on channels whichever is loaded.
    """
    modes, sizes = set(), set()
    for stored in (own for own in scenes.SPLITS if own in rows.encoded):
        for item, where in zip(rows.encoded[stored], rows.where[stored], strict=True):
            header = read_header(item, where)
            modes.add(header.mode)
            sizes.add(header.size)
    mode = "L" if modes == {"L"} else "RGB"
    if image_size is not None:
        height, width = height_and_width(image_size)
        return mode, (width, height)
    if len(sizes) > 1:
        smallest, largest = (f"{width}x{height}" for width, height in (min(sizes), max(sizes)))
        raise ValueError(
            f"{rows.name} has images of {len(sizes)} sizes, {smallest} to {largest} pixels; "
            "pass image_size to bring them to one"
        )
    return mode, sizes.pop()


_Choose: TypeAlias = Callable[[str], tuple[str, Int64[np.ndarray, " M"]]]
"""From a split to the stored one it is read from and which of its rows."""


def _chooser(rows: Rows) -> _Choose:
    """Return what chooses the rows of each split."""
    num_rows = {stored: len(labels) for stored, labels in rows.labels.items()}

    @functools.cache
    def places_of(stored: str) -> Float64[np.ndarray, " M"]:
        pairs = zip(rows.names[stored], rows.encoded[stored], strict=True)
        return np.array([place(name or content_of(item)) for name, item in pairs], np.float64)

    return lambda split: choose_rows(num_rows, split, rows.name, places_of)


def _fingerprints(rows: Rows, choose: _Choose) -> dict[str, Fingerprint]:
    """Return the fingerprints of all splits that the set has.

    Each row counts by its name or else content, and by what is known of it.
    """
    found = {}
    for split in scenes.SPLITS:
        try:
            stored, chosen = choose(split)
        except ValueError:
            continue  # Nobody asked for this one, which the set may lack.
        encoded, names = rows.encoded[stored], rows.names[stored]
        found[split] = fingerprint(
            len(chosen),
            [
                (
                    json.dumps(
                        [
                            unicodedata.normalize("NFC", names[row] or "")
                            or hashlib.sha256(content_of(encoded[row])).hexdigest(),
                            *_known_of(rows, stored, row),
                        ]
                    ),
                    _num_bytes(encoded[row]),
                )
                for row in chosen.tolist()
            ],
        )
    return found


def _known_of(rows: Rows, stored: str, row: int) -> tuple[int, str | None, Sequence[str]]:
    """Return a row's label, its name, and its captions."""
    label = int(rows.labels[stored][row])
    known = 0 <= label < len(rows.class_names)
    captions = rows.captions[stored][row] if rows.captions else ()
    return label, rows.class_names[label] if known else None, captions


def sentences_in(cell: str | list[str | None] | None) -> tuple[str, ...]:
    """Return the sentences of a cell, one or several, as a tuple; nothing is no sentence."""
    several = [cell] if cell is None or isinstance(cell, str) else cell
    return tuple(sentence for sentence in several if sentence is not None)


def content_of(item: Encoded) -> bytes:
    """Return the bytes of an image as it is stored; those of pixels begin with their shape."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, Path):
        return item.read_bytes()
    pixels = np.asarray(item)
    return repr(pixels.shape).encode() + pixels.tobytes()


def _num_bytes(item: Encoded) -> int:
    """Return how large an image is as it is stored."""
    if isinstance(item, bytes):
        return len(item)
    return item.stat().st_size if isinstance(item, Path) else np.asarray(item).nbytes
