"""Where streamed images come from: row groups of parquet, tar files, shards of Hugging Face sets.

Each piece can be read on its own, from any row on. ``foveate.data.streaming`` deals the pieces out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foveate.data.folders import check_shards, files_under
from foveate.data.hub import HUB, HubDataset, hub_source, load_hub
from foveate.data.row_groups import open_parquet
from foveate.data.samples import PieceSource
from foveate.data.splits import split_in_name
from foveate.data.tars import open_tar

_FILE_KINDS = (".parquet", ".tar")


def open_source(source: object, split: str, image_column: str | None = None) -> PieceSource:
    """Open one split of a path, a list of paths, ``hf://NAME``, or a dataset.

    Raises:
        ValueError: there is no such source or split, or nothing in it; or an image column is chosen
            of tar files.
    """
    if isinstance(source, HubDataset):
        return hub_source(source, split, "the dataset", image_column)
    if isinstance(source, str) and source.startswith(HUB):
        return load_hub(source, split, image_column)
    if isinstance(source, str | Path):
        return _open_files([source], split, str(source), image_column)
    if isinstance(source, Sequence):
        return _open_files(source, split, "the list", image_column)
    raise ValueError(
        f"source must be a path, a list of paths, {HUB}NAME or one split's datasets."
        f"IterableDataset, got {type(source).__name__}; a datasets.Dataset has to_iterable_dataset"
    )


def _open_files(
    paths: Sequence[str | Path], split: str, name: str, image_column: str | None
) -> PieceSource:
    found: set[tuple[Path, str]] = set()
    for path in (Path(path).expanduser().resolve() for path in paths):
        if path.is_dir():
            files = [file for file in files_under(path) if file.suffix in _FILE_KINDS]
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
    check_shards(file for file, _ in found)
    if kinds == {".parquet"}:
        return open_parquet(sorted(found), split, name, image_column)
    if image_column is not None:
        raise ValueError(f"image_column has no effect on tar files, such as those in {name}")
    return open_tar(sorted(found), split, name)
