"""Where streamed images come from: row groups of parquet, tar files, shards of Hugging Face sets.

Each piece can be read on its own, from any row on. ``foveate.data.streaming`` deals the pieces out.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Int64

from foveate.data import sources
from foveate.data.hub import HUB, HubDataset, hub_source, load_hub
from foveate.data.samples import PieceSource, Sample, own_split
from foveate.data.splits import choose_rows, split_in_name, split_name

_FILE_KINDS = (".parquet", ".tar")
_TAR_IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
_TAR_LABELS = frozenset({"cls", "json"})


def open_source(source: object, split: str) -> PieceSource:
    """Open one split of a path, a list of paths, ``hf://NAME``, or a dataset.

    Raises:
        ValueError: there is no such source or split, or nothing in it.
    """
    if isinstance(source, HubDataset):
        return hub_source(source, split, "the dataset")
    if isinstance(source, str) and source.startswith(HUB):
        return load_hub(source, split)
    if isinstance(source, str | Path):
        return _open_files([source], split, str(source))
    if isinstance(source, Sequence):
        return _open_files(source, split, "the list")
    raise ValueError(
        f"source must be a path, a list of paths, {HUB}NAME or one split's datasets."
        f"IterableDataset, got {type(source).__name__}; a datasets.Dataset has to_iterable_dataset"
    )


def _open_files(paths: Sequence[str | Path], split: str, name: str) -> PieceSource:
    found: set[tuple[Path, str]] = set()
    for path in (Path(path).expanduser().resolve() for path in paths):
        if path.is_dir():
            files = [file for file in sources.files_under(path) if file.suffix in _FILE_KINDS]
            found |= {(file, split_in_name(file, path)) for file in files}
        elif not path.exists():
            raise ValueError(
                f"no data {path}; give parquet or tar files that exist, or their folder"
            )
        elif path.suffix in _FILE_KINDS:
            found.add((path, split_in_name(path, path.parent)))
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
class _Parquet(PieceSource):
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
            columns = sources.parquet_columns(file, opened.schema_arrow)
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
    return _Parquet(names, kept)


# Tar.


@dataclass(frozen=True)
class _Tar(PieceSource):
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
    own = own_split([named for _, named in files], split, name)
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
