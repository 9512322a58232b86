"""Splits: what they are called, and which rows belong to them.

The rules stand in ``foveate.data.loading``. All data sets follow them, those in memory and those
that are streamed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from foveate.data import scenes

_SPLIT_ALIASES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}
_SPLIT_IN_NAME = re.compile(
    r"(?<![a-z])(train|training|val|valid|validation|dev|test|testing)(?![a-z])"
)


@dataclass(frozen=True)
class Fingerprint:
    """What tells one split from another."""

    images: int
    bytes: int
    names: str
    """Digest of the sorted (name, size) pairs."""


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> list[str]:
    """Say of each split what differs; empty if nothing does."""
    words = []
    for split in (*before, *(name for name in now if name not in before)):
        was, is_now = before.get(split), now.get(split)
        if was == is_now:
            continue
        if was is None or is_now is None:
            words.append(f"{split} is {'gone' if is_now is None else 'new'}")
        elif was.images != is_now.images:
            words.append(f"{split} had {was.images} images, has {is_now.images}")
        else:
            words.append(f"{split} has as many images, but other ones")
    return words


def split_in_name(file: Path, folder: Path) -> str:
    """Return the split that the file's path below ``folder`` names last, else train."""
    named = _SPLIT_IN_NAME.findall(str(file.relative_to(folder)).lower())
    return split_name(named[-1]) if named else "train"


def split_name(name: str) -> str:
    """Return train, val or test for their other usual names, any other name in lower case."""
    return _SPLIT_ALIASES.get(name.lower(), name.lower())


def choose_rows(
    num_rows: dict[str, int], split: str, name: str
) -> tuple[str, Int64[np.ndarray, " M"]]:
    """Return the stored split to read and which of its rows, by the rules of ``foveate.data``.

    Raises:
        ValueError: The set called ``name`` has no rows for the split.
    """
    stored_as = {own: own for own in scenes.SPLITS if own in num_rows}
    if "test" not in stored_as and "val" in stored_as:
        stored_as["test"] = stored_as.pop("val")
    source = stored_as.get(split, "train")
    if source not in num_rows:
        raise ValueError(
            f"{name} has no {split} split, nor train to hold it out of; it has {sorted(num_rows)}"
        )
    chosen = np.arange(num_rows[source])
    if source == "train":
        num_held_out = max(1, round(len(chosen) / 10))
        shuffled = np.random.default_rng(0).permutation(len(chosen))
        for part in ("val", "test"):
            if part in stored_as:
                continue
            shuffled, held_out = shuffled[:-num_held_out], shuffled[-num_held_out:]
            if part == split:
                chosen = np.sort(held_out)
        if split == "train":
            chosen = np.sort(shuffled)
    if len(chosen) == 0:
        raise ValueError(
            f"{name} has too few images for its {split} split: {num_rows[source]} in {source}"
        )
    return source, chosen
