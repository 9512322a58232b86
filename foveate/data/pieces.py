"""Where streamed images come from: row groups of parquet, tar files, shards of Hugging Face sets.

Each is cut into pieces that can be read on their own, from any row on; ``foveate.data.streaming``
deals them out. Samples stay encoded here.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Int64
from PIL import Image

from foveate.data import scenes, sources

_HUB = "hf://"
_FILE_KINDS = (".parquet", ".tar")
_TAR_IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
_TAR_LABELS = frozenset({"cls", "json"})


@dataclass(frozen=True)
class Sample:
    """An image still encoded, or decoded by who made the set, and its label."""

    content: sources.Encoded
    label: int
    where: str


@dataclass(frozen=True)
class Source(ABC):
    """A data set in pieces."""

    names: list[str]
    """One for each piece; where they differ, so do the data."""
    kind: ClassVar[str]
    """What its pieces are, in the plural."""

    @abstractmethod
    def read(self, piece: int, row: int) -> Iterator[Sample]:
        """Yield the samples of a piece, without the first ``row``."""


def open_source(source: object, split: str) -> Source:
    """Open one split of a path, a list of paths, ``hf://NAME``, or a dataset.

    Raises:
        ValueError: there is no such source or split, or nothing in it.
    """
    if isinstance(source, HubDataset):
        return _hub_source(source, split, "the dataset")
    if isinstance(source, str) and source.startswith(_HUB):
        return _load_hub(source, split)
    if isinstance(source, str | Path):
        return _open_files([source], split, str(source))
    if isinstance(source, Sequence):
        return _open_files(source, split, "the list")
    raise ValueError(
        f"source must be a path, a list of paths, {_HUB}NAME or one split's datasets."
        f"IterableDataset, got {type(source).__name__}; a datasets.Dataset has to_iterable_dataset"
    )


def _open_files(paths: Sequence[str | Path], split: str, name: str) -> Source:
    found: set[tuple[Path, str]] = set()
    for path in (Path(path).expanduser().resolve() for path in paths):
        if path.is_dir():
            files = [file for file in sources.files_under(path) if file.suffix in _FILE_KINDS]
            found |= {(file, sources.split_in_name(file, path)) for file in files}
        elif not path.exists():
            raise ValueError(
                f"no data {path}; give parquet or tar files that exist, or their folder"
            )
        elif path.suffix in _FILE_KINDS:
            found.add((path, sources.split_in_name(path, path.parent)))
        else:
            raise ValueError(f"{path} is neither a parquet nor a tar file; give one of these")
    kinds = {file.suffix for file, _ in found}
    if not kinds:
        raise ValueError(f"no parquet or tar files in {name}; image folders are for load_data")
    if len(kinds) > 1:
        raise ValueError(f"{name} has both parquet and tar files; list the files of one kind")
    return (_open_parquet if kinds == {".parquet"} else _open_tar)(sorted(found), split, name)


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, tarfile.TarError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot read {file} as {file.suffix[1:]} ({reason}); write it again"
        ) from error


def _own_split(stored: Sequence[str], split: str, name: str) -> str:
    """Return what a source that nothing can be held out of calls a split."""
    own = {sources.split_name(called): called for called in stored}
    if split not in own:
        raise ValueError(
            f"{name} has no {split} split; it has {sorted(own)}, and nothing is held out of tar "
            "files and Hugging Face datasets: store the split on its own"
        )
    return own[split]


# Parquet.


@dataclass(frozen=True)
class _RowGroup:
    file: Path
    number: int
    image: str
    label: str | None
    rows: Int64[np.ndarray, " M"]
    """Which of its rows belong to the split."""


@dataclass(frozen=True)
class _Parquet(Source):
    groups: list[_RowGroup]
    kind: ClassVar[str] = "row groups"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        group = self.groups[piece]
        if row == len(group.rows):
            return
        columns = [f"{group.image}.bytes", *([group.label] if group.label else [])]
        with _reading(group.file), pyarrow.parquet.ParquetFile(group.file) as opened:
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


def _open_parquet(files: list[tuple[Path, str]], split: str, name: str) -> _Parquet:
    """Read footers and split columns, and number each stored split's rows over all files."""
    groups: list[tuple[str, int, _RowGroup]] = []
    num_rows: dict[str, int] = {}
    for file, named in files:
        with _reading(file), pyarrow.parquet.ParquetFile(file) as opened:
            image, label, column = sources.parquet_columns(file, opened.schema_arrow)
            for number in range(opened.num_row_groups):
                if column:
                    table = opened.read_row_group(number, columns=[column], use_threads=False)
                    stored = [sources.split_name(str(own)) for own in table[column].to_pylist()]
                else:
                    stored = [named] * opened.metadata.row_group(number).num_rows
                for own in sorted(set(stored)):
                    rows = np.flatnonzero(np.array(stored) == own)
                    first = num_rows.get(own, 0)
                    groups.append((own, first, _RowGroup(file, number, image, label, rows)))
                    num_rows[own] = first + len(rows)
    source, chosen = sources.choose_rows(num_rows, split, name)
    kept = []
    for own, first, group in groups:
        low, high = np.searchsorted(chosen, (first, first + len(group.rows)))
        if own == source and low < high:
            kept.append(replace(group, rows=group.rows[chosen[low:high] - first]))
    names = [f"{group.file.name}, row group {group.number}: {len(group.rows)}" for group in kept]
    return _Parquet(names, kept)


# Tar.


