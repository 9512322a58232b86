"""What is left out of a data set is said on stderr: once for each set and process.

A set that comes from the cache repeats what was said when it was read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator

NAMES_IN_A_LINE = 10
"""The most names that a line lists."""
_collecting: list[list[str]] = []
_said: set[tuple[str, str]] = set()


def listed(names: Iterable[str]) -> str:
    """Return names in order as one line shows them: ten at most, and how many more there are."""
    ordered = sorted(names)
    rest = len(ordered) - NAMES_IN_A_LINE
    return str(ordered[:NAMES_IN_A_LINE]) + (f" and {rest} more" if rest > 0 else "")


def say_once(line: str, about: str = "") -> None:
    """Print a line to stderr, unless this process has done so about the same set.

    Within :func:`collected` it is kept for later instead.
    """
    if _collecting:
        if line not in _collecting[-1]:
            _collecting[-1].append(line)
    elif (about, line) not in _said:
        _said.add((about, line))
        print(line, file=sys.stderr)


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Give the lines of a block in a list, instead of printing them.

    Those of a block that fails are said: they may tell why.
    """
    lines: list[str] = []
    _collecting.append(lines)
    try:
        yield lines
    except BaseException:
        _collecting.pop()
        for line in lines:
            say_once(line)
        raise
    _collecting.pop()


@contextlib.contextmanager
def once(about: str) -> Iterator[None]:
    """Say the lines of a block at its end, as those about one set."""
    with collected() as lines:
        yield
    for line in lines:
        say_once(line, about)
