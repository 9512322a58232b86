"""Where streamed images come from: row groups of parquet, tar files, shards of Hugging Face sets.

Each piece can be read on its own, from any row on. ``foveate.data.streaming`` deals the pieces out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from foveate.data import notes
from foveate.data.columns import SPLIT_COLUMN, check_no_columns
from foveate.data.folders import check_shards, files_under, say_repeated
from foveate.data.hub import HUB, HubDataset, hub_source, load_hub
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
    found: set[tuple[Path, str]] = set()
    compressed: list[Path] = []
    for path in (Path(path).expanduser().resolve() for path in paths):
        if path.is_dir():
            files = files_under(path)
            compressed += [file.path for file in files if _COMPRESSED_TAR.search(file.path.name)]
            shards = [file for file in files if file.path.suffix.lower() in _FILE_KINDS]
            say_repeated(path, shards)
            found |= {(file.path, split_in_name(file.path, path)) for file in shards}
        elif not path.exists():
            raise ValueError(
                f"no data {path}; give parquet or tar files that exist, or their folder"
            )
        elif path.suffix.lower() in _FILE_KINDS:
            found.add((path, split_in_name(path, path.parent)))
        elif _COMPRESSED_TAR.search(path.name):
            compressed.append(path)
        else:
            raise ValueError(f"{path} is neither a parquet nor a tar file; give one of these")
    if compressed:
        raise ValueError(f"{compressed[0]} is compressed; unpack it to a plain .tar")
    kinds = {file.suffix.lower() for file, _ in found}
    if not kinds:
        raise ValueError(f"no parquet or tar files in {name}; image folders are for load_data")
    if len(kinds) > 1:
        raise ValueError(f"{name} has both parquet and tar files; list the files of one kind")
    check_shards(file for file, _ in found)
    return sorted(found)
