"""Image files: numbered images, off which it is read what a set holds, and pictures read back."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from foveate.data import ImageSet

NAMES = {"class_names": json.dumps(["cat", "dog"])}


def numbered(number: int, mode: str = "L", size: tuple[int, int] = (6, 6)) -> Image.Image:
    """An image whose top-left pixel tells its number."""
    pixels = np.full((size[1], size[0]), number, np.uint8)
    pixels[1:] = 7
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def write_parquet(
    path: Path, images: list[Image.Image], metadata: object = None, **columns: object
) -> None:
    cells = [{"bytes": encoded(image), "path": f"{n}.png"} for n, image in enumerate(images)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), **columns})
    if metadata:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)


def write_tar(file: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(file, "w") as opened:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


def numbers(loaded: ImageSet) -> set[int]:
    """The numbers of the images, from their top-left pixels; all must differ."""
    found = loaded.images[:, 0, 0, 0].tolist()
    assert len(set(found)) == len(found)
    return set(found)


def picture(path: Path, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Read a picture back as RGB; it has this size in pixels and is not blank."""
    with Image.open(path) as opened:
        assert opened.size == (width, height)
        pixels = np.asarray(opened.convert("RGB"))
    assert pixels.std() > 10
    return pixels


def share_of(pixels: npt.NDArray[np.uint8], color: tuple[int, int, int]) -> float:
    """Share of a picture's pixels that have this color, give or take 3 of 255."""
    return float((np.abs(pixels.astype(int) - color).max(-1) <= 3).mean())
