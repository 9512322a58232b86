"""Images of an environment: by name, or one's own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from envs.toy import cue_set
from foveate.choices import told
from foveate.data import ImageSet, load_data
from foveate.data.columns import SPLIT_COLUMN
from foveate.data.decoding import ImageSize
from foveate.data.loading import COMPOSED

Data: TypeAlias = str | Path | ImageSet | NDArray[Any] | Tensor | tuple[object, object]
"""Images by name, as a set, or as an array or tensor, with their labels in a pair or without."""
Size: TypeAlias = int | tuple[int, int] | str | None
"""An image size that images and probes can be remembered by; None = as they are."""


def hashable(image_size: ImageSize | None) -> Size:
    """Return an image size in a form that is no list, as JSON holds it."""
    # Of another length than two it is refused where images are loaded.
    if isinstance(image_size, list):
        return cast("tuple[int, int]", tuple(image_size))
    return image_size


def check_effects(data: object, split: str, image_size: ImageSize | None) -> None:
    """Raise ValueError if ``split`` or ``image_size`` has no effect on these data."""
    is_named = isinstance(data, str | Path)
    if image_size is not None and not is_named:
        raise ValueError("image_size resizes data by name; resize images of your own before")
    if image_size is not None and data == "cue":
        raise ValueError(
            f"image_size has no effect on the cue world of 8x8 pixels, got {image_size}; "
            "leave it out"
        )
    if not is_named and split != "train":
        raise ValueError(
            f"split chooses among data by name, and images of your own are taken whole; leave out "
            f"split={split!r}, and take an id without Test"
        )


def load(
    data: object,
    split: str,
    image_size: ImageSize | None,
    limit: int | None,
    *,
    root: Path = Path("data"),
    caption_column: str | None = None,
    image_column: str | None = None,
    split_column: str | None = SPLIT_COLUMN,
) -> ImageSet:
    """Return images by name, of the cue world or what ``load_data`` takes, or the given ones.

    The rest is as of ``load_data``.

    Raises:
        ValueError: no such data, or no images.
    """
    if isinstance(data, str) and data in ("cue", *COMPOSED):
        return _composed(data, split, hashable(image_size), limit)
    if isinstance(data, str | Path):
        return load_data(
            str(data),
            split,
            image_size=image_size,
            limit=limit,
            root=root,
            caption_column=caption_column,
            image_column=image_column,
            split_column=split_column,
        )
    images = data if isinstance(data, ImageSet) else _set_of(data)
    return images if limit is None else images.subset(limit)


@lru_cache(maxsize=2)
def _composed(data: str, split: str, image_size: Size, limit: int | None) -> ImageSet:
    """Compose images that need no file; environments of a process share the last two sets."""
    if data != "cue":
        return load_data(data, split, image_size=image_size, limit=limit)
    images = cue_set(split)
    return images if limit is None else images.subset(limit)


def _set_of(data: object) -> ImageSet:
    """Make a set of images, or of images and labels."""
    images, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(images, np.ndarray | Tensor):
        raise ValueError(
            "data must be a name, a path, an ImageSet, an array or tensor of images (images, "
            f"channels, height, width), or a pair of images and labels; got {told(data)}"
        )
    if labels is None:
        labels = np.full(len(images), -1)
    elif isinstance(labels, list | tuple):
        labels = np.asarray(labels)
    return ImageSet(images, labels, (), "data")  # type: ignore[arg-type]  # it takes arrays too