@dataclass(frozen=True)
class _Tar(Source):
    files: list[Path]
    kind: ClassVar[str] = "tar files"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        file = self.files[piece]
        # Not "r|", which would have to read what is skipped.
        with _reading(file), tarfile.open(file, "r:") as opened:
            members = (member for member in opened if member.isfile() and _stem(member))
            for stem, parts in itertools.islice(itertools.groupby(members, _stem), row, None):
                where = f"sample {stem} of {file}"
                found = {
                    suffix: content.read()
                    for member in parts
                    if (suffix := _suffix(member)) in _TAR_IMAGES | _TAR_LABELS
                    and (content := opened.extractfile(member))
                }
                images = sorted(_TAR_IMAGES & found.keys())
                if len(images) != 1:
                    raise ValueError(
                        f"{where} has {len(images)} images; give every sample one "
                        f"({', '.join(sorted(_TAR_IMAGES))})"
                    )
                yield Sample(found[images[0]], _tar_label(found, where), where)


def _open_tar(files: list[tuple[Path, str]], split: str, name: str) -> _Tar:
    own = _own_split([named for _, named in files], split, name)
    kept = [file for file, named in files if named == own]
    return _Tar([f"{file.name}: {file.stat().st_size} bytes" for file in kept], kept)


def _stem(member: tarfile.TarInfo) -> str:
    """Return folder and name up to the first dot; nothing for a hidden file."""
    path = PurePosixPath(member.name)
    stem = path.name.partition(".")[0]
    return str(path.with_name(stem)) if stem else ""


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).name.partition(".")[2].lower()


def _tar_label(found: dict[str, bytes], where: str) -> int:
    try:
        label = int(found["cls"]) if "cls" in found else json.loads(found.get("json", b"null"))
    except ValueError as error:
        raise ValueError(f"{where}: its .cls or .json cannot be read ({error})") from error
    if isinstance(label, dict):
        label = next((label[name] for name in sources.LABEL_COLUMNS if name in label), None)
    if label is not None and not isinstance(label, int):
        raise ValueError(f"{where}: its class must be an integer, got {label!r}")
    return -1 if label is None else label


# Hugging Face.


@runtime_checkable
class HubDataset(Protocol):
    """What is used of ``datasets.IterableDataset``."""

    @property
    def features(self) -> dict[str, object] | None:
        """Column types, if known."""
        ...

    @property
    def split(self) -> object:
        """Name of the split."""
        ...

    @property
    def num_shards(self) -> int:
        """Number of files behind it."""
        ...

    def shard(self, num_shards: int, index: int) -> HubDataset:
        """Return one shard."""
        ...

    def select_columns(self, column_names: list[str]) -> HubDataset:
        """Return some columns."""
        ...

    def cast_column(self, column: str, feature: object) -> HubDataset:
        """Return a column as another type."""
        ...

    def iter(self, batch_size: int) -> Iterator[dict[str, list[object]]]:
        """Yield batches of rows."""
        ...


@dataclass(frozen=True)
class _Hub(Source):
    dataset: HubDataset
    image: str
    label: str | None
    kind: ClassVar[str] = "shards"

    def read(self, piece: int, row: int) -> Iterator[Sample]:
        shard = self.dataset.shard(num_shards=len(self.names), index=piece)
        # Not __iter__, which deals the shards of a dataset once more where it is in a worker.
        rows = enumerate(shard.iter(batch_size=1))
        # Counted, as load_state_dict is not exact: after a filter, up to datasets 5.0.
        for number, columns in itertools.islice(rows, row, None):
            where = f"image {number} of {self.names[piece]}"
            content = _hub_content(columns[self.image][0], where)
            label = columns[self.label][0] if self.label else None
            yield Sample(content, label if isinstance(label, int) else -1, where)


def _hub_content(stored: object, where: str) -> sources.Encoded:
    if isinstance(stored, Image.Image):
        # What map or filter has decoded.
        return stored
    if isinstance(stored, dict):
        if stored["bytes"] is not None:
            content: bytes = stored["bytes"]
            return content
        if stored["path"]:
            try:
                with importlib.import_module("fsspec").open(stored["path"], "rb") as file:
                    content = file.read()
            except OSError as error:
                raise ValueError(f"{where} cannot be read from {stored['path']}") from error
            return content
    raise ValueError(f"{where} has neither image bytes nor a path; embed the images")


def _load_hub(source: str, split: str) -> _Hub:
    datasets, name = _import_datasets(), source.removeprefix(_HUB)
    try:
        stored = datasets.load_dataset(name, streaming=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"cannot open {source} ({reason}); check the name and the network, or give the "
            "datasets.IterableDataset itself"
        ) from error
    return _hub_source(stored[_own_split(list(stored), split, source)], split, source)


def _hub_source(dataset: HubDataset, split: str, name: str) -> _Hub:
    datasets = _import_datasets()
    own = sources.split_name(str(dataset.split))
    if own in scenes.SPLITS and own != split:
        raise ValueError(f"{name} is a {own} split, not {split}; give that one's")
    features = dataset.features or {}
    image = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise ValueError(
            f"{name} has no column of type datasets.Image; its columns: {list(features)} (where a "
            "map has hidden them, give it features=)"
        )
    label = next((key for key in sources.LABEL_COLUMNS if key in features), None)
    if label and "int" not in str(getattr(features[label], "dtype", None)):
        raise ValueError(f"{name}: {label} must be an integer column, got {features[label]}")
    kept = dataset.select_columns([image, *([label] if label else [])])
    encoded = kept.cast_column(image, datasets.Image(decode=False))
    return _Hub([f"shard {n} of {name}" for n in range(dataset.num_shards)], encoded, image, label)


def _import_datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(
            "Hugging Face streams need the package datasets; install .[stream]"
        ) from error
