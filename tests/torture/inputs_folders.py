"""Image folders of the kinds that people bring."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from .inputs import Case, number, unlabeled
from .inputs_pixels import with_one
from .pictures import colored, encoded, folder_of, write


def cases(rng: random.Random) -> list[Case]:
    """List the folders."""
    return [*of_links(), *of_layout(), *of_files(), *of_sizes()]


# --- links and layout


def linked(root: Path) -> Path:
    """A class that lies elsewhere."""
    folder_of(root / "set", classes="ab")
    folder_of(root / "far", classes="abc")
    (root / "set" / "c").symlink_to(root / "far" / "c", target_is_directory=True)
    return root / "set"


def loop(root: Path) -> None:
    """A link to the folder that it lies in."""
    folder_of(root)
    (root / "c" / "again").symlink_to(root, target_is_directory=True)


def linked_file(root: Path) -> Path:
    """An image that lies elsewhere."""
    folder_of(root / "set")
    write(root / "elsewhere.png", colored(21))
    (root / "set" / "a" / "007.png").unlink()
    (root / "set" / "a" / "007.png").symlink_to(root / "elsewhere.png")
    return root / "set"


def broken_link(root: Path) -> None:
    """A link to nothing."""
    folder_of(root)
    (root / "a" / "gone.png").symlink_to(root / "nothing.png")


def of_links() -> list[Case]:
    """List links."""
    return [
        Case("a linked class", linked, number(60)),
        Case("a link in a loop", loop, number(60)),
        Case("a linked image", linked_file, number(60)),
        Case("a broken link", broken_link, number(60), ("gone.png",), ("skipped|gone.png",)),
    ]


def held_out_flat(split: str) -> Callable[[Path], None]:
    """Return a maker of class folders in train, loose images in another split."""

    def make(root: Path) -> None:
        folder_of(root / "train")
        for i in range(12):
            write(root / split / f"{i:03}.png", colored(i))

    return make


def flat(root: Path, total: int = 30) -> None:
    """Loose images."""
    for i in range(total):
        write(root / f"{i:03}.png", colored(i))


def flat_splits(root: Path) -> None:
    """Loose images in splits."""
    flat(root / "train")
    flat(root / "test", 12)


def wrapped(root: Path) -> None:
    """A folder in a folder of the same name, as archives unpack."""
    for split, total in (("train", 20), ("test", 5)):
        folder_of(root / "set" / split, total)


def loose_beside(root: Path) -> None:
    """Images beside class folders."""
    folder_of(root)
    flat(root, 5)


def odd_names(root: Path) -> None:
    """Classes and images with names that need care."""
    names = ("a b\n", "b ünïcode 類", "c,\"quoted'")
    for k, name in enumerate(names):
        for i in range(20):
            write(root / name / f"{i} {'x' * 100} %s.png", colored(3 * i + k))


def of_layout() -> list[Case]:
    """List layouts."""
    return [
        Case("test without classes", held_out_flat("test"), None, ("test",)),
        Case("val without classes", held_out_flat("val"), None, ("val",)),
        Case("loose images", flat, unlabeled(30)),
        Case("loose images in splits", flat_splits, unlabeled(42)),
        Case("images beside classes", loose_beside, None, ("000.png|loose|class",)),
        Case(
            "a wrapper folder",
            wrapped,
            lambda x: len(x) == 75 and x.sizes["test"] == 15 and len(x.classes) == 3,
            ("set",),
        ),
        Case("nothing", lambda root: None, None, ("image",)),
        Case("an empty class", lambda root: _empty_class(root), number(60), ("'d'|/d",)),
        Case("one class", lambda root: folder_of(root, classes="a"), number(20)),
        Case("odd names", odd_names, number(60)),
        Case("no such place", lambda root: root / "nowhere", None, ("nowhere",)),
        Case("hidden files", lambda root: _hidden(root), number(60)),
        Case("one image", lambda root: flat(root, 1), None, ("image",)),
    ]


def _empty_class(root: Path) -> None:
    folder_of(root)
    (root / "d").mkdir()


def _hidden(root: Path) -> None:
    folder_of(root)
    for name in (".DS_Store", "._000.png", ".ipynb_checkpoints/x.png"):
        path = root / "a" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")


# --- files and sizes


def suffixed(suffix: str, lossy: bool = False) -> Case:
    """Return a case of a rare suffix."""
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if lossy else {}
    make = with_one(colored(21), f"a/007.{suffix}", **options)
    return Case(f".{suffix}", make, number(60))


def content(name: str, data: bytes) -> Callable[[Path], None]:
    """Return a maker of a folder of 60 images and a file beside them."""

    def make(root: Path) -> None:
        folder_of(root)
        (root / "a" / name).write_bytes(data)

    return make


def of_files() -> list[Case]:
    """List files."""
    whole = encoded(colored(0), "jpg")
    return [
        *(suffixed(s) for s in ("bmp", "ppm", "tga", "webp", "tif", "gif", "JPEG", "PNG")),
        *(suffixed(s, lossy=True) for s in ("jfif", "jpe", "avif", "jp2")),
        Case("other files", content("a.txt", b"x"), number(60), None, ("skipped", ".txt")),
        Case("text as .png", content("bad.png", b"text"), None, ("bad.png",)),
        Case("an empty .png", content("bad.png", b""), None, ("bad.png",)),
        Case(
            "a jpeg that is cut", content("bad.jpg", whole[: len(whole) // 2]), None, ("bad.jpg",)
        ),
        Case(
            "a png that is cut", content("bad.png", encoded(colored(0))[:900]), None, ("bad.png",)
        ),
        Case("a jpeg as .png", content("b.png", whole), lambda loaded: len(loaded) == 61),
        Case("a text file as the set", lambda root: _text(root), None, ("list.txt",)),
    ]


def _text(root: Path) -> Path:
    (root / "list.txt").write_text("a.png 0\n")
    return root / "list.txt"


def of_sizes() -> list[Case]:
    """List sizes."""
    small = {"image_size": 32}
    huge = Image.new("L", (16000, 12000), 90)
    beyond = Image.new("1", (60000, 60000))
    tall = colored(21, (24, 96))
    return [
        Case("a huge image", with_one(huge), lambda x: len(x) == 60, None, (), small),
        Case("a huge jpeg", with_one(huge, "a/007.jpg"), lambda x: len(x) == 60, None, (), small),
        Case("a huge image, sizes differ", with_one(huge), None, ("image_size|image-size",)),
        Case("beyond any limit", with_one(beyond), None, ("007.png",), (), small),
        Case("sizes differ", with_one(tall), None, ("image_size|image-size",)),
        Case("sizes differ, resized", with_one(tall), lambda x: len(x) == 60, None, (), small),
        Case(
            "resized to a rectangle",
            with_one(tall),
            lambda x: len(x) == 60 and x.images.shape[2:] == (16, 32),
            None,
            (),
            {"image_size": (16, 32)},
        ),
        Case("one pixel", with_one(colored(0, (1, 1))), lambda x: len(x) == 60, None, (), small),
    ]
