"""The rows of a data set before they are decoded, and how those of one split become pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from foveate.data import scenes
from foveate.data.decoding import Encoded, ImageSize, decode_image, height_and_width, read_header
from foveate.data.splits import choose_rows


@dataclass(frozen=True)
class Rows:
    """What a source holds, before any image is decoded."""

    name: str
    encoded: dict[str, list[Encoded]]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    names: dict[str, list[str | None]]
    """What each row is called: its path below the folder of the set or split; None: nothing."""
    where: dict[str, list[str]]
    """Where each row lies, as an error says it: a file, or a row of one."""
    captions: dict[str, list[tuple[str, ...]]] | None = None
    """Sentences about each image; None for a source without captions."""


@dataclass(frozen=True)
class Decoded:
    """What a split holds."""

    pixels: UInt8[np.ndarray, "M C H W"]
    labels: Int64[np.ndarray, " M"]
    captions: tuple[tuple[str, ...], ...] | None


def decode(rows: Rows, split: str, image_size: ImageSize | None) -> Decoded:
    """Decode one split; see :func:`foveate.data.load_data`.

    Raises:
        ValueError: No rows for the split, or an image that is unreadable, too large, gray of more
            than 8 bits or, without an image_size, of another size than the rest.
    """
    num_rows = {stored: len(labels) for stored, labels in rows.labels.items()}
    source, chosen = choose_rows(num_rows, split, rows.name)
    chosen = chosen[np.argsort(scenes.turn(rows.labels[source][chosen]), kind="stable")]
    mode, (width, height) = _mode_and_size(rows, image_size)
    pixels = np.empty((len(chosen), 1 if mode == "L" else 3, height, width), np.uint8)
    for row, number in enumerate(chosen):
        where = rows.where[source][number]
        pixels[row] = decode_image(rows.encoded[source][number], where, mode, (width, height))
    captions = None
    if rows.captions is not None:
        captions = tuple(rows.captions[source][number] for number in chosen)
    return Decoded(pixels, rows.labels[source][chosen], captions)


def _mode_and_size(rows: Rows, image_size: ImageSize | None) -> tuple[str, tuple[int, int]]:
    """Return mode, width and height that all images are brought to.

    Headers of every split are read, so that all splits agree on channels whichever is loaded.
    """
    modes, sizes = set(), set()
    for stored, encoded in rows.encoded.items():
        for item, where in zip(encoded, rows.where[stored], strict=True):
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
