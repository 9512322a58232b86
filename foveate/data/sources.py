"""Where the rows of a data set come from, and how the rows of one split become pixels.

Every source (torchvision's sets, image folders, parquet files) answers the same questions: rows,
labels and class names of each stored split. Choosing a split's rows and decoding them are shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from foveate.data import scenes
from foveate.data.decoding import Encoded, decode_image, open_image
from foveate.data.splits import choose_rows, split_in_name, split_name

if TYPE_CHECKING:
    import pyarrow

LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
"""Names of a parquet file's class numbers, the first that is there."""
CAPTION_COLUMNS = ("captions", "caption")
"""Names of a parquet file's sentences, text or lists of text; the first that is there."""
_IMAGE_SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())


@dataclass(frozen=True)
class Rows:
    """What a source holds, before any image is decoded."""

    name: str
    encoded: dict[str, list[Encoded]]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    captions: dict[str, list[tuple[str, ...]]] | None = None
    """Sentences about each image; None for a source without captions."""


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


def torchvision_rows(name: str, root: Path) -> Rows:
    """Read a torchvision set from ``root``, downloading it if it is missing.

    Raises:
        ValueError: The set is not in ``root`` and cannot be downloaded.
    """
    from torchvision import datasets

    encoded, labels, class_names = {}, {}, ()
    for split in ("train", "test"):
        chosen = {"split": split} if name == "STL10" else {"train": split == "train"}
        try:
            try:
                source = getattr(datasets, name)(root, **chosen)
            except RuntimeError:
                source = getattr(datasets, name)(root, download=True, **chosen)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} is not in {root} and cannot be downloaded ({reason}); run "
                f"torchvision.datasets.{name}({str(root)!r}, download=True) where there is a "
                "network, or give its root, a parquet file or an image folder"
            ) from error
        pixels = np.asarray(source.data)
        encoded[split] = list(pixels.transpose(0, 2, 3, 1) if name == "STL10" else pixels)
        labels[split] = np.asarray(source.labels if name == "STL10" else source.targets, np.int64)
        class_names = tuple(source.classes)
    return Rows(name, encoded, labels, class_names)


def find_rows(path: Path) -> tuple[Callable[[], Rows], list[Path]]:
    """Return how to read the rows under ``path`` and the files they come from.

    Nothing is read yet: whether the files changed decides whether they need to be.

    Raises:
        ValueError: ``path`` is a file, but not a parquet file.
    """
    if path.is_file():
        if path.suffix != ".parquet":
            raise ValueError(f"{path} is neither a parquet file nor a folder; give one of these")
        return lambda: _parquet_rows(path.parent, [path]), [path]
    files = files_under(path)
    parquet = [file for file in files if file.suffix == ".parquet"]
    if parquet:
        return lambda: _parquet_rows(path, parquet), parquet
    images = [file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES]
    return lambda: _folder_rows(path, images), images


