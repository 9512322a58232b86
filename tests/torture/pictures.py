"""Pictures for trials, all generated: each has a color and a number that can be read off it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Pixels = npt.NDArray[Any]
COLORS = ((230, 40, 40), (40, 200, 40), (50, 60, 230))
"""Colors of the classes."""
KIND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How Hugging Face stores an image."""


def colored(number: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Image.Image:
    """An image in the color of class ``number % 3`` with noise of its own; size is (width, height).

    The upper left quarter is black, which tells where up is.
    """
    noise = np.random.default_rng(number).integers(-20, 20, (size[1], size[0], 3))
    pixels = np.clip(np.array(COLORS[number % 3]) + noise, 0, 255).astype(np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 0
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, suffix: str = "png", **options: object) -> bytes:
    """Return the file of an image."""
    stream = io.BytesIO()
    formats = Image.registered_extensions()
    image.save(stream, formats[f".{suffix.lower()}"], **options)
    return stream.getvalue()


def folder_of(
    root: Path,
    number: int = 20,
    classes: str = "abc",
    suffix: str = "png",
    make: Callable[[int], Image.Image] = colored,
) -> Path:
    """Write a folder ``class/image``, so many images a class; image ``i`` of class k is 3 i + k."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            write(root / name / f"{i:03}.{suffix}", make(3 * i + k))
    return root


def write(path: Path, image: Image.Image, **options: object) -> None:
    """Write an image in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, path.suffix[1:], **options))


def cells(files: Iterable[bytes]) -> pa.Array:
    """Return a column of images as Hugging Face stores it."""
    pairs = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    return pa.array(pairs, KIND)


def parquet_of(
    root: Path,
    number: int = 60,
    *,
    metadata: dict[str, str] | None = None,
    name: str = "train-00000-of-00001.parquet",
    **columns: Any,
) -> Path:
    """Write a parquet folder: images of three classes with labels, and columns in their place.

    A column of None is left out.
    """
    content: dict[str, Any] = {
        "image": cells(encoded(colored(i)) for i in range(number)),
        "label": pa.array([i % 3 for i in range(number)]),
        **columns,
    }
    table = pa.table({name: column for name, column in content.items() if column is not None})
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), root / name, row_group_size=20)
    return root
