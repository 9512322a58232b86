"""Images and the fixations of their viewers, from a parquet file.

A row is an image with parallel lists, one entry for each fixation: ``fix_subject``, and ``fix_x``
and ``fix_y`` in pixels of the stored image. The fixations of a viewer stand in the order of time;
how long they lasted is not read. Column ``split``, where there is one, says train, val or test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from torch import Tensor

from foveate.data.columns import SPLIT_COLUMN, Columns, find_columns, image_in, name_in
from foveate.data.decoding import Encoded, Header, decode_image, read_header
from foveate.data.parquet import read_whole, unreadable
from foveate.data.pictures import MODES
from foveate.data.rows import content_of
from foveate.data.splits import choose_rows, place, split_name, splits_in_names
from foveate.files import expanded

if TYPE_CHECKING:
    import pyarrow

NEEDED = ("fix_subject", "fix_x", "fix_y")
"""Columns of lists that must be there."""


@dataclass(frozen=True)
class Trial:
    """One viewer's scanpath on one image."""

    image: int
    """Number of the image among those that were read."""
    viewer: str
    place: Float64[np.ndarray, "T 2"]
    """Row and column of each fixation as shares of the image's height and width, in [0, 1)."""


@dataclass(frozen=True)
class Skipped:
    """What was left out of a file, and why."""

    fixations_outside: int = 0
    """Fixations outside the image, or outside the part of it that a model reads, or NaN."""
    trials_of_one_fixation: int = 0
    """Viewers of an image with a single fixation in it, or none: no saccade, nothing to predict."""
    images_without_viewers: int = 0
    """Images that no viewer is left of."""

    def lines(self) -> tuple[str, ...]:
        """Say what was left out, a sentence for each reason that occurred."""
        return tuple(
            f"left out: {number} {what}"
            for number, what in (
                (self.fixations_outside, "fixations outside the image"),
                (self.trials_of_one_fixation, "scanpaths of less than two fixations"),
                (self.images_without_viewers, "images without viewers"),
            )
            if number
        )


@dataclass(frozen=True)
class HumanScanpaths:
    """Images, and who looked where on them."""

    images: UInt8[Tensor, "M C H W"]
    trials: tuple[Trial, ...]
    """Sorted by image; every image has one or more."""
    skipped: Skipped
    name: str


def read_scanpaths(
    file: Path | str,
    split: str,
    *,
    image_shape: tuple[int, int, int] | None = None,
    limit: int | None = None,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
) -> HumanScanpaths:
    """Read one split of a parquet file.

    Images are brought to a size as :func:`foveate.data.load_data` does: the shorter side is
    resized and the center kept. Fixations move along. A split that the file lacks is held out of
    train by the same rules.

    Args:
        file: parquet with the columns above and an image column.
        split: train, val or test.
        image_shape: channels, height and width that a model reads; None = RGB of the first image's
            size.
        limit: the most images that are read, the first ones that have viewers; None = all.
        image_column: of the images; None = as of :func:`foveate.data.load_data`.
        split_column: of each row's split; None = hold val and test out of all rows.

    Raises:
        ValueError: no such file or column, a row of no lists, or of lists of different lengths, a
            fixation without a viewer, places that are no numbers, an unreadable image, a model that
            reads neither 1 nor 3 channels, or no image with viewers.
    """
    file = expanded(file)
    table, columns = _read_table(file, image_column, split_column)
    named = splits_in_names([file], file.parent)[0] if split_column else "train"
    chosen = _rows_of(table, columns, split, named, file)
    trials: list[Trial] = []
    pixels: list[np.ndarray] = []
    outside = single = without = 0
    for row in chosen:
        if limit is not None and len(pixels) == limit:
            break
        cells = {name: table[name][row].as_py() for name in table.column_names}
        where = f"row {row} of {file}"
        item = image_in(cells[columns.image], file.parent, where)
        header = read_header(item, where)
        if image_shape is None:
            image_shape = (3, header.size[1], header.size[0])
        found = _trials(cells, where, header, image_shape, len(pixels))
        outside, single = outside + found.outside, single + found.single
        trials += found.trials
        if found.trials:
            pixels.append(_decoded(item, where, image_shape))
        else:
            without += 1
    skipped = Skipped(outside, single, without)
    if not pixels:
        why = "".join(f"; {line}" for line in skipped.lines())
        raise ValueError(
            f"{file} has no image of its {split} split with a viewer of two or more fixations{why}"
        )
    images = torch.from_numpy(np.stack(pixels))
    return HumanScanpaths(images, tuple(trials), skipped, file.stem)


