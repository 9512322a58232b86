"""Data sets as uint8 tensors in memory: embedded scenes, torchvision's sets, folders, parquet.

Whatever the source, split rules, decoding and the cache are the same. Batches become float images
in [0, 1] only when asked for.

Splits never overlap. A set's own splits are used where it has them: train (also training), val
(valid, validation, dev) and test (testing). Rows of other splits are left out, and counted in a
notice. Without a val split, about a tenth of train is val and no longer train. Without a test
split, the set's val split is the test split (and val is held out of train); with neither, about
another tenth of train is.

What is held out is decided for every image alone. Of an image that is a file it is a hash of its
path, below the folder of the set or split, or as a table names it. Of an image whose bytes lie in a
table or array it is a hash of these. So no image changes sides when others come or go. One
exception: where no image of a tiny set falls into a split, the one with the lowest hash is moved
there.

Rows are dealt round-robin over the classes, so that any prefix is class-balanced.

A parquet file has a column of images: bytes, structs of bytes and path, paths, or lists of these,
of which the first counts. It may have ``label`` (numbers or text; ``foveate.data.labels`` has the
rules), ``split``, and ``captions`` (text, or lists of text). ``foveate.data.decoding`` says how an
image is read. What is not read is listed once on stderr: other files, other columns.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from foveate.choices import check_choice
from foveate.data import (
    cache,
    column_types,
    columns,
    decoding,
    folders,
    labels,
    notes,
    parquet,
    rows,
    scenes,
    sources,
    splits,
)
from foveate.data.cache import FileState, file_state
from foveate.data.columns import SPLIT_COLUMN, check_no_columns
from foveate.data.decoding import ImageSize, height_and_width
from foveate.data.hub import HUB
from foveate.data.images import ImageSet, check_limit
from foveate.files import expanded, place_of

_READERS = (
    scenes,
    rows,
    sources,
    folders,
    parquet,
    column_types,
    columns,
    labels,
    splits,
    decoding,
)
"""What decides which pixels come of a file: a decoded set is made anew when one of them changes."""
TORCHVISION_SETS = ("FashionMNIST", "CIFAR10", "CIFAR100", "STL10")
COMPOSED = ("scenes", "scenes_rgb")
"""Scenes that are composed: gray, and in color."""


def load_data(
    data: str | Path = "scenes",
    split: str = "train",
    *,
    image_size: ImageSize | None = None,
    image_column: str | None = None,
    limit: int | None = None,
    root: Path = Path("data"),
    split_column: str | None = SPLIT_COLUMN,
    caption_column: str | None = None,
) -> ImageSet:
    """Load one split of a data set; see the module for the split rules.

    Decoded files and scenes are cached until a file changes (``foveate.data.cache``); sets of
    torchvision, which come unpacked, are not.

    Args:
        data: "scenes", "scenes_rgb" (in color), a torchvision name (FashionMNIST, CIFAR10,
            CIFAR100, STL10), a parquet file, a folder of parquet files, a folder of
            ``datasets.save_to_disk``, or a folder of class folders. Class folders may lie in
            folders train, val and test. Without class folders, images have no labels.
        split: train, val or test.
        image_size: Side, or height and width, in pixels: images are resized to cover it, the center
            kept; scenes are composed at this size. None: as stored.
        image_column: Name of the column with the images. None: ``image``, else the only one that
            may hold images.
        limit: Keep only the first so many images. None: all.
        root: Where torchvision keeps its files, and downloads them to if they are missing.
        split_column: Parquet column that names each row's split; by default ``split``, if there is
            one. None: rows and files of whatever split are train, and val and test held out.
        caption_column: Column of text, or of lists of text, about each image. None: ``captions``,
            else ``caption``, where there is one.

    Raises:
        ValueError: Unknown data or split, no rows for the split, an image that is unreadable, too
            large or of another size than the rest, several columns that may hold images, a label of
            another kind, or an option out of range or without effect.
    """
    check_choice("split", split, scenes.SPLITS)
    if image_size is not None:
        height_and_width(image_size)
    if limit is not None:
        check_limit(limit)
    data, path = str(data), expanded(data)
    if data in COMPOSED or data in TORCHVISION_SETS:
        check_no_columns(data, image_column, split_column, caption_column)
    if data in COMPOSED:
        key = [image_size]
        loaded = _cached(data, split, key, lambda: (_load_scenes(data, split, image_size), ()))
    elif data in TORCHVISION_SETS:
        with notes.once(data):
            stored = sources.torchvision_rows(data, Path(root))
            loaded = _load_rows(stored, split, image_size, limit)
    elif path.exists():
        columns_of = image_column, split_column, caption_column
        loaded = _load_files(place_of(path), path.name, split, image_size, columns_of)
    else:
        raise _no_such_data(data)
    return loaded if limit is None else loaded.subset(limit)


def _no_such_data(data: str) -> ValueError:
    """Name what comes closest."""
    if data.startswith(HUB):
        return ValueError(f"{data} is read as a stream alone; add --stream (ImageStream)")
    lowered = {name.lower(): name for name in (*COMPOSED, *TORCHVISION_SETS)}
    close = difflib.get_close_matches(data.lower(), lowered, n=1, cutoff=0.6)
    hint = f"did you mean {lowered[close[0]]!r}? " if close else ""
    return ValueError(
        f"no data {data!r}: {hint}give one of {', '.join((*COMPOSED, *TORCHVISION_SETS))}, or the "
        "path of a parquet file or image folder that exists"
    )


def _load_scenes(data: str, split: str, image_size: ImageSize | None) -> ImageSet:
    """Compose the default scenes; another image_size scales the scene and the object alike."""
    height, width = height_and_width(image_size or 32)
    if height != width:
        raise ValueError(f"scenes are square; give one image_size, got {height}x{width}")
    composed = scenes.default_scenes(split, height, in_color=data == "scenes_rgb")
    extent_px = torch.full_like(composed.corner_px, composed.object_px)
    return ImageSet(
        composed.images,
        composed.labels,
        composed.class_names,
        data,
        captions=tuple((sentence,) for sentence in composed.sentences()),
        boxes_px=torch.cat([composed.corner_px, extent_px], dim=1),
    )


def _load_files(
    path: Path,
    called: str,
    split: str,
    image_size: ImageSize | None,
    columns_of: tuple[str | None, str | None, str | None],
) -> ImageSet:
    """Load files; ``columns_of`` are the columns of images, splits and captions.

    A link that is ``called`` otherwise than the file it leads to names its split.
    """
    with notes.once(str(path)):
        read, files = sources.find_rows(path, *columns_of, called=called)
        key = [image_size, called, *columns_of, *map(file_state, files)]

        def build() -> tuple[ImageSet, list[FileState]]:
            stored = read()
            states = [*map(file_state, stored.files_beside(files))]
            return _load_rows(stored, split, image_size), states

        return _cached(str(path), split, key, build)


def _load_rows(
    stored: rows.Rows, split: str, image_size: ImageSize | None, limit: int | None = None
) -> ImageSet:
    decoded = rows.decode(stored, split, image_size, limit)
    return ImageSet(
        torch.from_numpy(decoded.pixels),
        torch.from_numpy(decoded.labels),
        stored.class_names,
        stored.name,
        captions=decoded.captions,
        fingerprints=decoded.fingerprints,
        columns=stored.columns,
    )


def _cached(
    data: str,
    split: str,
    key: Sequence[object],
    build: Callable[[], tuple[ImageSet, Sequence[FileState]]],
) -> ImageSet:
    """Return the decoded set from the cache, or make it; other code makes it anew."""
    code = [Path(str(file)).read_bytes() for file in (__file__, *(m.__file__ for m in _READERS))]
    return cache.cached(data, split, [*key, hashlib.sha256(b"".join(code)).hexdigest()], build)
