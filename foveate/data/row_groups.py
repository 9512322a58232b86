"""Streamed parquet: every row group is a piece; the split rules are those of ``foveate.data``.

Opening reads footers, labels and split columns. Where something is held out of train, it reads all
images of train once: bytes in a table decide their side themselves.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet
from jaxtyping import Float64, Int64

from foveate.data.cache import FileState, file_state
from foveate.data.columns import (
    SPLIT_COLUMN,
    Columns,
    find_columns,
    holds_paths,
    image_in,
    name_in,
    own_class_names,
    say_columns,
)
from foveate.data.labels import Classes, Label, find_classes_of_files, read_label
from foveate.data.rows import content_of, sentences_in
from foveate.data.samples import PieceSource, SameDamage, Sample, reading, shard_fingerprints
from foveate.data.splits import check_none_is_empty, choose_rows, place, split_name


@dataclass(frozen=True)
class _RowGroup:
    file: Path
    number: int
    image: str
    label: str | None
    captions: str | None
    rows: Int64[np.ndarray, " M"]
    """Which of its rows belong to the split."""


@dataclass(frozen=True)
class ParquetSource(PieceSource):
    """One split of parquet files."""

    groups: list[_RowGroup]
    classes: dict[Path, Classes]
    """Of each file, all with the same names."""
    kind: ClassVar[str] = "row groups"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return next(iter(self.classes.values())).names

    def read(self, piece: int, row: int) -> Iterator[Sample | ValueError]:
        """Yield the split's samples of a row group, without the first ``row``."""
        group = self.groups[piece]
        if row == len(group.rows):
            return
        own = (group.image, group.label, group.captions)
        columns = list(dict.fromkeys(name for name in own if name))
        try:
            with _opened(group.file) as opened:
                table = _read_group(opened, group.number, columns)
        except ValueError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                raise  # The file cannot be reached, which says nothing of what is in it.
            # Each of its rows is one that cannot be read, so that all are counted.
            reason = f"row group {group.number}: {error}"
            yield ValueError(reason)
            for _ in group.rows[row + 1 :]:
                yield SameDamage(reason)
            return
        for number in group.rows[row:].tolist():
            where = f"row {number} of row group {group.number} of {group.file}"
            try:
                content = image_in(table[group.image][number].as_py(), group.file.parent, where)
            except ValueError as error:
                yield error
                continue
            label = table[group.label][number].as_py() if group.label else None
            written = table[group.captions][number].as_py() if group.captions else None
            number_of_class = self.classes[group.file].number(label, where)
            yield Sample(content, number_of_class, where, sentences_in(written))


def open_parquet(
    files: list[tuple[Path, str]],
    split: str,
    name: str,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
) -> ParquetSource:
    """Read footers, labels and split columns, and number each stored split's rows in all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    chosen = image_column, split_column, caption_column
    found = {file: _columns(file, *chosen) for file, _ in files}
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
                told = columns.image, columns.label, columns.captions
                groups.append((own, first, _RowGroup(file, number, *told, rows)))
                num_rows[own] = first + len(rows)

    stated = [not split_column or found[file].split is not None for file, _ in files]
    check_none_is_empty(found, [named for _, named in files], stated, num_rows)

    def places_of(stored: str) -> Float64[np.ndarray, " M"]:
        return _places([group for own, _, group in groups if own == stored])

    source, kept_rows = choose_rows(num_rows, split, name, places_of)
    kept = []
    for own, first, group in groups:
        low, high = np.searchsorted(kept_rows, (first, first + len(group.rows)))
        if own == source and low < high:
            kept.append(replace(group, rows=group.rows[kept_rows[low:high] - first]))
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
        if not holds_paths(opened.schema_arrow, image):
            return ""
        for number in range(opened.num_row_groups):
            cells = _read_group(opened, number, [image])[image].to_pylist()
            for name in filter(None, map(name_in, cells)):
                size = -1
                with contextlib.suppress(OSError):  # Reading it says that it is not there.
                    size = (file.parent / name).stat().st_size
                digest.update(f"{len(name)} {size} {name}".encode("utf-8", "surrogateescape"))
                names += 1
    return f" {digest.hexdigest()}" if names else ""


def _columns(
    file: Path, image_column: str | None, split_column: str | None, caption_column: str | None
) -> Columns:
    with _opened(file) as opened:
        schema = opened.schema_arrow
        return find_columns(file, schema, image_column, split_column, caption_column)


def _classes(found: dict[Path, Columns], name: str) -> dict[Path, Classes]:
    """Read the labels of all files, of which those of one split may lack some class.

    Columns that a stream does not read are named in a notice.
    """
    of_file: dict[Path, tuple[set[Label], tuple[str, ...]]] = {}
    for file, columns in found.items():
        with _opened(file) as opened:
            stored: set[Label] = set()
            of_file[file] = stored, own_class_names(file, opened.schema_arrow, columns.label)
            if columns.label:
                table = opened.read(columns=[columns.label], use_threads=False)
                table.validate(full=True)
                for value in table[columns.label].unique().to_pylist():
                    stored.add(read_label(value, str(file)))
    say_columns(name, found)
    return find_classes_of_files(of_file)


def _stored_splits(file: Path, column: str | None, default: str) -> Iterator[list[str]]:
    """Yield the stored split of every row, for each row group."""
    with _opened(file) as opened:
        for number in range(opened.num_row_groups):
            if column:
                table = _read_group(opened, number, [column])
                yield [split_name(own) for own in table[column].to_pylist()]
            else:
                yield [default] * opened.metadata.row_group(number).num_rows


def _places(groups: list[_RowGroup]) -> Float64[np.ndarray, " M"]:
    """Return the places of the groups' rows, as ``foveate.data.rows`` gives them."""
    found = (
        _places_in_group(file_state(group.file), group.number, group.image)[group.rows]
        for group in groups
    )
    return np.concatenate(list(found))


@functools.cache
def _places_in_group(state: FileState, number: int, image: str) -> Float64[np.ndarray, " M"]:
    """Return the places of a row group's images, which are read once a process."""
    file = Path(state[0])
    with _opened(file) as opened:
        table = _read_group(opened, number, [image])
    at = np.full(len(table), place(b""))
    for row, stored in enumerate(table[image]):
        cell = stored.as_py()
        with contextlib.suppress(ValueError):  # A row without an image: reading it says so.
            at[row] = place(name_in(cell) or content_of(image_in(cell, file.parent, "")))
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
