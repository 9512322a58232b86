"""Data sets as uint8 tensors in memory: embedded scenes, torchvision's sets, folders, parquet.

Whatever the source, split rules, decoding and the cache are the same. Batches become float images
in [0, 1] only when asked for.

Splits never overlap. A set's own splits are used where it has them. Without a val split, a tenth of
train, drawn by a fixed shuffle, is val and no longer train. Without a test split, the set's val
split is the test split (and val is held out of train); with neither, another tenth of train is.
Rows are dealt round-robin over the classes, so that any prefix is class-balanced.

A parquet file has a column of images: bytes, structs of bytes and path, paths, or lists of these,
of which the first counts. It may have ``label`` (numbers or text; ``foveate.data.labels`` has the
rules), ``split``, and ``captions`` (text, or lists of text). ``foveate.data.decoding`` says how an
image is read. What is not read is listed once on stderr: other files, other columns.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from foveate.data import (
    columns,
    decoding,
    folders,
    labels,
    parquet,
    rows,
    scenes,
    sources,
    splits,
)
from foveate.data.decoding import ImageSize, height_and_width
from foveate.data.images import ImageSet

_READERS = (scenes, rows, sources, folders, parquet, columns, labels, splits, decoding)
"""What decides which pixels come of a file: a decoded set is made anew when one of them changes."""
TORCHVISION_SETS = ("FashionMNIST", "CIFAR10", "CIFAR100", "STL10")


def load_data(
    data: str = "scenes",
    split: str = "train",
    *,
    image_size: ImageSize | None = None,
    image_column: str | None = None,
    limit: int | None = None,
    root: Path = Path("data"),
) -> ImageSet:
    """Load one split of a data set; see the module for the split rules.

    Decoded sets are cached in ``$FOVEATE_CACHE`` (else ``~/.cache/foveate``) until a file changes.

    Args:
        data: "scenes", a torchvision name (FashionMNIST, CIFAR10, CIFAR100, STL10), a parquet file,
            a folder of parquet files, a folder of ``datasets.save_to_disk``, or a folder of class
            folders. Class folders may lie in folders train, val and test. Without class folders,
            images have no labels.
        split: train, val or test.
        image_size: Side, or height and width, in pixels: images are resized to cover it, the center
            kept; scenes are composed at this size. None: as stored.
        image_column: Name of the column with the images. None: ``image``, else the only one that
            may hold images.
        limit: Keep only the first so many images. None: all.
        root: Where torchvision keeps its files, and downloads them to if they are missing.

    Raises:
        ValueError: Unknown data or split, no rows for the split, an image that is unreadable, too
            large or of another size than the rest, several columns that may hold images, a label of
            another kind, or an option out of range or without effect.
    """
    if split not in scenes.SPLITS:
        raise ValueError(f"split must be one of {', '.join(scenes.SPLITS)}, got {split!r}")
    if image_size is not None:
        height_and_width(image_size)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {limit}")
    path = Path(data).expanduser()
    if image_column is not None and (data == "scenes" or data in TORCHVISION_SETS):
        raise ValueError(f"image_column has no effect on {data}, which has no columns")
    if data == "scenes":
        loaded = _cached(["scenes", split, image_size], lambda: _load_scenes(split, image_size))
    elif data in TORCHVISION_SETS:
        loaded = _load_rows(sources.torchvision_rows(data, Path(root)), split, image_size)
    elif path.exists():
        read, files = sources.find_rows(path.resolve(), image_column)
        state = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        loaded = _cached(
            [data, split, image_size, image_column, *state],
            lambda: _load_rows(read(), split, image_size),
        )
    else:
        lowered = {name.lower(): name for name in ("scenes", *TORCHVISION_SETS)}
        close = difflib.get_close_matches(data.lower(), lowered, n=1, cutoff=0.6)
        hint = f"did you mean {lowered[close[0]]!r}? " if close else ""
        raise ValueError(
            f"no data {data!r}: {hint}give 'scenes', one of {', '.join(TORCHVISION_SETS)}, "
            "or the path of a parquet file or image folder that exists"
        )
    return loaded if limit is None else loaded.subset(limit)


def _load_scenes(split: str, image_size: ImageSize | None) -> ImageSet:
    """Compose the default scenes; another image_size scales the scene and the object alike."""
    height, width = height_and_width(image_size or 32)
    if height != width:
        raise ValueError(f"scenes are square; give one image_size, got {height}x{width}")
    composed = scenes.default_scenes(split, height)
    extent_px = torch.full_like(composed.corner_px, composed.object_px)
    return ImageSet(
        composed.images,
        composed.labels,
        composed.class_names,
        "scenes",
        captions=tuple((sentence,) for sentence in composed.sentences()),
        boxes_px=torch.cat([composed.corner_px, extent_px], dim=1),
    )


def _load_rows(stored: rows.Rows, split: str, image_size: ImageSize | None) -> ImageSet:
    decoded = rows.decode(stored, split, image_size)
    return ImageSet(
        torch.from_numpy(decoded.pixels),
        torch.from_numpy(decoded.labels),
        stored.class_names,
        stored.name,
        captions=decoded.captions,
    )


def _cached(key: Iterable[object], build: Callable[[], ImageSet]) -> ImageSet:
    """Return the set stored under ``key``; if none can be read, build and store it."""
    digest = hashlib.sha256(repr(list(key)).encode())
    for code in (__file__, *(part.__file__ for part in _READERS)):
        digest.update(Path(str(code)).read_bytes())
    folder = Path(os.environ.get("FOVEATE_CACHE") or "~/.cache/foveate").expanduser()
    path = folder / f"{digest.hexdigest()[:32]}.npz"
    try:
        # Opened here, since np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as stored:
            return ImageSet(
                torch.from_numpy(stored["images"]),
                torch.from_numpy(stored["labels"]),
                tuple(stored["class_names"].tolist()),
                str(stored["name"]),
                captions=_captions(str(stored["captions"])),
                boxes_px=torch.from_numpy(stored["boxes_px"]) if len(stored["boxes_px"]) else None,
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        built = build()
    try:
        _store(path, built)
    except OSError:
        pass  # A read-only or full disk costs the next call its time, not this one its result.
    return built


def _captions(stored: str) -> tuple[tuple[str, ...], ...] | None:
    """Return captions from JSON, where null says that a set has none."""
    read: list[list[str]] | None = json.loads(stored)
    return None if read is None else tuple(tuple(sentences) for sentences in read)


def _store(path: Path, built: ImageSet) -> None:
    """Write the set beside its final place, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        np.savez(
            partial,
            images=built.images.numpy(),
            labels=built.labels.numpy(),
            class_names=np.array(built.class_names, dtype=np.str_),
            name=np.array(built.name),
            captions=np.array(json.dumps(built.captions)),
            boxes_px=np.empty((0, 4)) if built.boxes_px is None else built.boxes_px.numpy(),
        )
        partial.replace(path)
