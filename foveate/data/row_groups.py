"""Streamed parquet: every row group is a piece; the split rules are those of ``foveate.data``.

Opening reads footers, split columns and, where something is held out of train, the names of its
rows. Rows without names are told apart by their bytes, so all of train is then read once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet
from jaxtyping import Float64, Int64

from foveate.data.columns import (
    SPLIT_COLUMN,
    Columns,
    column_of_names,
    find_columns,
    image_in,
    name_in,
    own_class_names,
    say_unread,
)
from foveate.data.labels import Classes, Label, find_classes, read_label
from foveate.data.rows import content_of
from foveate.data.samples import PieceSource, Sample, reading, shard_fingerprints
from foveate.data.splits import choose_rows, place, places, split_name


@dataclass(frozen=True)
class _RowGroup:
    file: Path
    number: int
    image: str
    label: str | None
    rows: Int64[np.ndarray, " M"]
    """Which of its rows belong to the split."""


@dataclass(frozen=True)
class ParquetSource(PieceSource):
    """One split of parquet files."""

    groups: list[_RowGroup]
    classes: Classes
    kind: ClassVar[str] = "row groups"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.classes.names

    def read(self, piece: int, row: int) -> Iterator[Sample | ValueError]:
        """Yield the split's samples of a row group, without the first ``row``."""
        group = self.groups[piece]
        if row == len(group.rows):
            return
        columns = [group.image, *([group.label] if group.label else [])]
        with _opened(group.file) as opened:
            table = _read_group(opened, group.number, columns)
        for number in group.rows[row:].tolist():
            where = f"row {number} of row group {group.number} of {group.file}"
            try:
                content = image_in(table[group.image][number].as_py(), group.file.parent, where)
            except ValueError as error:
                yield error
                continue
            label = table[group.label][number].as_py() if group.label else None
            yield Sample(content, self.classes.number(label, where), where)


