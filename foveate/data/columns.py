"""Which columns of a table hold images, labels, splits and captions, and what is in a cell."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.choices import told
from foveate.data.column_types import (
    holds_classes,
    holds_images,
    holds_text,
    is_text,
    item_of,
    values_of,
)
from foveate.data.decoding import Encoded
from foveate.data.labels import LABEL_COLUMNS, read_json
from foveate.data.notes import say_once

if TYPE_CHECKING:
    import pyarrow

CAPTION_COLUMNS = ("captions", "caption")
"""Names of a table's sentences, text or lists of text; the first that is there."""
SPLIT_COLUMN = "split"
"""Name of a table's column of split names, unless another is chosen."""
PATH_COLUMNS = ("image", "img", "image_path", "path", "file_path", "file_name", "filename", "file")
"""Names of text columns that may hold the paths of images; of other text nobody knows."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; None where there is none."""

    image: str
    label: str | None
    split: str | None
    captions: str | None
    unread: tuple[str, ...]
    """All other columns."""

    @property
    def names(self) -> list[str]:
        """All columns that are read, each once: captions may be what is a label as well."""
        names = (self.image, self.label, self.split, self.captions)
        return list(dict.fromkeys(name for name in names if name))


def find_columns(
    file: Path | str,
    schema: pyarrow.Schema,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
) -> Columns:
    """Return the names of the columns with images, labels, splits and captions.

    Raises:
        ValueError: Two columns of one name, no image column, several without one named ``image``,
            labels that are neither numbers nor text, a ``caption_column`` that is no text, no
            ``caption_column``, or no ``split_column``; only SPLIT_COLUMN may be missing.
    """
    if len(set(schema.names)) < len(schema.names):
        raise ValueError(f"{file} has several columns of one name; its columns: {schema.names}")
    image = _image_column(file, schema, image_column)
    label = _first_usable(file, schema, LABEL_COLUMNS, holds_classes)
    if label is None and (label := next((n for n in LABEL_COLUMNS if n in schema.names), None)):
        raise ValueError(
            f"{file}: {label} must hold integers, text, true and false or whole numbers, got "
            f"{values_of(schema.field(label).type)}; convert the column or give it another name"
        )
    if caption_column is None:
        captions = _first_usable(file, schema, CAPTION_COLUMNS, holds_text)
    else:
        _check_there(file, schema, caption_column, "--caption-column")
        captions, kind = caption_column, schema.field(caption_column).type
        if not holds_text(kind):
            raise ValueError(f"{file}: {captions} must be text or lists of text, got {kind}")
    if split_column != SPLIT_COLUMN:
        _check_there(file, schema, split_column, "--split-column")
    split = split_column if split_column in schema.names else None
    unread = tuple(name for name in schema.names if name not in (image, label, split, captions))
    return Columns(image, label, split, captions, unread)


def _first_usable(
    file: Path | str,
    schema: pyarrow.Schema,
    names: Iterable[str],
    is_usable: Callable[[pyarrow.DataType], bool],
) -> str | None:
    """Return the first column of some names that is usable; others are named in a notice."""
    for name in (name for name in names if name in schema.names):
        kind = schema.field(name).type
        if is_usable(kind):
            return name
        say_once(f"not used of {file}: column {name}, of type {kind}")
    return None


def _check_there(file: Path | str, schema: pyarrow.Schema, column: str | None, option: str) -> None:
    if column not in (None, *schema.names):
        raise ValueError(
            f"{file} has no column {column!r} for {option}; its columns: {schema.names}"
        )


def check_no_columns(
    where: str,
    image_column: str | None,
    split_column: str | None,
    caption_column: str | None = None,
) -> None:
    """Check that no column is chosen of data that have none.

    Raises:
        ValueError: One is.
    """
    for name, chosen in (("image_column", image_column), ("caption_column", caption_column)):
        if chosen is not None:
            raise ValueError(f"{name} has no effect on {where}; leave it out")
    if split_column != SPLIT_COLUMN:
        raise ValueError(f"split_column has no effect on {where}; leave it out")


def say_unread(where: Path | str, columns: Iterable[str]) -> None:
    """Name the columns that are not read, in one notice; those of pandas' index mean nothing."""
    names = [name for name in dict.fromkeys(columns) if not name.startswith("__")]
    if names:
        what = "column" if len(names) == 1 else "columns"
        say_once(f"not read of {where}: {what} {', '.join(names)}")


def say_columns(name: Path | str, found: Mapping[Path, Columns]) -> None:
    """Say which columns of the files of a set are not read, and which files lack labels."""
    where = next(iter(found)) if len(found) == 1 else name
    say_unread(where, (column for each in found.values() for column in each.unread))
    without = [file for file, each in found.items() if each.label is None]
    if 0 < len(without) < len(found):
        say_once(
            f"without labels in {name}: {len(without)} of {len(found)} files, such as "
            f"{without[0].name}, have no column of labels, as others have"
        )