def files_under(folder: Path) -> list[Path]:
    """Return the files in ``folder`` and below, sorted, without hidden ones."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if "/." not in f"/{file.relative_to(folder).as_posix()}"]


def _folder_rows(folder: Path, files: list[Path]) -> Rows:
    """Sort files by the class folder, and where there is one the split folder, they lie in."""
    parents = [file.relative_to(folder).parts[:-1] for file in files]
    # A folder "train" that holds images itself is a class of vehicles, not a split.
    has_splits = any(len(parts) > 1 and split_name(parts[0]) in scenes.SPLITS for parts in parents)
    found: list[tuple[str, str, Path]] = []
    for file, parts in zip(files, parents, strict=True):
        split = split_name(parts[0]) if has_splits and parts else "train"
        below = parts[1:] if has_splits else parts
        if below and split in scenes.SPLITS:
            found.append((split, below[0], file))
    if not found:
        what = "images without class folders" if files else "no images"
        raise ValueError(
            f"{what} in {folder}; expected class/image, split/class/image or parquet files (tar "
            "files need --stream)"
        )
    class_names = tuple(sorted({name for _, name, _ in found}))
    number = {name: label for label, name in enumerate(class_names)}
    encoded: dict[str, list[Encoded]] = {}
    labels: dict[str, list[int]] = {}
    for split, name, file in found:
        encoded.setdefault(split, []).append(file)
        labels.setdefault(split, []).append(number[name])
    arrays = {split: np.array(values, np.int64) for split, values in labels.items()}
    return Rows(folder.name, encoded, arrays, class_names)


def _parquet_rows(folder: Path, files: list[Path]) -> Rows:
    """Read image bytes, labels, captions and splits of all files.

    A split column wins over a split in the file's name. A set has captions where a file has some.
    """
    encoded: dict[str, list[Encoded]] = {}
    labels: dict[str, list[int]] = {}
    captions: dict[str, list[tuple[str, ...]]] = {}
    class_names: tuple[str, ...] = ()
    has_captions = False
    for file in files:
        table, columns = _read_parquet(file)
        class_names = class_names or _parquet_class_names(table.schema, columns.label)
        has_captions = has_captions or columns.captions is not None
        contents = _contents(file, table, columns.image)
        nothing = [None] * len(contents)
        numbers = table[columns.label].to_pylist() if columns.label else nothing
        written = table[columns.captions].to_pylist() if columns.captions else nothing
        default = split_in_name(file, folder)
        splits = table[columns.split].to_pylist() if columns.split else [default] * len(contents)
        rows = zip(contents, numbers, written, splits, strict=True)
        for content, number, sentences, split in rows:
            where = split_name(str(split))
            encoded.setdefault(where, []).append(content)
            labels.setdefault(where, []).append(-1 if number is None else number)
            captions.setdefault(where, []).append(_sentences(sentences))
    arrays = {split: np.array(values, np.int64) for split, values in labels.items()}
    highest = max((int(values.max()) for values in arrays.values()), default=-1)
    if class_names and highest >= len(class_names):
        raise ValueError(
            f"{files[0]}: label {highest} has no name; class_names lists {len(class_names)}"
        )
    names = () if highest < 0 else class_names or tuple(str(label) for label in range(highest + 1))
    name = files[0].stem if len(files) == 1 else folder.name
    return Rows(name, encoded, arrays, names, captions if has_captions else None)


def _read_parquet(file: Path) -> tuple[pyarrow.Table, Columns]:
    import pyarrow.parquet

    try:
        columns = parquet_columns(file, pyarrow.parquet.read_schema(file))
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


def _sentences(stored: str | list[str | None] | None) -> tuple[str, ...]:
    """Return one sentence or several as a tuple; nothing is no sentence."""
    several = [stored] if stored is None or isinstance(stored, str) else stored
    return tuple(sentence for sentence in several if sentence is not None)


def parquet_columns(file: Path, schema: pyarrow.Schema) -> Columns:
    """Return the names of the columns with images, labels, splits and captions.

    Raises:
        ValueError: No image column, labels that are no integers, or captions that are no text.
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
    return Columns(image, label, "split" if "split" in schema.names else None, captions)


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


@dataclass(frozen=True)
class Decoded:
    """What a split holds."""

    pixels: UInt8[np.ndarray, "M C H W"]
    labels: Int64[np.ndarray, " M"]
    captions: tuple[tuple[str, ...], ...] | None


def decode(rows: Rows, split: str, image_size: int | None) -> Decoded:
    """Decode one split; see :func:`foveate.data.load_data`.

    Raises:
        ValueError: No rows for the split, or an image that is unreadable, of more than 8 bits or,
            without an image_size, of another size than the rest.
    """
    num_rows = {stored: len(labels) for stored, labels in rows.labels.items()}
    source, chosen = choose_rows(num_rows, split, rows.name)
    chosen = chosen[np.argsort(scenes.turn(rows.labels[source][chosen]), kind="stable")]
    # Headers of every split are read, so that all splits agree on channels whichever is loaded.
    modes, sizes = set(), set()
    for stored, encoded in rows.encoded.items():
        for number, item in enumerate(encoded):
            with open_image(item, f"image {number} of {stored} in {rows.name}") as image:
                modes.add(image.mode)
                sizes.add(image.size)
    if image_size is None and len(sizes) > 1:
        smallest, largest = (f"{width}x{height}" for width, height in (min(sizes), max(sizes)))
        raise ValueError(
            f"{rows.name} has images of {len(sizes)} sizes, {smallest} to {largest} pixels; "
            "pass image_size to bring them to one"
        )
    mode = "L" if modes == {"L"} else "RGB"
    width, height = (image_size, image_size) if image_size else sizes.pop()
    pixels = np.empty((len(chosen), 1 if mode == "L" else 3, height, width), np.uint8)
    for row, number in enumerate(chosen):
        where = f"image {number} of {source} in {rows.name}"
        pixels[row] = decode_image(rows.encoded[source][number], where, mode, (width, height))
    captions = None
    if rows.captions is not None:
        captions = tuple(rows.captions[source][number] for number in chosen)
    return Decoded(pixels, rows.labels[source][chosen], captions)
