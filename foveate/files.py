"""Where files lie, and how they are written whole or not at all, whenever the machine stops."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def expanded(path: str | Path) -> Path:
    """Return a path with its ``~`` replaced by a home.

    Raises:
        ValueError: there is no such home, or the text is empty, which Python takes for ``.``.
    """
    if path == "":
        raise ValueError("a path is an empty text; the working directory is .")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such home; give the path without ~") from error


def place_of(path: str | Path) -> Path:
    """Return where a file or folder lies, links followed.

    A link to content that goes by another kind of name keeps its own, as caches call their content
    by its digest.
    """
    given = expanded(path)
    real = given.resolve()
    same = real.suffix.lower() == given.suffix.lower() or real.is_dir()
    return real if same else Path(os.path.abspath(given))


def check_may_be_folder(path: Path) -> None:
    """Raise ValueError if a file, or a link to nothing, is where a folder is to be."""
    if os.path.lexists(path) and not path.is_dir():
        what = "a file" if path.exists() else "a link to nothing"
        raise ValueError(f"{path} is {what}; choose a folder with --out")


def unwritable(path: Path, reason: OSError) -> ValueError:
    """Return what is raised where a file cannot take the place of what was there."""
    return ValueError(
        f"cannot write {path} ({reason.strerror or reason}); what was there before is kept; make "
        "room or choose another folder"
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` once it is written and on the disk.

    Until then, and after any failure, what was there stays.

    Raises:
        ValueError: it cannot be written, say on a full disk or in a folder that vanished.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as reason:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if not isinstance(reason, OSError):
            raise
        raise unwritable(path, reason) from reason


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk, where the system can: Windows cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems refuse.
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
