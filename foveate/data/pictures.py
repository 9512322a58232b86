"""Pictures that belong to no data set: files and folders of them, as a model reads them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from foveate.data.decoding import IMAGE_SUFFIXES, decode_image
from foveate.data.folders import files_under
from foveate.data.images import ImageSet
from foveate.files import expanded

MODES = {1: "L", 3: "RGB"}
"""What a picture is converted to, by the channels that a model reads."""


def read_pictures(
    paths: Sequence[Path], image_shape: tuple[int, int, int], limit: int | None = None
) -> tuple[ImageSet, list[str]]:
    """Return pictures and their names, as a set without labels; files that are none are counted.

    As of a data set, the shorter side is resized and the center kept. What is not of the model's
    channels becomes gray, or gets three equal ones.

    Args:
        paths: files, and folders, of which all pictures in and below them count, sorted by path.
        image_shape: channels, height and width that the model reads.
        limit: the most pictures that are read, the first ones; None = all.

    Raises:
        ValueError: a path leads to nothing, to a folder without pictures, or to a picture that is
            unreadable; or the model has channels that pictures have not.
    """
    channels, height, width = image_shape
    if channels not in MODES:
        raise ValueError(f"the model reads {channels} channels, pictures have 1 or 3")
    found = [(file, path) for path in paths for file in _files_at(expanded(path))][:limit]
    files = [file for file, _ in found]
    pixels = np.empty((len(files), *image_shape), np.uint8)
    for row, file in enumerate(files):
        pixels[row] = decode_image(file, str(file), MODES[channels], (width, height))
    unknown = torch.full((len(files),), -1)
    return ImageSet(torch.from_numpy(pixels), unknown, (), "pictures"), names_of(found)


def names_of(found: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return the shortest name that tells each file from the others.

    It is the file's own name without its ending; else with the folders below the given one; else
    with its ending as well; else the whole path.

    Args:
        found: files, each with the path that was given for it.
    """
    stems = Counter(file.stem for file, _ in found)
    longer = [file.relative_to(folder_of(file, expanded(given)).parent) for file, given in found]
    bare, whole = Counter(path.with_suffix("") for path in longer), Counter(longer)
    names = []
    for (file, _), path in zip(found, longer, strict=True):
        if stems[path.stem] == 1:
            names.append(path.stem)
        elif bare[path.with_suffix("")] == 1:
            names.append(path.with_suffix("").as_posix())
        else:
            names.append((path if whole[path] == 1 else file).as_posix())
    return names


def folder_of(file: Path, given: Path) -> Path:
    """Return the folder that was given, or that of a file that was given itself."""
    return given.parent if file == given else given


def _files_at(path: Path) -> list[Path]:
    if not path.exists():
        raise ValueError(f"no picture at {path}; give a file, or a folder of pictures")
    if not path.is_dir():
        return [path]
    found = list(files_under(path))
    seen = [not file.gone and file.path.suffix.lower() in IMAGE_SUFFIXES for file in found]
    pictures = [file.path for file, is_one in zip(found, seen, strict=True) if is_one]
    if not pictures:
        raise ValueError(f"no pictures in {path}; give a file, or a folder of pictures")
    if others := [file.path for file, is_one in zip(found, seen, strict=True) if not is_one]:
        shown = ", ".join(file.name for file in others[:3]) + ", ..." * (len(others) > 3)
        print(
            f"note: {len(others)} of {len(found)} files in {path} are no pictures and are skipped: "
            f"{shown}",
            file=sys.stderr,
        )
    return pictures