def _decoded(item: Encoded, where: str, image_shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = image_shape
    if channels not in MODES:
        raise ValueError(f"the model reads {channels} channels, pictures have 1 or 3")
    return decode_image(item, where, MODES[channels], (width, height))


def _read_table(
    file: Path, image_column: str | None, split_column: str | None
) -> tuple[pyarrow.Table, Columns]:
    """Return the columns that are read, and which of them hold images and splits."""
    import pyarrow.parquet

    if not file.is_file():
        raise ValueError(f"no file of fixations at {file}; give a parquet file")
    try:
        schema = pyarrow.parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    missing = [name for name in NEEDED if name not in schema.names]
    if missing:
        raise ValueError(
            f"{file} has no fixation columns {', '.join(missing)}; give lists of one entry for "
            f"each fixation, {', '.join(NEEDED)} (its columns: {schema.names})"
        )
    columns = find_columns(file, schema, image_column, split_column)
    wanted = [name for name in (columns.image, *NEEDED, columns.split) if name is not None]
    return read_whole(file, wanted), columns


def _rows_of(
    table: pyarrow.Table, columns: Columns, split: str, named: str, file: Path
) -> Sequence[int]:
    """Return the rows of a split; without a column of splits all are what the file's name says."""
    stated = columns.split is not None
    splits = table[columns.split].to_pylist() if stated else [named] * len(table)
    stored: dict[str, list[int]] = {}
    for row, name in enumerate(splits):
        stored.setdefault(split_name(name), []).append(row)

    def key_of(cell: object) -> str | bytes:
        return name_in(cell) or content_of(image_in(cell, file.parent, str(file)))

    def places_of(source: str) -> Float64[np.ndarray, " M"]:
        cells = (table[columns.image][row].as_py() for row in stored[source])
        return np.array([place(key_of(cell)) for cell in cells], np.float64)

    sizes = {source: len(rows) for source, rows in stored.items()}
    source, chosen = choose_rows(sizes, split, file.stem, places_of)
    return [stored[source][number] for number in chosen.tolist()]


@dataclass(frozen=True)
class _Found:
    trials: list[Trial]
    outside: int
    single: int


def _trials(
    cells: dict[str, Any],
    where: str,
    header: Header,
    image_shape: tuple[int, int, int],
    image: int,
) -> _Found:
    """Split a row's fixations by viewer; those outside are left out."""
    lists = {name: _list(cells[name], where, name) for name in NEEDED}
    lengths = {name: len(each) for name, each in lists.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{where} has lists of different lengths ({said}); give one of each")
    # What is missing is null, or NaN once pandas has held it; NaN differs from itself.
    if any(each is None or each != each for each in lists["fix_subject"]):
        raise ValueError(f"{where}: fix_subject does not name the viewer of every fixation; do so")
    viewers = [str(each) for each in lists["fix_subject"]]
    size = np.array(header.size[::-1], np.float64)
    at_px = np.stack([_numbers(lists[name], where, name) for name in ("fix_y", "fix_x")], axis=1)
    places = in_crop(at_px / size, size, np.array(image_shape[1:], np.float64))
    inside = is_inside(places)
    found, single = [], 0
    for viewer, rows in _by_viewer(viewers):
        kept = rows[inside[rows]]
        if len(kept) < 2:
            single += 1
            continue
        found.append(Trial(image, viewer, places[kept]))
    return _Found(found, int((~inside).sum()), single)


def _list(given: object, where: str, name: str) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise ValueError(f"{where}: {name} must be a list, one entry for each fixation")
    return given


def _numbers(given: Iterable[object], where: str, name: str) -> Float64[np.ndarray, " T"]:
    try:
        return np.array([np.nan if each is None else each for each in given], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {name} must hold numbers") from error


def _by_viewer(viewers: Sequence[str]) -> Iterable[tuple[str, np.ndarray]]:
    """Return each viewer's fixations in their order, viewers as they come."""
    rows: dict[str, list[int]] = {}
    for row, viewer in enumerate(viewers):
        rows.setdefault(viewer, []).append(row)
    return ((viewer, np.array(each)) for viewer, each in rows.items())


def in_crop(
    places: Float64[np.ndarray, "T 2"],
    size: Float64[np.ndarray, "2"],
    shown: Float64[np.ndarray, "2"],
) -> Float64[np.ndarray, "T 2"]:
    """Return places as shares of what is kept of an image that is resized to cover a size.

    Args:
        places: rows and columns as shares of the stored image.
        size: its height and width.
        shown: height and width that it is brought to, the center kept.
    """
    overhang = size / shown
    return (places - 0.5) * (overhang / overhang.min()) + 0.5


def is_inside(places: Float64[np.ndarray, "T 2"]) -> Bool[np.ndarray, " T"]:
    """Whether places lie in the image; NaN does not."""
    return np.all((places >= 0) & (places < 1), axis=1)
