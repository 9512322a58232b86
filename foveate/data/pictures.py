"""Pictures that belong to no data set: files and folders of them, as a model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from foveate.data.decoding import IMAGE_SUFFIXES, decode_image
from foveate.data.folders import files_under
from foveate.data.images import ImageSet

MODES = {1: "L", 3: "RGB"}
"""What a picture is converted to, by the channels that a model reads."""


def read_pictures(
    paths: Sequence[Path], image_shape: tuple[int, int, int], limit: int | None = None
) -> tuple[ImageSet, list[str]]:
    """Return pictures and their names, as a set without labels.

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
    files = [file for path in paths for file in _files_at(path.expanduser())][:limit]
    pixels = np.empty((len(files), *image_shape), np.uint8)
    for row, file in enumerate(files):
        pixels[row] = decode_image(file, str(file), MODES[channels], (width, height))
    unknown = torch.full((len(files),), -1)
    return ImageSet(torch.from_numpy(pixels), unknown, (), "pictures"), [
        file.stem for file in files
    ]


def _files_at(path: Path) -> list[Path]:
    if not path.exists():
        raise ValueError(f"no picture at {path}; give a file, or a folder of pictures")
    if not path.is_dir():
        return [path]
    found = [file.path for file in files_under(path) if not file.gone]
    pictures = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        raise ValueError(f"no pictures in {path}; give a file, or a folder of pictures")
    return pictures
