"""One process writes a run folder: a lock that the system takes back however its holder ends.

No torch here, so that a second terminal hears at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from foveate.files import check_may_be_folder

LOCK = "run.lock"
"""Name of the file in a run folder that its writer holds locked, while it writes."""
POLL_S = 0.05
"""How long one that waits for its turn sleeps."""
_OURS: set[Path] = set()
"""Folders that this process writes: the system keeps only other processes out."""
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Held(ValueError):
    """A folder is being written by another."""


def is_held(directory: Path) -> bool:
    """Whether a process holds the lock of a run folder now."""
    try:
        with locked(directory):
            return False
    except Held:
        return True


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which is made if it is missing.

    Folders that were made and are still empty at the end are removed again.

    Raises:
        Held: another process holds it, or this one does.
        ValueError: nothing can be written there.
    """
    check_may_be_folder(directory)
    own = Path(os.path.realpath(directory))  # Which does not mind a link to itself.
    if own in _OURS:
        raise Held(f"{directory} is being written by this process; choose another --out")
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    try:
        descriptor = _acquire(directory)
    except OSError as reason:
        raise ValueError(
            f"cannot write to {directory} ({reason.strerror}); choose another --out"
        ) from reason
    _OURS.add(own)
    try:
        yield
    finally:
        _OURS.discard(own)
        with contextlib.suppress(OSError):
            (directory / LOCK).unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()


@contextlib.contextmanager
def locked_in_turn(file: Path) -> Iterator[None]:
    """Hold a lock of one file, once nobody else does; for what is read and written in a moment.

    It is that of a folder beside the file, apart from the lock of the run folder.

    Raises:
        ValueError: nothing can be written there.
    """
    own = file.with_name(f".{file.name}.lock")
    try:
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(own))
                    break
                except Held:
                    time.sleep(POLL_S)
            yield
    finally:
        with contextlib.suppress(OSError):
            own.rmdir()  # Of several who wait none is the one that made it.


def _acquire(directory: Path) -> int:
    """Open and lock the file, and write into it who we are; return its descriptor."""
    path = directory / LOCK
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if directory.is_dir():
                raise
            continue  # Whoever made the folder removed it again.
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_ourselves()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # The one before us removed it between our two calls.


def _lock(descriptor: int, path: Path) -> None:
    """Lock an open file.

    POSIX locks are not inherited, so that no worker keeps one for a process that was killed. They
    end when their process closes the file anywhere: nothing here opens it once more.

    Raises:
        Held: another process holds the lock.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 2**30, os.SEEK_SET)  # Beyond what others read.
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as reason:
        if reason.errno in _HELD:
            raise Held(
                f"{path.parent} is being written by {_holder(path)}; wait until it ends, or choose "
                "another --out"
            ) from reason
        if reason.errno not in _NO_LOCKS:
            raise
        sys.stderr.write(
            f"warning: the file system of {path.parent} has no locks ({reason.strerror}); see to "
            "it that no other process writes there\n"
        )


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _ourselves() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(path: Path) -> str:
    """Say who holds the lock, as it wrote into the file."""
    try:
        who = json.loads(path.read_text())
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
