"""Parquet files: images as structs with bytes in them, and labels, splits and captions if any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveate.data.decoding import Encoded
from foveate.data.rows import Rows
from foveate.data.splits import split_in_name, split_name

if TYPE_CHECKING:
    import pyarrow

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
"""Names of a parquet file's class numbers, the first that is there."""
CAPTION_COLUMNS = ("captions", "caption")
"""Names of a parquet file's sentences, text or lists of text; the first that is there."""

SPLIT_COLUMN = "split"
"""Name of a parquet file's column of split names, unless another is chosen."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a parquet file hold what; None where there is none."""

    image: str
    label: str | None
    split: str | None
    captions: str | None

    @property
    def names(self) -> list[str]:
        """All columns that are there."""
        return [
            name for name in (self.image, self.label, self.split, self.captions) if name is not None
        ]


def parquet_rows(folder: Path, files: list[Path], split_column: str | None) -> Rows:
    """Read image bytes, labels, captions and splits of all files.

    A split column wins over a split in the file's name. A set has captions where a file has some.
    """
    encoded: dict[str, list[Encoded]] = {}
    labels: dict[str, list[int]] = {}
    names: dict[str, list[str | None]] = {}
    captions: dict[str, list[tuple[str, ...]]] = {}
    class_names: tuple[str, ...] = ()
    has_captions = False
    for file in files:
        table, columns = _read_parquet(file, split_column)
        class_names = class_names or _parquet_class_names(table.schema, columns.label)
        has_captions = has_captions or columns.captions is not None
        contents = _contents(file, table, columns.image)
        nothing = [None] * len(contents)
        numbers = table[columns.label].to_pylist() if columns.label else nothing
        written = table[columns.captions].to_pylist() if columns.captions else nothing
        default = split_in_name(file, folder) if split_column else "train"
        splits = table[columns.split].to_pylist() if columns.split else [default] * len(contents)
        called = _names(table, columns.image)
        rows = zip(contents, called, numbers, written, splits, strict=True)
        for content, name, number, sentences, split in rows:
            where = split_name(str(split))
            encoded.setdefault(where, []).append(content)
            names.setdefault(where, []).append(name)
            labels.setdefault(where, []).append(-1 if number is None else number)
            captions.setdefault(where, []).append(_sentences(sentences))
    arrays = {split: np.array(values, np.int64) for split, values in labels.items()}
    highest = max((int(values.max()) for values in arrays.values()), default=-1)
    if class_names and highest >= len(class_names):
        raise ValueError(
            f"{files[0]}: label {highest} has no name; class_names lists {len(class_names)}"
        )
    class_names = (
        () if highest < 0 else class_names or tuple(str(label) for label in range(highest + 1))
    )
    called_so = files[0].stem if len(files) == 1 else folder.name
    told = captions if has_captions else None
    return Rows(called_so, encoded, arrays, class_names, names, told)


def _read_parquet(file: Path, split_column: str | None) -> tuple[pyarrow.Table, Columns]:
    import pyarrow.parquet

    try:
        columns = parquet_columns(file, pyarrow.parquet.read_schema(file), split_column)
        table = pyarrow.parquet.read_table(file, columns=columns.names, partitioning=None)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {file} as parquet ({error}); write it again") from error
    return table, columns


def _contents(file: Path, table: pyarrow.Table, image: str) -> list[bytes]:
    """Return the bytes of every image."""
    contents: list[bytes | None] = []
    for chunk in table[image].chunks:
        contents += chunk.field("bytes").to_pylist()
    if None in contents:
        raise ValueError(f"{file}: row {contents.index(None)} has no image bytes; embed the images")
    return [content or b"" for content in contents]


def _names(table: pyarrow.Table, image: str) -> list[str | None]:
    """Return the path that is stored with every image, if any."""
    names: list[str | None] = []
    for chunk in table[image].chunks:
        has_path = chunk.type.get_field_index("path") >= 0
        paths = chunk.field("path").to_pylist() if has_path else [None] * len(chunk)
        names += [path or None for path in paths]
    return names


def _sentences(stored: str | list[str | None] | None) -> tuple[str, ...]:
    """Return one sentence or several as a tuple; nothing is no sentence."""
    several = [stored] if stored is None or isinstance(stored, str) else stored
    return tuple(sentence for sentence in several if sentence is not None)


def parquet_columns(file: Path, schema: pyarrow.Schema, split_column: str | None) -> Columns:
    """Return the names of the columns with images, labels, splits and captions.

    Raises:
        ValueError: No image column, labels that are no integers, captions that are no text, or no
            ``split_column``; only SPLIT_COLUMN may be missing.
    """
    from pyarrow import types

    image = _image_column(file, schema)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if label and not types.is_integer(schema.field(label).type):
        raise ValueError(
            f"{file}: {label} must be an integer column, got {schema.field(label).type}"
        )
    captions = next((name for name in CAPTION_COLUMNS if name in schema.names), None)
    if captions:
        kind = schema.field(captions).type
        text = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
        if not (types.is_string(text) or types.is_large_string(text) or types.is_null(text)):
            raise ValueError(f"{file}: {captions} must be text or lists of text, got {kind}")
    if split_column not in (None, SPLIT_COLUMN, *schema.names):
        raise ValueError(
            f"{file} has no column {split_column!r} for --split-column; its columns: {schema.names}"
        )
    split = split_column if split_column in schema.names else None
    return Columns(image, label, split, captions)


def _image_column(file: Path, schema: pyarrow.Schema) -> str:
    """Return the first column of structs with bytes in them."""
    from pyarrow import types

    for field in schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            kind = field.type.field("bytes").type
            if types.is_binary(kind) or types.is_large_binary(kind):
                return str(field.name)
    raise ValueError(
        f"{file} has no image column of type struct{{bytes, path}}; its columns: {schema.names}"
    )


def _parquet_class_names(schema: pyarrow.Schema, label: str | None) -> tuple[str, ...]:
    """Return the metadata's ``class_names``, else Hugging Face's ClassLabel names, else none."""
    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        return tuple(json.loads(metadata[b"class_names"]))
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return tuple(features.get(label, {}).get("names") or ())
