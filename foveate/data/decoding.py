"""One stored image to pixels: upright, opaque, of 8 bits, brought to a mode and a size.

Folders, parquet, tar and Hugging Face rows all come through here, so that an image looks the same
wherever it is stored. Of several frames the first is taken. What is transparent shows white.
Pillow keeps the high byte of color with 16 bits. Gray with more than 8 bits is refused: its range
is anybody's guess, and a wrong one gives black images.
"""

from __future__ import annotations

import contextlib
import errno
import io
import operator
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from foveate.image_sizes import sides_in

Encoded: TypeAlias = bytes | Path | np.ndarray | Image.Image
"""File contents, a file, pixels (H, W) or (H, W, 3), or an image that is open already."""
ImageSize: TypeAlias = int | tuple[int, int] | list[int] | str
"""Side of a square, or height and width, pixels; or either as text, ``192x256``."""

MAX_PIXELS = 2**28
"""The most pixels that are decoded of one image, 268 million; a gigabyte where they have color."""
_LARGE_PIXELS = 2**26
"""Above this an image is shrunk coarsely before it is converted, which bounds memory."""
_NO_PICTURES = frozenset("BUFR EPS GRIB HDF5 IPTC MPEG PDF WMF".split())
"""Formats that Pillow knows by name but reads with another program's help or not at all."""
_GRAY = frozenset({"1", "L", "LA", "La"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by its EXIF orientation."""

_SAY_ORIENTATION = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
"""What Pillow calls the parts of a file, other than TIFF, that may say how an image lies."""

Image.preinit()  # Formats are tried in this order: the usual ones first.
Image.init()
IMAGE_SUFFIXES = frozenset(
    suffix
    for suffix, kind in Image.registered_extensions().items()
    if kind in {*Image.OPEN, "MPO"} - _NO_PICTURES
)
"""Endings of the files that Pillow reads as pictures, with the dot and in lower case."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are read."""

    mode: str
    """L for gray, with or without transparency; RGB for all else."""
    size: tuple[int, int]
    """Width and height when upright, pixels."""


def height_and_width(image_size: ImageSize) -> tuple[int, int]:
    """Return an image size as height and width.

    Raises:
        ValueError: It is neither one whole number nor two, nor their text, a side is less than 1
            pixel, or the image has more than MAX_PIXELS.
    """
    given = sides_in(image_size) if isinstance(image_size, str) else image_size
    sides = (given, given) if isinstance(given, int | np.integer) else given
    try:
        height, width = (operator.index(side) for side in sides)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "image_size must be a side, (height, width) or 'HEIGHTxWIDTH' in whole pixels, "
            f"got {image_size!r}"
        ) from error
    if min(height, width) < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if height * width > MAX_PIXELS:
        raise ValueError(f"image_size must be at most {MAX_PIXELS} pixels, got {height}x{width}")
    return height, width


def read_header(item: Encoded, where: str) -> Header:
    """Return mode and size of an image, of which no pixels are read.

    Only PNG that may say below its pixels how it lies is decoded.

    Raises:
        ValueError: The image is unreadable, or gray with more than 8 bits.
    """
    with open_image(item, where) as image:
        is_png = image.format == "PNG" and image.width * image.height <= MAX_PIXELS
        if is_png and isinstance(item, bytes | Path) and _says_more_below(item):
            with _reading(where), _without_pillows_limit():
                image.load()
        # Pillow states the size of TIFF as it is after turning, of all else before.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        size = image.size[::-1] if turned else image.size
        return Header("L" if image.mode in _GRAY else "RGB", size)


def decode_image(
    item: Encoded, where: str, mode: str, size: tuple[int, int]
) -> UInt8[np.ndarray, "C H W"]:
    """Return the pixels of one image, its shorter side resized and the center kept.

    Args:
        item: The image as stored.
        where: What an error calls it: a file, or a row of one.
        mode: "L" for one channel, "RGB" for three.
        size: Width and height in pixels.

    Raises:
        ValueError: The image is unreadable, gray with more than 8 bits, or too large to decode.
    """
    with open_image(item, where) as image:
        if image.width * image.height > _LARGE_PIXELS:
            # JPEG at a half, quarter or eighth, twice what is needed at least; no other format.
            image.draft(image.mode, (2 * max(size), 2 * max(size)))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"{where} has {image.width}x{image.height} pixels, of which at most {MAX_PIXELS} "
                "are decoded; make it smaller, or a JPEG, which --image-size reads at an eighth"
            )
        with _reading(where), _without_pillows_limit():
            image.load()
            opaque = _opaque(_coarse(image, size), mode)
            # Looked up after loading: PNG may say it last. TIFF is turned by then.
            turn = _TURNS.get(_orientation(image))
            upright = opaque if turn is None else opaque.transpose(turn)
            if upright.size != size:
                upright = ImageOps.fit(upright, size, Image.Resampling.BICUBIC)
    pixels: np.ndarray = np.asarray(upright).reshape(size[1], size[0], -1).transpose(2, 0, 1)
    return pixels


def open_image(item: Encoded, where: str) -> Image.Image:
    """Open an image, of which nothing but the header need be read.

    Raises:
        ValueError: The image is unreadable, or gray with more than 8 bits.
    """
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    with _reading(where), _without_pillows_limit():
        image = (
            item
            if isinstance(item, Image.Image)
            else Image.open(item if isinstance(item, Path) else io.BytesIO(item))
        )
    # Pillow would cut a gray PNG with alpha to its upper 8 bits.
    kind = next(
        (tile[3] for tile in getattr(image, "tile", ()) if str(tile[3]).startswith("LA;16")), ""
    )
    if image.mode[0] in "IF" or kind:
        image.close()
        raise ValueError(
            f"{where} has more than 8 bits a channel (mode {kind or image.mode}); convert it to 8 "
            "bits"
        )
    return image


def _coarse(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrink a large image by a whole number, to twice the size it gets or more."""
    factor = min(image.size) // (2 * max(size))
    if image.width * image.height <= _LARGE_PIXELS or factor < 2:
        return image
    if image.mode in ("1", "P", "PA"):
        image = image.convert("L" if image.mode == "1" else "RGBA")
    return image.reduce(factor)


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """Convert to a mode; what is transparent shows white, as on a page."""
    if not image.has_transparency_data:
        return image.convert(mode)
    seen = image.convert("RGBA")
    page = Image.new(mode, seen.size, "white")
    page.paste(seen.convert(mode), mask=seen.getchannel("A"))
    return page


def _orientation(image: Image.Image) -> int:
    """Return the orientation, 1 for upright; a damaged EXIF block says nothing."""
    if not _SAY_ORIENTATION & image.info.keys():
        return 1  # As of most images, for which the rest would take as long as decoding.
    try:
        with warnings.catch_warnings(action="ignore"):
            # Not the PNG's own method, which would decode it.
            found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def _says_more_below(item: bytes | Path) -> bool:
    """Whether a PNG has EXIF or text below its pixels, which Pillow finds only by decoding."""
    below = False
    with item.open("rb") if isinstance(item, Path) else io.BytesIO(item) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if below and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            below = below or kind == b"IDAT"
            file.seek(length + 4, io.SEEK_CUR)
    return False


_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)
"""Errors of too many open files, of a disk, and of want of memory."""


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """Name the image in whatever Pillow raises, which of damaged files is anything."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_MACHINE:
            raise  # It says nothing of the image.
        raise ValueError(
            f"cannot read {where}; replace or remove it [{type(error).__name__}]"
        ) from error


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Leave it to MAX_PIXELS what is too large; Pillow would warn or raise, by the header alone."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
