"""Tables of images: parquet files, and the Arrow files that ``datasets.save_to_disk`` writes.

Images may be bytes, structs of bytes and path, paths, or lists of these, of which the first counts.
Labels, splits and captions are read where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.columns import (
    SPLIT_COLUMN,
    Columns,
    find_columns,
    image_in,
    name_in,
    own_class_names,
    say_columns,
)
from foveate.data.decoding import Encoded
from foveate.data.labels import Label, find_classes_of_files, read_json, read_label
from foveate.data.rows import Rows, sentences_in
from foveate.data.splits import check_none_is_empty, split_name, splits_in_names

if TYPE_CHECKING:
    import pyarrow

SAVED_NOTES = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
"""What ``datasets.save_to_disk`` writes beside its Arrow files."""
_ARROW_FILE = b"ARROW1"
"""What an Arrow file begins with; a stream begins otherwise."""


def table_rows(
    folder: Path,
    files: list[Path],
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
    *,
    called: str | None = None,
) -> Rows:
    """Read the images, labels, captions and splits of all files.

    A split column wins over a split in the file's name. A single file may be ``called`` otherwise
    than it is named, as a link to it is. Without ``split_column`` neither counts, and all is train.
    A set has captions where a file has some.

    Raises:
        ValueError: A file that cannot be read, or columns or cells that are none of those above.
    """
    encoded: dict[str, list[Encoded]] = {}
    stored: dict[str, list[tuple[Path, Label]]] = {}
    names: dict[str, list[str | None]] = {}
    where: dict[str, list[str]] = {}
    captions: dict[str, list[tuple[str, ...]]] = {}
    of_file: dict[Path, tuple[set[Label], tuple[str, ...]]] = {}
    found: list[Columns] = []
    named = files if called is None else [folder / called]
    in_names = splits_in_names(named, folder) if split_column else ["train"] * len(files)
    for file, default in zip(files, in_names, strict=True):
        table, columns = _read_table(file, image_column, split_column, caption_column)
        found.append(columns)
        occur: set[Label] = set()
        of_file[file] = occur, own_class_names(file, table.schema, columns.label)
        numbers = table[columns.label].to_pylist() if columns.label else [None] * len(table)
        written = table[columns.captions].to_pylist() if columns.captions else [None] * len(table)
        splits = table[columns.split].to_pylist() if columns.split else [default] * len(table)
        rows = zip(table[columns.image], numbers, written, splits, strict=True)
        for row, (image, number, sentences, split) in enumerate(rows):
            cell, place, own = image.as_py(), f"row {row} of {file}", split_name(split)
            encoded.setdefault(own, []).append(image_in(cell, file.parent, place))
            names.setdefault(own, []).append(name_in(cell))
            where.setdefault(own, []).append(place)
            stored.setdefault(own, []).append((file, label := read_label(number, place)))
            occur.add(label)
            captions.setdefault(own, []).append(sentences_in(sentences))
    check_none_is_empty(files, in_names, [each.split is not None for each in found], encoded)
    say_columns(folder, dict(zip(files, found, strict=True)))
    classes = find_classes_of_files(of_file)
    return Rows(
        name=files[0].stem if len(files) == 1 else folder.name,
        encoded=encoded,
        labels={
            own: np.array([classes[file].number(each, "a row") for file, each in labels], np.int64)
            for own, labels in stored.items()
        },
        class_names=classes[files[0]].names,
        names=names,
        where=where,
        captions=captions if any(each.captions for each in found) else None,
        columns=_all_names(found),
    )


def _all_names(found: list[Columns]) -> tuple[str, ...]:
    """Return the names of all columns, those of the first file first."""
    return tuple(dict.fromkeys(name for each in found for name in (*each.names, *each.unread)))


def saved_files(files: list[Path]) -> list[Path]:
    """Return those of the Arrow files that belong to sets, as ``state.json`` beside them says.

    A folder that datasets wrote to also holds what ``map`` has cached there, as ``cache-*``.
    """
    belong = []
    for file in files:
        state = file.parent / "state.json"
        listed = _listed(read_json(state.read_bytes(), str(state))) if state.is_file() else None
        is_cached = file.name.startswith("cache-") if listed is None else file.name not in listed
        if not is_cached:
            belong.append(file)
    return belong


def _listed(state: object) -> set[object] | None:
    """Return the names of a set's files; None where its state does not list them."""
    listed = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(listed, list):
        return None
    return {each.get("filename") for each in listed if isinstance(each, dict)}


def _read_table(
    file: Path, image_column: str | None, split_column: str | None, caption_column: str | None
) -> tuple[pyarrow.Table, Columns]:
    import pyarrow.parquet

    if file.suffix == ".arrow":
        table = _read_arrow(file)
        return table, find_columns(file, table.schema, image_column, split_column, caption_column)
    try:
        schema = pyarrow.parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    columns = find_columns(file, schema, image_column, split_column, caption_column)
    return read_whole(file, columns.names), columns


def read_whole(file: Path, columns: Sequence[str]) -> pyarrow.Table:
    """Read columns of a parquet file.

    Raises:
        ValueError: it cannot be read, or is damaged.
    """
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(
            file, columns=list(columns), partitioning=None, page_checksum_verification=True
        )
        # Damaged files can be read without an error, and then crash whoever takes a cell.
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    return table


def unreadable(file: Path, error: Exception) -> ValueError:
    """Return what is raised of a parquet file that cannot be read."""
    reason = " ".join(str(error).split())
    return ValueError(f"cannot read {file} as parquet ({reason}); write it again")


def _read_arrow(file: Path) -> pyarrow.Table:
    """Read the Arrow stream of a file, or its Arrow file (Feather)."""
    import pyarrow

    try:
        content = pyarrow.memory_map(str(file))
        is_file = content.read_at(len(_ARROW_FILE), 0) == _ARROW_FILE
        opened = pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream
        table = opened(content).read_all()
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot read {file} as datasets.save_to_disk writes it ({reason}); convert it by "
            f"datasets.load_from_disk({str(file.parent)!r}).to_parquet('train.parquet')"
        ) from error
    return table
