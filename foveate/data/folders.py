"""Image folders: the class, and where there is one the split, is the folder an image lies in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveate.data import scenes
from foveate.data.decoding import Encoded
from foveate.data.rows import Rows
from foveate.data.splits import split_name

IMAGE_SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())


def files_under(folder: Path) -> list[Path]:
    """Return the files in ``folder`` and below, sorted, without hidden ones."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if "/." not in f"/{file.relative_to(folder).as_posix()}"]


def folder_rows(folder: Path, files: list[Path]) -> Rows:
    """Sort files by the class folder, and where there is one the split folder, they lie in."""
    parents = [file.relative_to(folder).parts[:-1] for file in files]
    # A folder "train" that holds images itself is a class of vehicles, not a split.
    has_splits = any(len(parts) > 1 and split_name(parts[0]) in scenes.SPLITS for parts in parents)
    found: list[tuple[str, tuple[str, ...], Path]] = []
    for file, parts in zip(files, parents, strict=True):
        split = split_name(parts[0]) if has_splits and parts else "train"
        below = parts[1:] if has_splits else parts
        if below and split in scenes.SPLITS:
            found.append((split, below, file))
    if not found:
        what = "images without class folders" if files else "no images"
        raise ValueError(
            f"{what} in {folder}; expected class/image, split/class/image or parquet files (tar "
            "files need --stream)"
        )
    class_names = tuple(sorted({below[0] for _, below, _ in found}))
    number = {name: label for label, name in enumerate(class_names)}
    encoded: dict[str, list[Encoded]] = {}
    labels: dict[str, list[int]] = {}
    names: dict[str, list[str | None]] = {}
    for split, below, file in found:
        encoded.setdefault(split, []).append(file)
        labels.setdefault(split, []).append(number[below[0]])
        names.setdefault(split, []).append("/".join((*below, file.name)))
    arrays = {split: np.array(values, np.int64) for split, values in labels.items()}
    return Rows(folder.name, encoded, arrays, class_names, names)
