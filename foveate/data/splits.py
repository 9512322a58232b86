"""Splits: what they are called, which rows belong to them, and whether they changed.

The rules stand in ``foveate.data.loading``. All data sets follow them, those in memory and those
that are streamed.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from foveate.data import scenes
from foveate.data.notes import NAMES_IN_A_LINE, listed, say_once

HELD_OUT = {"val": (0.0, 0.1), "test": (0.1, 0.2)}
"""From where to where, of 0 to 1, rows of train become a split that the set lacks."""
KNOWN_SPLITS = "train (training), val (valid, validation, dev) and test (testing)"
_SPLIT_ALIASES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}
_WORDS = "|".join((*scenes.SPLITS, *_SPLIT_ALIASES))
_SPLIT_IN_NAME = re.compile(
    r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"
    rf"(?i:({_WORDS})(?:set)?)"
    r"(?:[A-Z](?![A-Za-z])|(?![A-Za-z]))"
)
"""A word of its own, also in myTrain; as it is called alone, in trainset, and in trainA."""
_SPLIT_FIRST = re.compile(rf"(?i)({_WORDS})[\W\d_]")
"""A file that is called as a split, be it with a number or an ending."""
SHARD = re.compile(r"(.+?)-(\d{5,})-of-(\d{5,})(?:-[0-9a-f]+)?")
"""How datasets calls the files of a split, some with a hash, and webdataset."""


def split_in_name(name: str) -> str | None:
    """Return the split that a name says last, such as that of ``test2017``; None: it says none."""
    named = _SPLIT_IN_NAME.findall(name)
    return split_name(named[-1]) if named else None


def splits_in_names(files: Sequence[Path], folder: Path) -> list[str]:
    """Return the split of each file, as its path below ``folder`` says.

    What counts is the split that the path names last. A folder that is called as a split alone and
    a file whose name begins with one, such as ``train`` and ``val-0``, count before other names
    with a split in them. Beside files whose names say train, val or test, shards such as
    ``extra-00000-of-00004`` are a split of their own. All other files are train, and counted in a
    notice if others name a split.
    """
    named = [_split_of_path(file.relative_to(folder)) for file in files]
    if any(named):
        for number, file in enumerate(files):
            if named[number] is None and (shard := SHARD.fullmatch(file.stem)):
                named[number] = shard[1].lower()
        unnamed = [file for file, own in zip(files, named, strict=True) if own is None]
        if unnamed:
            what = "1 file that names" if len(unnamed) == 1 else f"{len(unnamed)} files that name"
            say_once(f"read as train of {folder}: {what} no split, such as {unnamed[0].name}")
    return [own or "train" for own in named]


def _split_of_path(path: Path) -> str | None:
    """Return the split that a path says; None: it says none."""
    first = _SPLIT_FIRST.match(path.name)
    called = (*path.parts[:-1], *(first.groups() if first else ()))
    alone = [own for own in map(split_name, called) if own in scenes.SPLITS]
    return alone[-1] if alone else split_in_name(str(path))


def check_none_is_empty(
    files: Iterable[Path], named: Iterable[str], stated: Iterable[bool], stored: Container[str]
) -> None:
    """Raise ValueError if files are called like val or test, and none of them has a row.

    Else that split would be held out of train instead.

    Args:
        files: of a set.
        named: the split that each is called like.
        stated: whether a column says the splits of its rows instead.
        stored: splits that have rows.
    """
    for file, own, by_column in zip(files, named, stated, strict=True):
        if own in HELD_OUT and own not in stored and not by_column:
            raise ValueError(
                f"{file} is called like a split, {own}, and has no rows; give it some, or remove it"
            )


def split_name(name: object) -> str:
    """Return train, val or test for their other usual names, any other name in lower case.

    Of a row that names none, None, it is empty.
    """
    lowered = "" if name is None else str(name).strip().lower()
    return _SPLIT_ALIASES.get(lowered, lowered)


def place(key: str | bytes) -> float:
    """Return where in [0, 1) a row lies: its name's hash, or for bytes theirs.

    The hash is the first 8 bytes of SHA-256, so that no other row moves it. Names are the same in
    every Unicode form that a file system gives them.
    """
    if isinstance(key, str):
        key = unicodedata.normalize("NFC", key).encode("utf-8", "surrogateescape")
    # 53 bits are what a float holds exactly; more would round to 1.
    return (int.from_bytes(hashlib.sha256(key).digest()[:8]) >> 11) / 2**53


def choose_rows(
    num_rows: Mapping[str, int],
    split: str,
    name: str,
    places_of: Callable[[str], Float64[np.ndarray, " M"]],
) -> tuple[str, Int64[np.ndarray, " M"]]:
    """Return the stored split to read and which of its rows, by the rules of ``foveate.data``.

    Rows of stored splits with unknown names belong to none. They are counted in a notice.

    Args:
        num_rows: How many rows each stored split has.
        split: train, val or test.
        name: What an error calls the set.
        places_of: The places of a stored split's rows, asked only where some are held out.

    Raises:
        ValueError: The set called ``name`` has no rows for the split.
    """
    source, held_out = split_source(num_rows, split, name)
    others = num_rows.keys() - set(scenes.SPLITS)
    if len(others) > NAMES_IN_A_LINE:
        rows = sum(num_rows[other] for other in others)
        say_once(
            f"left out of {name}: {rows} rows of {len(others)} splits, {listed(others)}; "
            f"known are {KNOWN_SPLITS}"
        )
        others = set()
    for other in sorted(others):
        what = f"of split {other!r}" if other else "that name no split"
        say_once(f"left out of {name}: {num_rows[other]} rows {what}; known are {KNOWN_SPLITS}")
    if not held_out:
        return source, np.arange(num_rows[source])
    if num_rows[source] <= len(held_out):
        raise ValueError(
            f"{name} has too few images for its {split} split: {num_rows[source]} in {source}"
        )
    return source, np.flatnonzero(_sides(places_of(source), held_out) == split)


def split_source(num_rows: Collection[str], split: str, name: str) -> tuple[str, list[str]]:
    """Return the stored split that a split is read from, and what is held out of that one.

    Raises:
        ValueError: There is none to read, nor to hold out of.
    """
    stored_as = {own: own for own in scenes.SPLITS if own in num_rows}
    if "test" not in stored_as and "val" in stored_as:
        stored_as["test"] = stored_as.pop("val")
    source = stored_as.get(split, "train")
    if not num_rows:
        raise ValueError(f"{name} holds no images")
    if source not in num_rows:
        raise ValueError(
            f"{name} has no {split} split, nor train to hold it out of; it has "
            f"{listed(num_rows)}, and known are {KNOWN_SPLITS}; of parquet or tar files, "
            "--split-column None takes all rows and holds val and test out of them"
        )
    held_out = [part for part in HELD_OUT if part not in stored_as]
    return source, held_out if source == "train" else []


def belongs(key: str, split: str, held_out: Sequence[str]) -> bool:
    """Return whether a row of the stored split that a split is read from is that split's.

    Each row is judged alone, so that it may be asked of a stream; ``choose_rows`` also sees to it
    that no split of a tiny set is empty.
    """
    if not held_out:
        return True
    at = place(key)
    return split == next(
        (part for part in held_out if HELD_OUT[part][0] <= at < HELD_OUT[part][1]), "train"
    )


def _sides(at: Float64[np.ndarray, " M"], held_out: Sequence[str]) -> np.ndarray:
    """Return the split of every row of train; there are more rows than splits held out."""
    side = np.full(len(at), "train", dtype=object)
    for part in held_out:
        low, high = HELD_OUT[part]
        side[(low <= at) & (at < high)] = part
    # Only tiny sets have a split that no row falls into. It takes a row of the largest split.
    for part in ("train", *held_out):
        if part not in side:
            largest = max(("train", *held_out), key=lambda other: int((side == other).sum()))
            rows = np.flatnonzero(side == largest)
            side[rows[at[rows].argmax() if part == "train" else at[rows].argmin()]] = part
    return side


@dataclass(frozen=True)
class Fingerprint:
    """What a split holds, in short: equal for the same images, whatever their order."""

    images: int
    """How many there are; 0 where nobody counted, as in tar files."""
    bytes: int
    """Their size as stored, or that of their shards."""
    names: str
    """Digest of what each image or shard is called, or of its bytes, of its size and its labels."""


def fingerprint(images: int, parts: Iterable[tuple[str, int]]) -> Fingerprint:
    """Return the fingerprint of images or shards, each with a name or digest and a size."""
    ordered = sorted(parts)
    digest = hashlib.sha256()
    for name, size in ordered:
        # Lengths first: names may hold any sign.
        content = name.encode("utf-8", "surrogateescape")
        digest.update(b"%d %d " % (len(content), size) + content)
    return Fingerprint(images, sum(size for _, size in ordered), digest.hexdigest())


def fingerprints_from(recorded: object) -> dict[str, Fingerprint]:
    """Return the fingerprints of splits that were written as JSON.

    Raises:
        ValueError: they are damaged.
    """
    try:
        return {name: Fingerprint(**each) for name, each in recorded.items()}  # type: ignore[attr-defined]
    except (AttributeError, TypeError) as reason:
        raise ValueError(str(reason)) from reason


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """Return in words what differs, one phrase for each split; nothing where all are equal."""
    found = []
    for split in sorted(before.keys() | now.keys()):
        had, has = before.get(split), now.get(split)
        if had is None:
            found.append(f"{split} was not there, is now")
        elif has is None:
            found.append(f"{split} was there, is not now")
        elif had.images != has.images:
            found.append(f"{split} had {had.images} images, has {has.images}")
        elif had.bytes != has.bytes:
            found.append(f"{split} had {had.bytes} bytes, has {has.bytes}")
        elif had.names != has.names:
            found.append(f"{split} has other images or labels, as many as before")
    return found
