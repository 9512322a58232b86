"""Command lines: typed options by tyro; every mistake ends in one clear line and exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro

Config = TypeVar("Config")


def fail(message: str) -> NoReturn:
    """Print one line to standard error and exit with code 2."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(2)


def one_line(complaint: str) -> str:
    """Strip tyro's box, its headline and its pointers to other subcommands from a complaint."""
    lines = [re.sub(r"[─-╿]+", " ", line).strip() for line in complaint.splitlines()]
    lines = [line for line in lines if line][1:]
    end = next(
        (i for i, line in enumerate(lines) if line.startswith("For full helptext")), len(lines)
    )
    end = next((i for i, line in enumerate(lines[:end]) if line.startswith("in python")), end)
    return re.sub(r"^Error parsing [\w.-]+: ", "", " ".join(lines[:end]))


def parse(read: Callable[[], Config]) -> Config:
    """Run a tyro parser; its boxed complaints, and those of a config, become one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return read()
    except ValueError as mistake:
        fail(str(mistake))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        fail(one_line(complaint.getvalue()))


def program() -> str:
    """The command as the user typed it."""
    return f"python -m experiments.{Path(sys.argv[0]).stem}"


def run(main: Callable[[Config], object], config: Config) -> None:
    """Call ``main``; what a user can cause (ValueError, OSError, Ctrl-C) ends in one line.

    Set FOVEATE_DEBUG=1 to see the traceback instead.
    """
    try:
        main(config)
    except (ValueError, OSError) as mistake:
        if os.environ.get("FOVEATE_DEBUG"):
            raise
        fail(str(mistake))
    except RuntimeError as mistake:
        # torch raises it wherever the program is when a worker of a stream ends.
        if "DataLoader worker" not in str(mistake) or os.environ.get("FOVEATE_DEBUG"):
            raise
        fail(
            "a process that reads the stream was killed, perhaps for want of memory; the last "
            f"checkpoint is intact: go on with --resume [{mistake}]"
        )
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted; a training goes on from its last checkpoint with --resume "
            "(one is written every --save-every iterations)\n"
        )
        raise SystemExit(130) from None


def main_with_reader(main: Callable[[Config], object], read: Callable[[list[str]], Config]) -> None:
    """Entry point of a script that reads its arguments in a way of its own."""
    run(main, parse(lambda: read(sys.argv[1:])))


def main_with_options(main: Callable[[Config], object], config: type[Config]) -> None:
    """Entry point of a script with options alone."""
    run(main, parse(lambda: tyro.cli(config, prog=program())))
