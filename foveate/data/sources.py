"""Where the rows of a data set come from, and how the rows of one split become pixels.

Every source (torchvision's sets, image folders, tables) answers the same questions: rows,
labels and class names of each stored split. Choosing a split's rows and decoding them are shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from foveate.data.columns import SPLIT_COLUMN, check_no_columns
from foveate.data.decoding import IMAGE_SUFFIXES
from foveate.data.folders import (
    File,
    check_shards,
    files_under,
    folder_reader,
    say_repeated,
    say_skipped,
)
from foveate.data.layouts import say_configurations, say_layout
from foveate.data.parquet import SAVED_NOTES, saved_files, table_rows
from foveate.data.rows import Rows


def torchvision_rows(name: str, root: Path) -> Rows:
    """Read a torchvision set from ``root``, downloading it if it is missing.

    Raises:
        ValueError: The set is not in ``root`` and cannot be downloaded, or its files are damaged.
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
        # What torchvision raises of damaged files is anything.
        except Exception as error:
            raise _damaged(name, root, " ".join(str(error).split()) or repr(error)) from error
        pixels = np.asarray(source.data)
        encoded[split] = list(pixels.transpose(0, 2, 3, 1) if name == "STL10" else pixels)
        labels[split] = np.asarray(source.labels if name == "STL10" else source.targets, np.int64)
        if len(labels[split]) != len(pixels):
            raise _damaged(name, root, f"{len(pixels)} images, {len(labels[split])} labels")
        class_names = tuple(source.classes)
    names: dict[str, list[str | None]] = {own: [None] * len(encoded[own]) for own in encoded}
    where = {
        own: [f"image {number} of {own} in {name}" for number in range(len(encoded[own]))]
        for own in encoded
    }
    return Rows(name, encoded, labels, class_names, names, where)


def _damaged(name: str, root: Path, reason: str) -> ValueError:
    return ValueError(
        f"the files of {name} in {root} are damaged ({reason}); remove them, and they are fetched "
        "again"
    )


def find_rows(
    path: Path,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
    *,
    called: str | None = None,
) -> tuple[Callable[[], Rows], list[Path]]:
    """Return how to read the rows under ``path`` and the files they come from.

    A parquet file may be ``called`` otherwise than it is named, as a link to it is.

    Nothing is read yet: whether the files changed decides whether they need to be. Files that are
    skipped are counted in a notice.

    Raises:
        ValueError: ``path`` is a file, but not a parquet file; it is a folder without images, or
            with a split's folder that has none; a table is a link to nothing; or a column is chosen
            of images that have none.
    """
    columns = image_column, split_column, caption_column
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(f"{path} is neither a parquet file nor a folder; give one of these")
        return lambda: table_rows(path.parent, [path], *columns, called=called), [path]
    found = files_under(path)
    tables = [file for file in found if file.path.suffix.lower() == ".parquet"]
    images = [file for file in found if _is_image(file)]
    # A picture beside what datasets has saved, which it says there, is no set of images.
    if not tables and (not images or any(file.path.name in SAVED_NOTES for file in found)):
        arrow = [file.path for file in found if file.path.suffix == ".arrow"]
        saved = set(saved_files(arrow))
        tables = [file for file in found if file.path in saved]
    say_repeated(path, tables or images)
    files = [file.path for file in tables or images]
    if tables:
        # Tables may name images beside them; which ones is known when they are read.
        used = set(files)
        others = [file for file in found if file.path not in used and not _is_image(file)]
        say_skipped(path, [file for file in others if file.path.name not in SAVED_NOTES], "table")
        check_shards(files)
        say_layout(path, files)

        def read() -> Rows:
            rows = table_rows(path, files, *columns)
            named = {os.path.realpath(file) for file in rows.files_beside(())} if images else set()
            say_skipped(path, [image for image in images if image.real not in named], "table")
            return rows

        return read, files
    say_skipped(path, [file for file in found if not _is_image(file)], "image")
    check_no_columns(f"the image folder {path}", *columns)
    say_configurations(path, files)
    if not images:
        raise ValueError(
            f"no images in {path}; expected class/image, split/class/image, images alone, or "
            "parquet files (tar files need --stream)"
        )
    return folder_reader(path, files), files


def _is_image(file: File) -> bool:
    return not file.gone and file.path.suffix.lower() in IMAGE_SUFFIXES
