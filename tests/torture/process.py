"""Processes of trials: commands of the project, or functions, each under a fault if one is given.

Most are *warm*: forked from a process that has imported everything, so that one takes a second.
To the system they are processes as all others, and die as they do.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import multiprocessing.connection
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
"""No process of a trial takes longer, unless it hangs."""
GONE_S = 4.0
"""Children are gone so soon after their parent, also on a busy machine; torch's own workers
take five seconds and more."""
MARK = "TORTURE_TRIAL"
PR_SET_PDEATHSIG = 1
Call = Callable[[], object]


class Lost(Exception):
    """Something was lost, or is silently wrong."""


class Traced(Exception):
    """A traceback was shown where one line should stand."""


class Skipped(Exception):
    """This machine does not permit the trial."""


@dataclass(frozen=True)
class Done:
    """What a process left behind."""

    code: int
    """Exit code; minus the signal that killed it."""
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines that say what was wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def well(self) -> Done:
        """Check that it succeeded."""
        self.expect(self.code == 0, "exit 0")
        return self

    def refused(self, *words: str) -> Done:
        """Check that it ended with one line that has these words; of ``a|b`` one is enough."""
        self.expect(self.code == 2, "exit 2")
        self.expect(len(self.errors) == 1, "one line that starts with error:")
        self.says(*words)
        return self

    def says(self, *words: str) -> Done:
        """Check that the words were shown; of ``a|b`` one is enough."""
        shown = (self.out + self.err).lower()
        for word in words:
            found = any(each in shown for each in word.lower().split("|"))
            self.expect(found, f"a line with {word!r}")
        return self

    def expect(self, is_so: bool, what: str) -> None:
        """Raise what is wrong, with the end of what the process showed."""
        shown = " / ".join((self.out + self.err).replace("\r", "\n").splitlines()[-4:])[-600:]
        if "Traceback (most recent call last)" in self.err:
            raise Traced(f"exit {self.code}: {shown}")
        if not is_so:
            raise Lost(f"expected {what}, got exit {self.code}: {shown}")


class Running:
    """A process of a trial, in a session of its own, so that what it leaves is found."""

    def __init__(self, pid: int, wait: Callable[[float], int | None], log: Path, mark: str) -> None:
        self.pid = pid
        self._wait = wait
        self._log = log
        self._mark = mark
        self.started = time.monotonic()

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._wait(0)

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it as a machine that fails does: at once."""
        self.signal(signal.SIGKILL)

    def wait(self, seconds: float = PATIENCE_S) -> Done:
        """Wait for its end, and that of its children.

        Raises:
            Lost: it does not end, or leaves processes behind.
        """
        code = self._wait(seconds)
        if code is None:
            self.end()
            raise Lost(f"still running after {seconds:.0f} s")
        until = time.monotonic() + GONE_S
        while (left := self.members()) and time.monotonic() < until:
            time.sleep(0.05)
        if left:
            self.end()
            raise Lost(f"{len(left)} processes outlive it by {GONE_S:.0f} s")
        out, err = (self._log.with_suffix(f".{name}").read_text("utf-8", "replace") for name in OUT)
        return Done(code, out, err)

    def until(self, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait for a state of the run, or for its end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.code is None and not is_so():
            time.sleep(0.005)

    def members(self) -> list[int]:
        """Processes of its session that live, and those that carry its mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.pid:
                continue
            with suppress(OSError):
                state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
                is_ours = fields[2] == str(self.pid)
                marked = self._mark.encode() in (entry / "environ").read_bytes()
                if state != "Z" and (is_ours or marked):
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Kill it with all that is left of it."""
        for pid in (self.pid, *self.members()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._wait(5)


OUT = ("out", "err")


_one_at_a_time = threading.Lock()
"""A process that starts asks all others for their exit codes, each of which can be read once."""


def start(
    call: Call,
    folder: Path,
    *,
    faults: Iterable[Call] = (),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start a warm process that makes the faults ready and then makes the call."""
    mark = uuid.uuid4().hex
    log = folder / f"log_{mark}"
    for name in OUT:
        # One that is killed before it opens them said nothing.
        log.with_suffix(f".{name}").touch()
    process = multiprocessing.get_context("forkserver").Process(
        target=_child, args=(log, tuple(faults), call, cwd or folder, dict(environment or {}))
    )
    with _one_at_a_time:
        process.start()
    assert process.pid is not None

    def wait(seconds: float) -> int | None:
        multiprocessing.connection.wait([process.sentinel], seconds)
        with _one_at_a_time:
            return process.exitcode

    return Running(process.pid, wait, log, mark)


def start_cold(
    arguments: Iterable[str],
    folder: Path,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start a process as a user does, who waits for its imports."""
    mark = uuid.uuid4().hex
    log = folder / f"log_{mark}"
    out, err = (log.with_suffix(f".{name}").open("w") for name in OUT)
    with out, err:
        process = subprocess.Popen(
            list(arguments),
            cwd=cwd or folder,
            env={**os.environ, **(environment or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )

    def wait(seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
        return None

    return Running(process.pid, wait, log, mark)


def python(*arguments: str) -> list[str]:
    """Return a command line of this Python."""
    return [sys.executable, *arguments]


def command(name: str, *arguments: str | Path) -> Call:
    """Return a call of a command, as ``python -m experiments.NAME`` makes it."""
    return functools.partial(_run_command, name, tuple(map(str, arguments)))


def _run_command(name: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [str(ROOT / "experiments" / f"{name}.py"), *arguments]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


def _child(
    log: Path, faults: tuple[Call, ...], call: Call, cwd: Path, environment: dict[str, str]
) -> None:
    os.setsid()
    # Workers start as they do everywhere, and not as this process did.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    # A trial ends with the one who tries.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, name in enumerate(OUT, start=1):
        descriptor = os.open(log.with_suffix(f".{name}"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
    # As Python opens them.
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, encoding="utf-8", errors=errors, closefd=False)
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    os.chdir(cwd)
    os.environ.update(environment)
    sys.path.insert(0, str(cwd))
    for fault in faults:
        fault()
    call()


def prepare() -> None:
    """Start the process that the warm ones are forked from: one thread, nothing of the network."""
    os.environ["OMP_NUM_THREADS"] = "1"
    # What killed processes left behind is no news here.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.warm"])
