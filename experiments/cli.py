"""Command lines: typed options by tyro; every mistake ends in one clear line and exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import tyro

from foveate.choices import blame

Config = TypeVar("Config")
MOST_CHARACTERS = 900
"""Of a message; more are what the user gave."""
PAIRS = re.compile(r"Error parsing (--[\w-]+): (?:.* from (\[.*?\])\. )?.*key-value pairs")
"""What tyro says of an option that takes names and values, and was given half a pair."""
BOX = r"[\u2500-\u257f]+|-{5,}"
"""What tyro draws its boxes of, in a terminal that knows Unicode and in one of ASCII."""


def fail(message: str) -> NoReturn:
    """Print one line to standard error and exit with code 2; an endless one loses its middle."""
    line = " ".join(message.split())
    if len(line) > MOST_CHARACTERS:
        line = f"{line[: MOST_CHARACTERS // 2]} ... {line[-MOST_CHARACTERS // 2 :]}"
    sys.stderr.write(f"error: {line}\n")
    raise SystemExit(2)


def one_line(complaint: str) -> str:
    """Strip tyro's box, its headline and its pointers to other subcommands from a complaint."""
    lines = [re.sub(BOX, " ", line).strip() for line in complaint.splitlines()]
    lines = [line for line in lines if line][1:]
    notes = ("For full helptext", "Argument helptext")
    end = next((i for i, line in enumerate(lines) if line.startswith(notes)), len(lines))
    end = next((i for i, line in enumerate(lines[:end]) if line.startswith("in python")), end)
    line = " ".join(lines[:end])
    if half := PAIRS.search(line):
        got = "" if half[2] is None else f", got {half[2]}"
        return f"{half[1]} takes names and their values in turn, NAME VALUE ...{got}"
    # tyro names what is not an option by names of its own.
    return re.sub(r"^(?:Error parsing )?(?:(--[\w.-]+: )|[\w.-]+: )", r"\1", line)


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


class Stopped(KeyboardInterrupt):
    """A signal asked for the end, and nothing is lost; ``str`` says where it stopped."""

    def __init__(self, number: int, line: str) -> None:
        super().__init__(line)
        self.number = number


def again(*, resume: bool) -> str:
    """Return the command as the user typed it, or with ``--resume``."""
    launcher = "torchrun ... " if "TORCHELASTIC_RUN_ID" in os.environ else "python "
    options = [each for each in sys.argv[1:] if each != "--resume"] + ["--resume"] * resume
    return f"{launcher}{program().removeprefix('python ')} {shlex.join(options)}"


def run(main: Callable[[Config], object], config: Config) -> None:
    """Call ``main``; what a user can cause (ValueError, OSError, Ctrl-C) ends in one line.

    Set FOVEATE_DEBUG=1 to see the traceback instead.
    """
    try:
        main(config)
    except (ValueError, OSError) as mistake:
        if os.environ.get("FOVEATE_DEBUG"):
            raise
        if isinstance(mistake, OSError) and mistake.filename and mistake.strerror:
            fail(f"{mistake.filename}: {mistake.strerror}")
        fail(str(mistake))
    except Stopped as stop:
        trains = program().endswith(".train")
        if str(stop):
            sys.stderr.write(f"{stop}; go on with: {again(resume=trains)}\n")
        raise SystemExit(128 + stop.number) from None
    except Exception as mistake:
        from foveate.data.workers import lost_worker  # Imports torch, which --help need not.

        described = lost_worker(mistake) or lost_process(mistake) or lacking_memory(mistake)
        described = described or blame(mistake)
        if described is None or os.environ.get("FOVEATE_DEBUG"):
            raise
        fail(described)
    except KeyboardInterrupt:
        goes_on = "; a training goes on from its last checkpoint with --resume"
        sys.stderr.write(f"interrupted{goes_on * program().endswith('.train')}\n")
        raise SystemExit(130) from None


PEER_GONE = re.compile("closed by peer|reset by peer|remote process exited|Broken pipe")
"""What gloo and NCCL say of a process that they talked with."""


def lost_process(mistake: Exception) -> str | None:
    """Describe what torch raises when another process of torchrun has ended; None: all else."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not PEER_GONE.search(str(mistake)):
        return None
    return (
        "another process of the run has ended, and its own line says why; the last checkpoint, if "
        f"there is one, is intact: go on with --resume [{' '.join(str(mistake).split())}]"
    )


def lacking_memory(mistake: Exception) -> str | None:
    """Describe what Python and torch raise for want of memory; None: all else."""
    # torch's own class is not imported here.
    if not (
        isinstance(mistake, MemoryError)
        or type(mistake).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(mistake)
    ):
        return None
    what = " ".join(str(mistake).split())[:200]
    return (
        "not enough memory; take smaller batches or fewer images (--limit, --stream), or close "
        f"other programs; the last checkpoint, if there is one, is intact [{what}]"
    )


class LastingStream:
    """A stream that may go away, on a full disk or with its reader: what it lacks then is lost.

    No hours of training end for want of a line of progress.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Be as the stream in all else."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with self._lasting():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be written."""
        with self._lasting():
            self.stream.flush()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Python would write what is left to the reader that is gone, and complain at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        except OSError:
            pass


def print_anything() -> None:
    """Let no character stop a line, and no lost standard output or error a run.

    A terminal that lacks a character gets its number instead.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, LastingStream):
            # There is none if it was closed beforehand, as daemons do.
            setattr(sys, name, LastingStream(stream or Path(os.devnull).open("w")))


def main_with_reader(main: Callable[[Config], object], read: Callable[[list[str]], Config]) -> None:
    """Entry point of a script that reads its arguments in a way of its own."""
    print_anything()
    run(main, parse(lambda: read(sys.argv[1:])))


def main_with_options(main: Callable[[Config], object], config: type[Config]) -> None:
    """Entry point of a script with options alone."""
    print_anything()
    run(main, parse(lambda: tyro.cli(config, prog=program())))
