"""Streamed parquet: every row group is a piece; the split rules are those of ``foveate.data``.

Opening reads footers, split columns and, where something is held out of train, the names of its
rows. Rows without names are told apart by their bytes, so all of train is then read once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Float64, Int64

from foveate.data.parquet import SPLIT_COLUMN, Columns, parquet_columns
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
    kind: ClassVar[str] = "row groups"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the split's samples of a row group, without the first ``row``."""
        group = self.groups[piece]
        if row == len(group.rows):
            return
        columns = [f"{group.image}.bytes", *([group.label] if group.label else [])]
        table = _read_group(group.file, group.number, columns)
        contents = pyarrow.compute.struct_field(table[group.image], "bytes")
        for number in group.rows[row:].tolist():
            where = f"row {number} of row group {group.number} of {group.file}"
            content = contents[number].as_py()
            if content is None:
                raise ValueError(f"{where} has no image bytes; embed the images")
            label = table[group.label][number].as_py() if group.label else None
            yield Sample(content, -1 if label is None else label, where)


def open_parquet(
    files: list[tuple[Path, str]], split: str, name: str, split_column: str | None = SPLIT_COLUMN
) -> ParquetSource:
    """Read footers and split columns, and number each stored split's rows over all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    for file, named in files:
        for number, (columns, stored) in enumerate(_stored_splits(file, named, split_column)):
            for own in sorted(set(stored)):
                rows = np.flatnonzero(np.array(stored) == own)
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
    return ParquetSource(names, shard_fingerprints(shards), kept)


def _stored_splits(
    file: Path, named: str, split_column: str | None
) -> Iterator[tuple[Columns, list[str]]]:
    """Yield the columns of a file, and the stored split of every row, for each row group."""
    with reading(file), pyarrow.parquet.ParquetFile(file) as opened:
        columns = parquet_columns(file, opened.schema_arrow, split_column)
        for number in range(opened.num_row_groups):
            if columns.split:
                table = opened.read_row_group(number, columns=[columns.split], use_threads=False)
                yield columns, [split_name(str(own)) for own in table[columns.split].to_pylist()]
            else:
                named = named if split_column else "train"
                yield columns, [named] * opened.metadata.row_group(number).num_rows


def _places(groups: list[_RowGroup]) -> Float64[np.ndarray, " M"]:
    """Return the places of the groups' rows, by name; where names say nothing, by content."""
    names: list[str | None] = []
    for file, own in itertools.groupby(groups, lambda group: group.file):
        with reading(file), pyarrow.parquet.ParquetFile(file) as opened:
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
    """Return the path that is stored with every image of a row group, if any."""
    if opened.schema_arrow.field(image).type.get_field_index("path") < 0:
        return [None] * opened.metadata.row_group(number).num_rows
    table = opened.read_row_group(number, columns=[f"{image}.path"], use_threads=False)
    return [path or None for path in pyarrow.compute.struct_field(table[image], "path").to_pylist()]


@functools.cache
def _places_of_contents(
    file: Path, mtime_ns: int, number: int, image: str
) -> Float64[np.ndarray, " M"]:
    """Return the places of a row group's images by their bytes, which are read once a process."""
    table = _read_group(file, number, [f"{image}.bytes"])
    contents = pyarrow.compute.struct_field(table[image], "bytes")
    return np.array([place(content.as_py() or b"") for content in contents], np.float64)


def _read_group(file: Path, number: int, columns: list[str]) -> pyarrow.Table:
    with reading(file), pyarrow.parquet.ParquetFile(file) as opened:
        # Threads of its own would take the other workers' cores.
        return opened.read_row_group(number, columns=columns, use_threads=False)
