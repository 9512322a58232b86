"""Images whose pixels need care: depth, transparency, modes and orientation."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .inputs import Case, Loaded, number
from .pictures import COLORS, colored, encoded, folder_of, write


def cases(rng: random.Random) -> list[Case]:
    """List the images, in folders."""
    return [*of_pixels(), *oriented(rng)]


def with_one(image: Image.Image, name: str = "a/007.png", **options: object) -> Callable[..., None]:
    """Return a maker of a folder of 60 images, one of which is this."""

    def make(root: Path) -> None:
        folder_of(root)
        (root / "a" / "007.png").unlink()
        write(root / name, image, **options)

    return make


def of_mode(mode: str, suffix: str = "png") -> Callable[[Path], None]:
    """Return a maker of a folder of images of a mode of Pillow."""

    def make(root: Path) -> None:
        folder_of(root, suffix=suffix, make=lambda i: colored(i, mode=mode))

    return make


# --- pixels


def sixteen_bit(i: int) -> Image.Image:
    """A 16-bit gray image."""
    gray = np.asarray(colored(i, mode="L")).astype(np.uint16) * 257
    return Image.fromarray(gray)


def hidden(i: int, mode: str = "RGBA") -> Image.Image:
    """Noise under full transparency, a square in the middle of the class's color."""
    noise = np.random.default_rng(i).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    noise[..., 3] = 0
    noise[8:24, 8:24] = (*COLORS[i % 3], 255)
    return Image.fromarray(noise).convert(mode)


def palette(i: int) -> Image.Image:
    """A palette whose first color is transparent, and stands where the noise was."""
    indices = np.ones((32, 32), np.uint8)
    indices[8:24, 8:24] = 0
    indices[:8] = np.random.default_rng(i).integers(2, 250, (8, 32))
    image = Image.fromarray(indices).convert("P")
    image.putpalette(np.random.default_rng(i).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.info["transparency"] = 0
    return image


def one_color_outside(loaded: Loaded) -> bool:
    """Whether all that was transparent has one color in all images."""
    outside = np.ones((32, 32), bool)
    outside[8:24, 8:24] = False
    pixels = loaded.images[:, :, outside]
    return len(loaded) == 60 and pixels.min() == pixels.max()


def one_color_inside(loaded: Loaded) -> bool:
    """Whether the transparent square of every palette has one color."""
    inside = loaded.images[:, :, 8:24, 8:24]
    return len(loaded) == 60 and inside.min() == inside.max()


def is_scaled(loaded: Loaded) -> bool:
    """Whether 16 bits became 8 by their highest ones: all images have like mean brightness."""
    means = loaded.images.mean((1, 2, 3))
    return len(loaded) == 60 and 30 < means.min() and means.max() < 160


def of_pixels() -> list[Case]:
    """List modes and depths of pixels."""
    by_path = ("007.",)
    floats = Image.fromarray(np.asarray(colored(0, mode="L")).astype(np.float32) / 255)
    integers = Image.fromarray(np.asarray(colored(0, mode="L")).astype(np.int32) * 65536)
    transparent = colored(0, mode="RGB")
    transparent.info["transparency"] = (0, 0, 0)
    frames = [colored(i) for i in (0, 1, 2)]
    return [
        Case("16 bits, one image", with_one(sixteen_bit(0)), is_scaled, by_path),
        Case(
            "16 bits, all images",
            lambda root: folder_of(root, make=sixteen_bit),
            is_scaled,
            ("000.png|16",),
        ),
        Case("16 bits, tiff", with_one(sixteen_bit(0), "a/007.tif"), is_scaled, by_path),
        Case("floats, tiff", with_one(floats, "a/007.tiff"), None, by_path),
        Case("32-bit integers, tiff", with_one(integers, "a/007.tiff"), is_scaled, by_path),
        Case(
            "noise under alpha", lambda root: folder_of(root, make=hidden), one_color_outside, None
        ),
        Case(
            "gray noise under alpha",
            lambda root: folder_of(root, make=lambda i: hidden(i, "LA")),
            one_color_outside,
        ),
        Case(
            "a transparent palette",
            lambda root: folder_of(root, make=palette),
            one_color_inside,
        ),
        Case(
            "one image with alpha among others",
            with_one(colored(21, mode="RGBA")),
            number(60),
        ),
        Case("a transparent color", with_one(transparent), lambda loaded: len(loaded) == 60),
        Case("palettes", of_mode("P"), lambda loaded: len(loaded) == 60),
        Case("cmyk", of_mode("CMYK", "jpg"), number(60)),
        Case("black and white", of_mode("1"), lambda loaded: len(loaded) == 60),
        Case("gray and alpha", of_mode("LA"), lambda loaded: len(loaded) == 60),
        Case("one gray among colored", with_one(colored(0, mode="L")), lambda x: len(x) == 60),
        Case(
            "an animation",
            with_one(frames[0], "a/007.gif", save_all=True, append_images=frames[1:]),
            number(60),
        ),
    ]


# --- orientation


def turned(i: int, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """An image that is stored turned, and the tag that says so."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image, exif = colored(i), Image.Exif()
    exif[0x0112] = orientation
    return image if back is None else image.transpose(back), exif


def turned_file(i: int, suffix: str = "jpg") -> bytes:
    """Return the file of an image that is stored in one of the eight ways."""
    image, exif = turned(i, 1 + i % 8)
    return encoded(image, suffix, exif=exif)


def oriented(rng: random.Random) -> list[Case]:
    """List orientations of image files."""

    def make(root: Path, suffix: str) -> None:
        for i in range(60):
            path = root / "abc"[i % 3] / f"{i:03}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(turned_file(i, suffix))

    return [
        Case(f"orientation, {s}", lambda root, s=s: make(root, s), number(60))
        for s in ("jpg", "png", "webp", "tif")
    ]
