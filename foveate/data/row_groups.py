"""Streamed parquet: every row group is a piece; the split rules are those of ``foveate.data``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Int64

from foveate.data.parquet import parquet_columns
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
    kind: ClassVar[str] = "row groups"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the split's samples of a row group, without the first ``row``."""
        group = self.groups[piece]
        if row == len(group.rows):
            return
        columns = [f"{group.image}.bytes", *([group.label] if group.label else [])]
        with reading(group.file), pyarrow.parquet.ParquetFile(group.file) as opened:
            # Threads of its own would take the other workers' cores.
            table = opened.read_row_group(group.number, columns=columns, use_threads=False)
        contents = pyarrow.compute.struct_field(table[group.image], "bytes")
        for number in group.rows[row:].tolist():
            where = f"row {number} of row group {group.number} of {group.file}"
            content = contents[number].as_py()
            if content is None:
                raise ValueError(f"{where} has no image bytes; embed the images")
            label = table[group.label][number].as_py() if group.label else None
            yield Sample(content, -1 if label is None else label, where)


def open_parquet(files: list[tuple[Path, str]], split: str, name: str) -> ParquetSource:
    """Read footers and split columns, and number each stored split's rows over all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    for file, named in files:
        with reading(file), pyarrow.parquet.ParquetFile(file) as opened:
            columns = parquet_columns(file, opened.schema_arrow)
            for number in range(opened.num_row_groups):
                if columns.split:
                    table = opened.read_row_group(
                        number, columns=[columns.split], use_threads=False
                    )
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
    return ParquetSource(names, kept)
