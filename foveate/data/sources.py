"""Where the rows of a data set come from, and how the rows of one split become pixels.

Every source (torchvision's sets, image folders, parquet files) answers the same questions: rows,
labels and class names of each stored split. Choosing a split's rows and decoding them are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from foveate.data.folders import IMAGE_SUFFIXES, files_under, folder_rows
from foveate.data.parquet import SPLIT_COLUMN, parquet_rows
from foveate.data.rows import Rows


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
    names: dict[str, list[str | None]] = {own: [None] * len(encoded[own]) for own in encoded}
    return Rows(name, encoded, labels, class_names, names)


def find_rows(
    path: Path, split_column: str | None = SPLIT_COLUMN
) -> tuple[Callable[[], Rows], list[Path]]:
    """Return how to read the rows under ``path`` and the files they come from.

    Nothing is read yet: whether the files changed decides whether they need to be.

    Raises:
        ValueError: ``path`` is a file, but not a parquet file; or images are in class folders,
            which have no ``split_column``.
    """
    if path.is_file():
        if path.suffix != ".parquet":
            raise ValueError(f"{path} is neither a parquet file nor a folder; give one of these")
        return lambda: parquet_rows(path.parent, [path], split_column), [path]
    files = files_under(path)
    parquet = [file for file in files if file.suffix == ".parquet"]
    if parquet:
        return lambda: parquet_rows(path, parquet, split_column), parquet
    if split_column != SPLIT_COLUMN:
        raise ValueError(f"split_column goes with parquet files, and {path} has none")
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    return lambda: folder_rows(path, images), images
