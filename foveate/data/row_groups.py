"""Streamed parquet: every row group is a piece; the split rules are those of ``foveate.data``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet
from jaxtyping import Int64

from foveate.data.columns import find_columns, image_in, own_class_names, say_unread
from foveate.data.labels import Classes, Label, find_classes, read_label
from foveate.data.samples import PieceSource, Sample, reading
from foveate.data.splits import choose_rows, split_name


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

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the split's samples of a row group, without the first ``row``."""
        group = self.groups[piece]
        if row == len(group.rows):
            return
        columns = [group.image, *([group.label] if group.label else [])]
        with reading(group.file), pyarrow.parquet.ParquetFile(group.file) as opened:
            # Threads of its own would take the other workers' cores.
            table = opened.read_row_group(group.number, columns=columns, use_threads=False)
            # Damaged files can be read without an error, and then crash whoever takes a cell.
            table.validate(full=True)
        for number in group.rows[row:].tolist():
            where = f"row {number} of row group {group.number} of {group.file}"
            content = image_in(table[group.image][number].as_py(), group.file.parent, where)
            label = table[group.label][number].as_py() if group.label else None
            yield Sample(content, self.classes.number(label, where), where)


def open_parquet(
    files: list[tuple[Path, str]], split: str, name: str, image_column: str | None = None
) -> ParquetSource:
    """Read footers, labels and split columns, and number each stored split's rows in all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    for file, named in files:
        with reading(file), pyarrow.parquet.ParquetFile(file) as opened:
            columns = find_columns(file, opened.schema_arrow, image_column)
            for number in range(opened.num_row_groups):
                if columns.split:
                    table = opened.read_row_group(
                        number, columns=[columns.split], use_threads=False
                    )
                    table.validate(full=True)
                    named_rows = table[columns.split].to_pylist()
                    stored = [split_name(str(own)) for own in named_rows]
                else:
                    stored = [named] * opened.metadata.row_group(number).num_rows
                for own in sorted(set(stored)):
                    rows = np.flatnonzero(np.array(stored) == own)
                    first = num_rows.get(own, 0)
                    groups.append(
                        (own, first, _RowGroup(file, number, columns.image, columns.label, rows))
                    )
                    num_rows[own] = first + len(rows)
    source, chosen = choose_rows(num_rows, split, name)
    kept = []
    for own, first, group in groups:
        low, high = np.searchsorted(chosen, (first, first + len(group.rows)))
        if own == source and low < high:
            kept.append(replace(group, rows=group.rows[chosen[low:high] - first]))
    names = [f"{group.file.name}, row group {group.number}: {len(group.rows)}" for group in kept]
    return ParquetSource(names, kept, _classes([file for file, _ in files], name, image_column))


def _classes(files: list[Path], name: str, image_column: str | None) -> Classes:
    """Read the labels of all files, of which those of one split may lack some class.

    Columns that a stream does not read are named in a notice.
    """
    names: tuple[str, ...] = ()
    stored: set[Label] = set()
    unread: list[str] = []
    for file in files:
        with reading(file), pyarrow.parquet.ParquetFile(file) as opened:
            columns = find_columns(file, opened.schema_arrow, image_column)
            unread += [*columns.unread, *([columns.captions] if columns.captions else [])]
            names = names or own_class_names(file, opened.schema_arrow, columns.label)
            if columns.label:
                table = opened.read(columns=[columns.label], use_threads=False)
                table.validate(full=True)
                for value in table[columns.label].unique().to_pylist():
                    stored.add(read_label(value, str(file)))
    say_unread(files[0] if len(files) == 1 else name, unread)
    return find_classes(stored, names, str(files[0]))
