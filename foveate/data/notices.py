"""Lines about data that are no errors: what was left out, skipped, or not read.

Each is said once for a set, on standard error. A set that comes from the cache repeats those that
were said when it was read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_listening: list[list[str]] = []
_said: set[tuple[str, str]] = set()


def say(line: str, about: str = "") -> None:
    """Print a line once for what it is about, or hand it to who collects notices."""
    if _listening:
        if line not in _listening[-1]:
            _listening[-1].append(line)
    elif (about, line) not in _said:
        _said.add((about, line))
        sys.stderr.write(f"{line}\n")


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Give the notices of a block in a list, each once, instead of printing them."""
    lines: list[str] = []
    _listening.append(lines)
    try:
        yield lines
    finally:
        # By identity: an inner list may be equal.
        _listening[:] = [heard for heard in _listening if heard is not lines]


@contextlib.contextmanager
def once(about: str) -> Iterator[None]:
    """Say the notices of a block after it, each once in this process for what it is about."""
    with collected() as lines:
        yield
    for line in lines:
        say(line, about)
