"""Decoding: upright, opaque, 8 bits, and of bounded size, whatever the format says."""

from __future__ import annotations

import errno
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import decoding
from foveate.data.decoding import decode_image, height_and_width, read_header

Turn = Image.Transpose
TURNED = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_90,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_270,
}
"""How an image lies in its file that is upright once its EXIF orientation is applied."""


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 6, channels), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_images_are_upright_and_so_are_their_sizes(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    for orientation, turn in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        lossless = {"lossless": True} if kind == "WEBP" else {}
        lying = Image.fromarray(pixels).transpose(turn)
        content = stored(lying, kind, exif=exif, **lossless)
        assert read_header(content, "it").size == (12, 8)
        upright = decode_image(content, "it", "RGB", (12, 8))
        assert (upright.transpose(1, 2, 0) == pixels).all(), orientation


def test_png_may_say_below_its_pixels_how_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(noise(3)[:4])
    content = stored(lying, exif=exif)
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    late = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    (tmp_path / "late.png").write_bytes(late)
    for item in (content, late, tmp_path / "late.png"):
        assert read_header(item, "it").size == (4, 6)
        upright = decode_image(item, "it", "RGB", (4, 6)).transpose(1, 2, 0)
        assert (upright == np.asarray(lying.transpose(Turn.ROTATE_270))).all()


def test_a_header_decodes_nothing_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    content = stored(Image.fromarray(noise(3)[:4]), exif=Image.Exif())
    late = content[:-12] + bytes.fromhex("0000000474455874612e6162") + bytes(4) + content[-12:]
    asked: list[object] = []
    monkeypatch.setattr("foveate.data.decoding._says_more_below", lambda item: asked.append(item))
    read_header(late, "it")
    monkeypatch.setattr("foveate.data.decoding.MAX_PIXELS", 23)
    read_header(late, "it")
    assert len(asked) == 1


def test_damaged_exif_says_nothing() -> None:
    content = stored(Image.fromarray(noise(3)), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert read_header(content, "it").size == (6, 6)
    assert (decode_image(content, "it", "RGB", (6, 6)).transpose(1, 2, 0) == noise(3)).all()


def test_what_is_transparent_shows_white_and_gray_stays_gray() -> None:
    pixels = noise(4)
    pixels[..., 3] = 0
    pixels[2:4, 2:4] = (9, 9, 9, 255)
    image = Image.fromarray(pixels)
    palette = Image.fromarray(pixels[..., :3]).quantize(8)
    corner = np.asarray(palette)[0, 0].item()
    plain = Image.fromarray(np.full((6, 6), 7, np.uint8))
    for content, mode in (
        (stored(image), "RGB"),
        (stored(image.convert("LA")), "L"),
        (stored(image.quantize(16)), "RGB"),
        (stored(image, "WEBP", lossless=True), "RGB"),
        (stored(palette, "GIF", transparency=corner), "RGB"),
        (stored(plain, transparency=7), "L"),
        (stored(plain.convert("RGB"), transparency=(7, 7, 7)), "RGB"),
    ):
        assert read_header(content, "it").mode == mode
        decoded = decode_image(content, "it", mode, (6, 6))
        assert (decoded[:, 0, 0] == 255).all()
    assert (decode_image(stored(image), "it", "RGB", (6, 6))[:, 2, 2] == 9).all()
    half = Image.fromarray(np.full((2, 2, 4), (0, 0, 0, 128), np.uint8))
    assert (decode_image(stored(half), "it", "RGB", (2, 2)) == 127).all()


def test_gray_of_16_bits_with_alpha_is_refused_as_without() -> None:
    """Pillow, which would keep the upper 8 bits, writes no such file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    pixels = zlib.compress(b"".join(b"\0" + bytes([0, 9, 255, 255] * 2) for _ in range(2)))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 4, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)
    with pytest.raises(ValueError, match=r"more than 8 bits a channel \(mode LA;16B\)"):
        decode_image(content + chunk(b"IEND", b""), "it", "L", (2, 2))


def test_want_of_memory_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), OSError(errno.EMFILE, "Too many open files")):

        def refuse(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Image, "open", refuse)
        with pytest.raises(type(error)):
            decode_image(b"", "it", "L", (2, 2))


def test_other_modes_are_converted_or_refused_by_name() -> None:
    color = Image.fromarray(noise(3))
    for mode, kind, gray in (("1", "PNG", True), ("CMYK", "TIFF", False), ("YCbCr", "TIFF", False)):
        content = stored(color.convert(mode), kind)
        assert read_header(content, "it").mode == ("L" if gray else "RGB")
        assert decode_image(content, "it", "RGB", (6, 6)).shape == (3, 6, 6)
    deep = Image.fromarray(np.ones((6, 6), np.uint16))
    for image, kind in ((deep, "PNG"), (color.convert("F"), "TIFF"), (color.convert("I"), "TIFF")):
        for read in (read_header, lambda item, where: decode_image(item, where, "L", (6, 6))):
            with pytest.raises(ValueError, match=r"b/7\.png has more than 8 bits a channel"):
                read(stored(image, kind), "b/7.png")


def test_large_images_are_read_up_to_a_stated_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit, by which it warns or raises, plays no part; it is left as it was."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr(decoding, "_LARGE_PIXELS", 2000)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 20_000)
    half = np.zeros((80, 160, 3), np.uint8)
    half[:, 80:] = 200
    left = Image.fromarray(half)
    for image, kind in (
        (left, "PNG"),
        (left.convert("L"), "PNG"),
        (left.convert("1", dither=Image.Dither.NONE), "PNG"),
        (left.quantize(4), "PNG"),
        (left.convert("RGBA"), "PNG"),
        (left, "JPEG"),
    ):
        small = decode_image(stored(image, kind), "it", "RGB", (8, 4))
        assert small[:, :, 1].max() < 30
        assert small[:, :, 6].min() > 170
    huge = Image.new("L", (400, 400))
    with pytest.raises(ValueError, match=r"a\.png has 400x400 pixels, of which at most 20000 are"):
        decode_image(stored(huge), "a.png", "L", (8, 8))
    assert decode_image(stored(huge, "JPEG"), "a.jpg", "L", (8, 8)).shape == (1, 8, 8)
    assert Image.MAX_IMAGE_PIXELS == 500


def test_pillow_decides_what_a_picture_is_called() -> None:
    assert {".png", ".jpg", ".jfif", ".webp", ".bmp", ".mpo", ".ppm"} <= decoding.IMAGE_SUFFIXES
    assert not {".pdf", ".eps", ".h5", ".mpg", ".txt", ".json"} & decoding.IMAGE_SUFFIXES


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    content = stored(Image.fromarray(noise(3)))
    for damaged in (b"", b"junk", content[:60], content[:20] + bytes(40) + content[60:]):
        with pytest.raises(ValueError, match=r"cannot read a\.png; replace or remove it \["):
            decode_image(damaged, "a.png", "RGB", (6, 6))


def test_image_sizes_are_a_side_or_height_and_width() -> None:
    assert height_and_width(32) == (32, 32)
    assert height_and_width((32, 64)) == height_and_width("32x64") == (32, 64)
    assert height_and_width("32") == (32, 32)
    for wrong in ("32*64", "x64"):
        with pytest.raises(ValueError, match=r"image_size must be a side, .*in whole pixels"):
            height_and_width(wrong)
    for wrong in (0, (0, 4), (1 << 20, 1 << 20)):
        with pytest.raises(ValueError, match="image_size must be at"):
            height_and_width(wrong)
