"""Where streamed images come from: row groups of parquet, tar files, shards of Hugging Face sets.

Each piece can be read on its own, from any row on. ``foveate.data.streaming`` deals the pieces out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from foveate.data import notes
from foveate.data.folders import files_under
from foveate.data.hub import HUB, HubDataset, hub_source, load_hub
from foveate.data.parquet import SPLIT_COLUMN
from foveate.data.row_groups import open_parquet
from foveate.data.samples import PieceSource
from foveate.data.splits import split_in_name
from foveate.data.tars import open_tar

_FILE_KINDS = (".parquet", ".tar")
_COMPRESSED_TAR = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4?)|t(gz|bz2?|xz|zst))$", re.IGNORECASE)


def open_source(
    source: object,
    split: str,
    *,
    split_column: str | None = SPLIT_COLUMN,
    skip_damaged: bool = False,
) -> PieceSource:
    """Open one split of a path, a list of paths, ``hf://NAME``, or a dataset.

    Raises:
        ValueError: there is no such source or split, or nothing in it; or an option that has no
            effect on it.
    """
    if isinstance(source, HubDataset) or (isinstance(source, str) and source.startswith(HUB)):
        if split_column != SPLIT_COLUMN:
            raise ValueError("split_column goes with parquet files, not with Hugging Face datasets")
        if isinstance(source, str):
            return load_hub(source, split)
        return hub_source(source, split, "the dataset")
    if isinstance(source, str | Path | Sequence):
        paths = [source] if isinstance(source, str | Path) else source
        name = str(source) if isinstance(source, str | Path) else "the list"
        with notes.once(name):
            return _open_files(paths, split, name, split_column, skip_damaged)
    raise ValueError(
        f"source must be a path, a list of paths, {HUB}NAME or one split's datasets."
        f"IterableDataset, got {type(source).__name__}; a datasets.Dataset has to_iterable_dataset"
    )


def _open_files(
    paths: Sequence[str | Path],
    split: str,
    name: str,
    split_column: str | None,
    skip_damaged: bool,
) -> PieceSource:
    found: set[tuple[Path, str]] = set()
    compressed: list[Path] = []
    for path in (Path(path).expanduser().resolve() for path in paths):
        if path.is_dir():
            files = files_under(path)
            compressed += [file for file in files if _COMPRESSED_TAR.search(file.name)]
            files = [file for file in files if file.suffix in _FILE_KINDS]
            found |= {(file, split_in_name(file, path)) for file in files}
        elif not path.exists():
            raise ValueError(
                f"no data {path}; give parquet or tar files that exist, or their folder"
            )
        elif path.suffix in _FILE_KINDS:
            found.add((path, split_in_name(path, path.parent)))
        elif _COMPRESSED_TAR.search(path.name):
            compressed.append(path)
        else:
            raise ValueError(f"{path} is neither a parquet nor a tar file; give one of these")
    if compressed:
        raise ValueError(f"{compressed[0]} is compressed; unpack it to a plain .tar")
    kinds = {file.suffix for file, _ in found}
    if not kinds:
        raise ValueError(f"no parquet or tar files in {name}; image folders are for load_data")
    if len(kinds) > 1:
        raise ValueError(f"{name} has both parquet and tar files; list the files of one kind")
    if kinds == {".parquet"}:
        return open_parquet(sorted(found), split, name, split_column)
    if split_column not in (None, SPLIT_COLUMN):
        raise ValueError(f"split_column goes with parquet files, and {name} has none")
    holds_out = split_column is None
    return open_tar(sorted(found), split, name, holds_out=holds_out, skip_damaged=skip_damaged)