def open_parquet(
    files: list[tuple[Path, str]],
    split: str,
    name: str,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
) -> ParquetSource:
    """Read footers, labels and split columns, and number each stored split's rows in all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    found = {file: _columns(file, image_column, split_column) for file, _ in files}
    for file, named in files:
        columns = found[file]
        stored_as = named if split_column else "train"
        for number, stored in enumerate(_stored_splits(file, columns.split, stored_as)):
            rows_of: dict[str, list[int]] = {}
            for row, own in enumerate(stored):
                rows_of.setdefault(own, []).append(row)
            for own in sorted(rows_of):
                rows = np.array(rows_of[own])
                first = num_rows.get(own, 0)
                groups.append(
                    (own, first, _RowGroup(file, number, columns.image, columns.label, rows))
                )
                num_rows[own] = first + len(rows)

    def places_of(stored: str) -> Float64[np.ndarray, " M"]:
        return _places([group for own, _, group in groups if own == stored])

    source, chosen = choose_rows(num_rows, split, name, places_of)
    kept = []
    for own, first, group in groups:
        low, high = np.searchsorted(chosen, (first, first + len(group.rows)))
        if own == source and low < high:
            kept.append(replace(group, rows=group.rows[chosen[low:high] - first]))
    names = [f"{group.file.name}, row group {group.number}: {len(group.rows)}" for group in kept]
    shards: dict[str, dict[Path, int]] = {}
    for own, _, group in groups:
        counts = shards.setdefault(own, {})
        counts[group.file] = counts.get(group.file, 0) + len(group.rows)
    # Of each file once, whichever splits it holds.
    beside = functools.cache(lambda file: _files_named_by(file, found[file].image))
    fingerprints = shard_fingerprints(shards, beside)
    return ParquetSource(names, fingerprints, kept, _classes(found, name))


def _files_named_by(file: Path, image: str) -> str:
    """Return a digest of the names and sizes of the images that lie beside a table of paths.

    Empty where the images lie in the table. Structs are taken to hold theirs: whether one names a
    file instead shows only in its bytes.
    """
    digest, names = hashlib.sha256(), 0
    with _opened(file) as opened:
        if column_of_names(opened.schema_arrow, image) != image:
            return ""
        for number in range(opened.num_row_groups):
            for name in filter(None, _stored_names(opened, number, image)):
                size = -1
                with contextlib.suppress(OSError):  # Reading it says that it is not there.
                    size = (file.parent / name).stat().st_size
                digest.update(f"{len(name)} {size} {name}".encode("utf-8", "surrogateescape"))
                names += 1
    return f" {digest.hexdigest()}" if names else ""


def _columns(file: Path, image_column: str | None, split_column: str | None) -> Columns:
    with _opened(file) as opened:
        return find_columns(file, opened.schema_arrow, image_column, split_column)


def _classes(found: dict[Path, Columns], name: str) -> Classes:
    """Read the labels of all files, of which those of one split may lack some class.

    Columns that a stream does not read are named in a notice.
    """
    names: tuple[str, ...] = ()
    stored: set[Label] = set()
    unread: list[str] = []
    for file, columns in found.items():
        unread += [*columns.unread, *([columns.captions] if columns.captions else [])]
        with _opened(file) as opened:
            names = names or own_class_names(file, opened.schema_arrow, columns.label)
            if columns.label:
                table = opened.read(columns=[columns.label], use_threads=False)
                table.validate(full=True)
                for value in table[columns.label].unique().to_pylist():
                    stored.add(read_label(value, str(file)))
    first = next(iter(found))
    say_unread(first if len(found) == 1 else name, unread)
    return find_classes(stored, names, str(first))


def _stored_splits(file: Path, column: str | None, default: str) -> Iterator[list[str]]:
    """Yield the stored split of every row, for each row group."""
    with _opened(file) as opened:
        for number in range(opened.num_row_groups):
            if column:
                table = _read_group(opened, number, [column])
                yield [split_name(str(own)) for own in table[column].to_pylist()]
            else:
                yield [default] * opened.metadata.row_group(number).num_rows


def _places(groups: list[_RowGroup]) -> Float64[np.ndarray, " M"]:
    """Return the places of the groups' rows, by name; where names say nothing, by content."""
    names: list[str | None] = []
    for file, own in itertools.groupby(groups, lambda group: group.file):
        with _opened(file) as opened:
            for group in own:
                stored = _stored_names(opened, group.number, group.image)
                names += [stored[row] for row in group.rows.tolist()]
    at = [(group, row) for group in groups for row in group.rows.tolist()]

    def place_of_content(number: int) -> float:
        group, row = at[number]
        state = group.file.stat()
        found = _places_of_contents(group.file, state.st_mtime_ns, group.number, group.image)
        return float(found[row])

    return places(names, place_of_content)


def _stored_names(opened: pyarrow.parquet.ParquetFile, number: int, image: str) -> list[str | None]:
    """Return what every image of a row group is called, of which no bytes are read."""
    column = column_of_names(opened.schema_arrow, image)
    if column is None:
        return [None] * opened.metadata.row_group(number).num_rows
    return [name_in(cell.as_py()) for cell in _read_group(opened, number, [column])[image]]


@functools.cache
def _places_of_contents(
    file: Path, mtime_ns: int, number: int, image: str
) -> Float64[np.ndarray, " M"]:
    """Return the places of a row group's images by their bytes, which are read once a process."""
    with _opened(file) as opened:
        table = _read_group(opened, number, [image])
    at = np.full(len(table), place(b""))
    for row, cell in enumerate(table[image]):
        with contextlib.suppress(ValueError):  # A row without an image: reading it says so.
            at[row] = place(content_of(image_in(cell.as_py(), file.parent, "")))
    return at


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    with (
        reading(file),
        pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as opened,
    ):
        yield opened


def _read_group(
    opened: pyarrow.parquet.ParquetFile, number: int, columns: list[str]
) -> pyarrow.Table:
    # Threads of its own would take the other workers' cores.
    table = opened.read_row_group(number, columns=columns, use_threads=False)
    # Damaged files can be read without an error, and then crash whoever takes a cell.
    table.validate(full=True)
    return table
