"""Tar shards of the kinds that people bring, and damaged ones: no image is lost without a word."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from .inputs import Case, Loaded, is_upright, number
from .inputs_pixels import turned_file
from .pictures import colored, encoded
from .runs import write_tar

TOTAL = 40
BLOCK = 512
Members = list[tuple[str, bytes]]


def members(total: int = TOTAL, form: str = "{:05}", suffix: str = "png") -> Members:
    """Return images and classes."""
    found: Members = []
    for i in range(total):
        picture = encoded(colored(i), suffix)
        found += [(f"{form.format(i)}.{suffix}", picture)]
        found += [(f"{form.format(i)}.cls", str(i % 3).encode())]
    return found


def shards(
    train: Iterable[tuple[str, bytes]], change: Callable[[bytes], bytes] = bytes
) -> Callable[[Path], None]:
    """Return a maker of three shards; the bytes of the one of train are changed."""
    train = list(train)

    def make(root: Path) -> None:
        for split in ("train", "val", "test"):
            write_tar(root / f"{split}-000000.tar", train if split == "train" else members(6))
        path = root / "train-000000.tar"
        path.write_bytes(change(path.read_bytes()))

    return make


def count(total: int) -> Callable[[Loaded], bool]:
    """Return a question: were so many images of train read, each with its class?"""
    return lambda loaded: loaded.sizes == {"train": total} and number(total)(loaded)


def tar(
    name: str,
    make: Callable[[Path], None],
    reads: Callable[[Loaded], bool] | None,
    *refuses: str,
    **options: object,
) -> Case:
    """Return a case of a stream's training split."""
    refused = refuses or None
    return Case(
        name, make, reads, refused, (), {"limit": 1000, **options}, streams=True, splits=("train",)
    )


def cases(rng: random.Random) -> list[Case]:
    """List the shards."""
    whole = members()
    size = len(_bytes_of(whole))
    # Behind the last member two blocks of zeros end the archive; what follows pads it.
    ends = max(i for i in range(0, size, BLOCK) if any(_bytes_of(whole)[i : i + BLOCK])) + BLOCK
    cuts = sorted({rng.randrange(1, ends) for _ in range(30)} | {BLOCK * 7, ends})
    holes = [BLOCK * rng.randrange(1, ends // BLOCK - 8) for _ in range(8)]
    headers = [rng.randrange(TOTAL) for _ in range(6)]
    named = "train-000000.tar"
    return [
        tar("as it is", shards(whole), count(TOTAL)),
        *(tar(f"cut at {at}", shards(whole, lambda b, at=at: b[:at]), None, named) for at in cuts),
        *(
            tar(
                f"a hole of zeros at {at}", shards(whole, lambda b, at=at: hole(b, at)), None, named
            )
            for at in holes
        ),
        *(
            tar(f"a bad header {i}", shards(whole, lambda b, i=i: bad_header(b, i)), None, named)
            for i in headers
        ),
        tar("its end cut short", shards(whole, lambda b: b[: ends + 2 * BLOCK]), count(TOTAL)),
        tar("a class without its image", shards(without(whole, "00007.png")), None, named),
        tar(
            "an image without its class", shards(without(whole, "00007.cls")), labeled_or(39), named
        ),
        tar(
            "an image twice",
            shards([*whole, whole[0], whole[1]]),
            lambda x: len(x) == TOTAL + 1,
            named,
        ),
        tar("an image that is text", shards(replaced(whole, "00007.png", b"text")), None, "00007"),
        tar("an empty image", shards(replaced(whole, "00007.png", b"")), None, "00007"),
        tar("a class that is text", shards(replaced(whole, "00007.cls", b"cat")), None, "cls"),
        tar(
            "a huge class",
            shards(replaced(whole, "00007.cls", b"1000000000")),
            lambda loaded: len(loaded) == TOTAL and len(loaded.classes) < 1000,
            "cls|label",
        ),
        tar("dots in names", shards(members(form="img.{:05}")), count(TOTAL), "dot"),
        tar("folders in names", shards(members(form="a/b/{:05}")), count(TOTAL)),
        tar("dots in folders", shards(members(form="v1.0/{:05}")), count(TOTAL)),
        tar("suffix in capitals", shards(upper(whole)), count(TOTAL), named),
        *(
            tar(f".{s}", shards(members(suffix=s)), count(TOTAL))
            for s in ("jpg", "jpeg", "webp", "jfif", "avif", "bmp")
        ),
        tar("oriented", shards(turned_members()), lambda x: len(x) == TOTAL and is_upright(x)),
        tar("compressed", compressed, None, ".gz"),
        tar("text as tar", shards(whole, lambda b: b"text" * 500), None, named),
        tar("an empty file", shards(whole, lambda b: b""), None, named),
        tar("no member", shards([]), None, "tar"),
        tar("noise behind its end", shards(whole, lambda b: b + b"noise" * 300), None, named),
        tar("damaged, skipped", skipping(whole), lambda x: len(x) == TOTAL - 1, skip_damaged=True),
    ]


def _bytes_of(content: Members) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tar"
        write_tar(path, content)
        return path.read_bytes()


def hole(content: bytes, at: int, blocks: int = 8) -> bytes:
    """Replace some blocks by zeros, as after a write that was lost."""
    return content[:at] + bytes(blocks * BLOCK) + content[at + blocks * BLOCK :]


def bad_header(content: bytes, member: int) -> bytes:
    """Damage the checksum of one member's header."""
    at = 0
    for _ in range(2 * member):
        at += BLOCK + -(-int(content[at + 124 : at + 135], 8) // BLOCK) * BLOCK
    return content[: at + 148] + b"777777" + content[at + 154 :]


def without(content: Members, name: str) -> Members:
    """Leave a member out."""
    return [each for each in content if each[0] != name]


def replaced(content: Members, name: str, data: bytes) -> Members:
    """Give a member other content."""
    return [(each, data if each == name else old) for each, old in content]


def upper(content: Members) -> Members:
    """Write the suffix of images in capitals."""
    return [(name.replace(".png", ".PNG"), data) for name, data in content]


def labeled_or(total: int) -> Callable[[Loaded], bool]:
    """Return a question: do all images but one have their class, and that one none?"""
    return lambda loaded: len(loaded) == total + 1 and loaded.labels.count(-1) == 1


def turned_members() -> Members:
    """Return images that are stored turned."""
    return [(f"{i:05}.jpg", turned_file(i)) for i in range(TOTAL)]


def compressed(root: Path) -> None:
    """Write shards that are compressed."""
    for split in ("train", "val", "test"):
        path = root / f"{split}-000000.tar"
        write_tar(path, members(6))
        (root / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def skipping(whole: Members) -> Callable[[Path], None]:
    """Return a maker of shards with a sample that lacks its image."""
    return shards(without(whole, "00007.png"))