def image_in(cell: object, folder: Path, where: str) -> Encoded:
    """Return the image of a cell: its bytes, the file that it names, or the first of a list.

    Args:
        cell: Bytes, a path, a struct of both, or a list of these.
        folder: Where paths begin that are not absolute.
        where: What an error calls the cell.

    Raises:
        ValueError: There are no bytes and no such file.
    """
    cell = _first(cell)
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        raise ValueError(f"{where} has no image bytes; embed the images")
    if not os.path.isfile(folder / cell):
        hint = "; addresses are not opened, so store the bytes" if "://" in cell else ""
        raise ValueError(
            f"{where} has no image bytes, and no file {told(cell)} is in {folder}{hint}"
        )
    return folder / cell


def name_in(cell: object) -> str | None:
    """Return the path of a cell whose image is a file; None where the cell holds its bytes.

    A path stored beside bytes names no file, and may be that of a class or of all images.
    """
    cell = _first(cell)
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    return cell if isinstance(cell, str) and cell else None


def holds_paths(schema: pyarrow.Schema, image: str) -> bool:
    """Whether the images of a column are files that it names."""
    from pyarrow import types

    kind = item_of(schema.field(image).type)
    return is_text(kind) or (types.is_struct(kind) and kind.get_field_index("bytes") < 0)


def own_class_names(file: Path | str, schema: pyarrow.Schema, label: str | None) -> tuple[str, ...]:
    """Return the class names that a table gives.

    These are the metadata's ``class_names``, else Hugging Face's ClassLabel names, else those of a
    column of true and false, else none.

    Raises:
        ValueError: The metadata's ``class_names`` are no list of names, or a name is there twice.
    """
    names = _class_names(file, schema, label)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{file}: class_names has {twice[0]!r} twice; give every class a name of its own"
        )
    return names


def _class_names(file: Path | str, schema: pyarrow.Schema, label: str | None) -> tuple[str, ...]:
    from pyarrow import types

    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        names = read_json(metadata[b"class_names"], f"{file}: class_names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f'{file}: class_names must be a list of names, such as ["cat", "dog"]')
        return tuple(names)
    if label is None:
        return ()
    if names := _hugging_face_names(file, metadata.get(b"huggingface", b"{}"), label):
        return names
    return ("False", "True") if types.is_boolean(values_of(schema.field(label).type)) else ()


def _hugging_face_names(file: Path | str, metadata: bytes, label: str) -> tuple[str, ...]:
    """Return the names of a ClassLabel; metadata of another form are passed over with a line."""
    try:
        found: object = read_json(metadata, f"{file}: its huggingface metadata")
    except ValueError as error:
        say_once(f"passed over: {error}")
        return ()
    for key in ("info", "features", label, "names"):
        if found is None:
            return ()
        if not isinstance(found, dict):
            say_once(f"passed over: {file}: its huggingface metadata are of another form")
            return ()
        found = found.get(key)
    names = found or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        say_once(f"passed over: {file}: its huggingface names of {label} are no list of names")
        return ()
    return tuple(names)


def _first(cell: object) -> object:
    """Return the first of a list of images, the image itself where there is no list."""
    if isinstance(cell, list):
        return cell[0] if cell else None
    return cell


def _image_column(file: Path | str, schema: pyarrow.Schema, chosen: str | None) -> str:
    """Return the chosen column, else ``image``, else the only one that may hold images."""
    from pyarrow import types

    if chosen is not None:
        _check_there(file, schema, chosen, "--image-column")
        kind = schema.field(chosen).type
        if not (holds_images(kind) or is_text(item_of(kind))):
            raise ValueError(
                f"{file}: --image-column {chosen} must hold bytes, paths, structs of both or lists "
                f"of these, got {kind}"
            )
        return chosen
    images = [field.name for field in schema if holds_images(field.type)]
    # A few bytes of fixed length are a checksum rather than an image.
    likely = [name for name in images if not types.is_fixed_size_binary(schema.field(name).type)]
    paths = [
        name
        for name in PATH_COLUMNS
        if name in schema.names and is_text(item_of(schema.field(name).type))
    ]
    found = likely or images or paths
    if "image" in images:
        return "image"
    if "image" in paths:
        # Its text may be an identifier of bytes that lie in another column.
        found = ["image", *likely]
    if len(found) > 1:
        raise ValueError(
            f"{file} has several columns that may hold images, {', '.join(found)}; choose one by "
            "--image-column"
        )
    if not found:
        raise ValueError(
            f"{file} has no image column of bytes, struct{{bytes, path}} or lists of these; name "
            f"one of paths by --image-column; its columns: {schema.names}"
        )
    return found[0]
