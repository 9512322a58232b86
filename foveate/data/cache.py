"""Decoded sets on disk, so that a file is decoded once: ``python -m experiments.cache`` lists them.

They lie in ``$FOVEATE_CACHE``, by default ``~/.cache/foveate``, and take at most
``$FOVEATE_CACHE_LIMIT`` bytes, by default 4 GiB. The set that was not used for longest makes room
for a new one. 0 keeps none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL
import torch

from foveate.data.images import ImageSet
from foveate.data.notes import collected, say_once
from foveate.data.splits import Fingerprint
from foveate.files import expanded

DEFAULT_LIMIT_BYTES = 4 * 2**30
_OURS = re.compile(r"[0-9a-f]{32}\.npz")
_PARTIAL = "partial-"
FileState: TypeAlias = tuple[str, int, int, int, int]


@dataclass(frozen=True)
class Entry:
    """A set in the cache."""

    path: Path
    name: str
    """What was loaded: a path or a name."""
    split: str
    num_bytes: int
    used_s: float
    """When it was used last, seconds since 1970."""


def cache_folder() -> Path:
    """Return the folder of the decoded sets; of a user without a home a temporary one.

    Raises:
        ValueError: ``FOVEATE_CACHE`` lies in a home that there is not.
    """
    if given := os.environ.get("FOVEATE_CACHE"):
        return expanded(given)
    try:
        return expanded("~/.cache/foveate")
    except ValueError:
        return Path(tempfile.gettempdir()) / "foveate"


def limit_bytes() -> int:
    """Return how many bytes the cache may take.

    Raises:
        ValueError: ``FOVEATE_CACHE_LIMIT`` is no number of bytes.
    """
    given = os.environ.get("FOVEATE_CACHE_LIMIT") or str(DEFAULT_LIMIT_BYTES)
    if not given.isascii() or not given.isdecimal():
        raise ValueError(f"FOVEATE_CACHE_LIMIT must be a number of bytes, got {given!r}")
    return int(given)


def file_state(file: Path) -> FileState:
    """Return what differs when a file was changed or replaced, even by one as old and as large.

    A file that is gone has a state too: who reads it says so better.
    """
    try:
        found = file.stat()
    except OSError:
        return str(file), 0, 0, 0, 0
    return str(file), found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def cached(
    source: str,
    split: str,
    key: Iterable[object],
    build: Callable[[], tuple[ImageSet, Sequence[FileState]]],
) -> ImageSet:
    """Return the stored set; if none can be read, build and store it.

    Args:
        source: Path or name of the data, for the listing.
        split: train, val or test.
        key: All else that decides what is built; it is told apart by its ``repr``.
        build: Makes the set, and returns the states of files that are not in the key, from before
            they were read: where one of them changed, the set is built anew.
    """
    digest = hashlib.sha256(
        repr([source, split, PIL.__version__, *key]).encode("utf-8", "surrogateescape")
    )
    path = cache_folder() / f"{digest.hexdigest()[:32]}.npz"
    limit = limit_bytes()
    try:
        loaded, lines = _load(path)
    except Exception:  # A damaged file fails in more ways than can be listed.
        with collected() as lines:
            loaded, states = build()
        # A read-only or full disk costs the next call its time, not this one its result.
        with contextlib.suppress(OSError):
            _store(path, loaded, source, split, states, lines, limit)
    for line in lines:
        say_once(line)
    return loaded


def entries() -> list[Entry]:
    """Return the sets in the cache, the one used last first."""
    found = []
    for path in _sets():
        try:
            state = path.stat()
            with path.open("rb") as file, np.load(file) as stored:
                source, split = str(stored["source"]), str(stored["split"])
        except FileNotFoundError:
            continue  # Another process made room.
        except Exception:  # As above.
            source, split = "?", "?"
        found.append(Entry(path, source, split, state.st_size, state.st_mtime))
    return sorted(found, key=lambda entry: -entry.used_s)


def empty() -> None:
    """Remove all sets, and what was cut off while it was written."""
    for path in _sets():
        path.unlink(missing_ok=True)
    _remove_partial(older_than_s=0.0)


def _sets() -> list[Path]:
    folder = cache_folder()
    return [path for path in folder.glob("*.npz") if _OURS.fullmatch(path.name)]


def _remove_partial(older_than_s: float) -> None:
    """Remove folders of sets that nobody finished writing."""
    for path in cache_folder().glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime <= time.time() - older_than_s:
                shutil.rmtree(path)


def _load(path: Path) -> tuple[ImageSet, list[str]]:
    # Opened here, since np.load leaves a damaged file open.
    with path.open("rb") as file, np.load(file) as stored:
        about = json.loads(str(stored["about"]))
        for state in about["files"]:
            if list(file_state(Path(state[0]))) != state:
                raise ValueError(f"{state[0]} has changed since the set was stored")
        captions, prints = about["captions"], about["fingerprints"]
        loaded = ImageSet(
            torch.from_numpy(stored["images"]),
            torch.from_numpy(stored["labels"]),
            tuple(about["class_names"]),
            about["name"],
            captions=captions and tuple(tuple(sentences) for sentences in captions),
            boxes_px=torch.from_numpy(stored["boxes_px"]) if len(stored["boxes_px"]) else None,
            fingerprints={own: Fingerprint(**prints[own]) for own in prints} or None,
            columns=tuple(about.get("columns", ())),
        )
    with contextlib.suppress(OSError):
        os.utime(path)
    return loaded, about["notices"]


def _store(
    path: Path,
    built: ImageSet,
    source: str,
    split: str,
    files: Sequence[FileState],
    lines: Sequence[str],
    limit: int,
) -> None:
    """Write the set beside its final place, then move it there in one step, and make room."""
    if built.images.nbytes > limit:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_partial(older_than_s=24 * 3600.0)
    prints = {own: dataclasses.asdict(found) for own, found in (built.fingerprints or {}).items()}
    about = {
        "name": built.name,
        "class_names": built.class_names,
        "captions": built.captions,
        "fingerprints": prints,
        "columns": built.columns,
        "files": files,
        "notices": lines,
    }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PARTIAL) as folder:
        partial = Path(folder) / path.name
        np.savez(
            partial,
            images=built.images.numpy(),
            labels=built.labels.numpy(),
            about=np.array(json.dumps(about)),
            source=np.array(source),
            split=np.array(split),
            boxes_px=np.empty((0, 4)) if built.boxes_px is None else built.boxes_px.numpy(),
        )
        # A set too large alone would push out all others.
        if partial.stat().st_size > limit:
            return
        partial.replace(path)
    _make_room(limit)


def _make_room(limit: int) -> None:
    """Keep each set that fits into ``limit`` bytes beside those used after it; remove others."""
    # Another process may make room too: what is gone is no error.
    states = []
    for path in _sets():
        with contextlib.suppress(FileNotFoundError):
            states.append((path.stat(), path))
    total = 0
    for state, path in sorted(states, key=lambda found: -found[0].st_mtime_ns):
        if total + state.st_size > limit:
            path.unlink(missing_ok=True)
        else:
            total += state.st_size
