"""Where streamed images come from: row groups of parquet, tar files, shards of Hugging Face sets.

Each piece can be read on its own, from any row on. ``foveate.data.streaming`` deals the pieces out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from foveate.data import notes
from foveate.data.columns import SPLIT_COLUMN, check_no_columns
from foveate.data.folders import (
    File,
    check_shards,
    files_under,
    say_repeated,
    say_skipped,
)
from foveate.data.hub import HUB, HubDataset, hub_source, load_hub
from foveate.data.layouts import say_layout
from foveate.data.row_groups import open_parquet
from foveate.data.samples import PieceSource
from foveate.data.splits import split_in_name, splits_in_names
from foveate.data.tars import open_tar
from foveate.files import expanded, place_of

_FILE_KINDS = (".parquet", ".tar")
_COMPRESSED_TAR = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4?)|t(gz|bz2?|xz|zst))$", re.IGNORECASE)


def open_source(
    source: object,
    split: str,
    *,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
    skip_damaged: bool = False,
) -> PieceSource:
    """Open one split of a path, a list of paths, ``hf://NAME``, or a dataset.

    Raises:
        ValueError: there is no such source or split, or nothing in it; or an option that has no
            effect on it.
    """
    if isinstance(source, HubDataset) or (isinstance(source, str) and source.startswith(HUB)):
        check_no_columns("Hugging Face datasets", None, split_column)
        if isinstance(source, str):
            return load_hub(source, split, image_column, caption_column)
        return hub_source(source, split, "the dataset", image_column, caption_column)
    if isinstance(source, str | Path | Sequence):
        paths = [source] if isinstance(source, str | Path) else source
        name = str(source) if isinstance(source, str | Path) else "the list"
        with notes.once(name):
            found = _find_files(paths, name)
            if found[0][0].suffix.lower() == ".parquet":
                columns = image_column, split_column, caption_column
                return open_parquet(found, split, name, *columns)
            holds_out = split_column is None
            known = SPLIT_COLUMN if holds_out else split_column
            tars = f"tar files, such as {found[0][0]}"
            check_no_columns(tars, image_column, known)
            return open_tar(
                found,
                split,
                name,
                holds_out=holds_out,
                skip_damaged=skip_damaged,
                caption_key=caption_column,
            )
    raise ValueError(
        f"source must be a path, a list of paths, {HUB}NAME or one split's datasets."
        f"IterableDataset, got {type(source).__name__}; a datasets.Dataset has to_iterable_dataset"
    )


def _find_files(paths: Sequence[str | Path], name: str) -> list[tuple[Path, str]]:
    """Return the files, all of one kind, each with the split that its name says."""
    # As they are read, and as they are named, which a link may differ in.
    found: dict[Path, str] = {}
    compressed: list[Path] = []
    listed = [(place_of(given), Path(os.path.abspath(expanded(given)))) for given in paths]
    folders = [named if path.is_dir() else named.parent for path, named in listed]
    # The folders of a list count if they are called like different splits; those above never do.
    called = {split_in_name(folder.name) for folder in folders}
    count = len(called) > 1 and None not in called
    for (path, named), folder in zip(listed, folders, strict=True):
        prefix = f"{folder.name}/" if count else ""
        if path.is_dir():
            files = files_under(path)
            compressed += [file.path for file in files if _COMPRESSED_TAR.search(file.path.name)]
            shards = [file for file in files if file.path.suffix.lower() in _FILE_KINDS]
            shards = _without_tables_of_tars(path, shards)
            say_repeated(path, shards)
            own = [file.path for file in shards]
            say_layout(path, own)
            found |= {file: f"{prefix}{file.relative_to(path)}" for file in own}
        elif not path.exists():
            raise ValueError(
                f"no data {path}; give parquet or tar files that exist, or their folder"
            )
        elif path.suffix.lower() in _FILE_KINDS:
            found[path] = f"{prefix}{named.name}"
        elif _COMPRESSED_TAR.search(path.name):
            compressed.append(path)
        else:
            raise ValueError(f"{path} is neither a parquet nor a tar file; give one of these")
    if compressed:
        raise ValueError(f"{compressed[0]} is compressed; unpack it to a plain .tar")
    kinds = {file.suffix.lower() for file in found}
    if not kinds:
        raise ValueError(
            f"no parquet or tar files in {name}; an image folder is read as a whole, without "
            "--stream (load_data)"
        )
    if len(kinds) > 1:
        raise ValueError(f"{name} has both parquet and tar files; list the files of one kind")
    check_shards(found)
    common = Path(os.path.commonpath(folders))
    splits = splits_in_names([common / each for each in found.values()], common)
    return sorted(zip(found, splits, strict=True))


def _without_tables_of_tars(folder: Path, shards: list[File]) -> list[File]:
    """Leave out tables beside tar files of their names: img2dataset's, of addresses and texts."""
    tars = {file.path.with_suffix("") for file in shards if file.path.suffix.lower() == ".tar"}
    kept: list[File] = []
    tables: list[File] = []
    for file in shards:
        is_table = file.path.suffix.lower() == ".parquet" and file.path.with_suffix("") in tars
        (tables if is_table else kept).append(file)
    say_skipped(folder, tables, "tar file")
    return kept
