"""Faults that a trial puts into its process before the command starts."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fault = Callable[[], None]
WRITES = ("open", "os.rename", "os.remove", "os.mkdir", "fsync")
"""What changes files: audit events of Python, and fsync."""


def kill_at_write(folder: Path, number: int) -> Fault:
    """Die just before the so-many-th change of the folder's files, from 0."""
    return functools.partial(_at_writes, folder, number)


def _at_writes(folder: Path, number: int) -> None:
    counter = itertools.count()

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WRITES:
            return
        reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        path = arguments[0]
        is_ours = isinstance(path, (str, os.PathLike)) and Path(path).is_relative_to(folder)
        if not reads and (is_ours or event == "fsync") and next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    real = os.fsync
    os.fsync = lambda descriptor: (count("fsync", (str(folder),)), real(descriptor))[1]


def die_at_byte(number: int) -> Fault:
    """Die in the middle of a write: when any file grows beyond so many bytes."""
    return functools.partial(_limit_files, number, signal.SIG_DFL)


def full_at_byte(number: int) -> Fault:
    """Be refused every write beyond so many bytes of a file, as by a full disk."""
    return functools.partial(_limit_files, number, signal.SIG_IGN)


def _limit_files(number: int, handler: signal.Handlers) -> None:
    signal.signal(signal.SIGXFSZ, handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def obey_permissions() -> None:
    """Give up root's right to write where nobody may: drop CAP_DAC_OVERRIDE."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    data[0] &= ~0b110  # Effective: neither CAP_DAC_OVERRIDE nor CAP_DAC_READ_SEARCH.
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def limit_memory(gigabytes: int) -> Fault:
    """Be refused more memory than this."""
    size = gigabytes * 2**30
    return functools.partial(resource.setrlimit, resource.RLIMIT_AS, (size, size))


def watch_network(log: Path) -> Fault:
    """Write down every look-up of a host, and every connection that leaves the machine."""
    return functools.partial(_watch_network, log)


def _watch_network(log: Path) -> None:
    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
            return
        where = arguments[0] if event != "socket.connect" else arguments[1]
        host = where[0] if isinstance(where, tuple) else where
        is_unix = event == "socket.connect" and arguments[0].family == socket.AF_UNIX
        if is_unix or host in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
            return
        with log.open("a") as file:
            file.write(f"{event} {where}\n")

    sys.addaudithook(note)


# --- faults of one iteration


def slow_steps(seconds: float, first: int = 0) -> Fault:
    """Let every iteration from this one on take so long, s."""
    return functools.partial(_around_steps, "sleep", seconds, (first, 10**9))


def not_finite(where: str, *iterations: int) -> Fault:
    """Make numbers not finite in some iterations (from 0): see :func:`_spoil`."""
    return functools.partial(_around_steps, where, 0.0, iterations)


def _around_steps(where: str, seconds: float, iterations: tuple[int, ...]) -> None:
    from experiments.training.trainer import Trainer

    step = Trainer.step

    def spoiled(trainer: Any) -> Any:
        if where == "sleep":
            if iterations[0] <= trainer.iteration:
                time.sleep(seconds)
        elif trainer.iteration in iterations:
            return _spoil(trainer, where, step)
        return step(trainer)

    Trainer.step = spoiled  # type: ignore[method-assign]


def _spoil(trainer: Any, where: str, step: Callable[[Any], Any]) -> Any:
    """Take a step in which a weight, or once a gradient or a loss, is not a number."""
    import torch

    owner, _, what = where.partition(" ")
    module = getattr(trainer, owner)
    weight = next(p for p in module.parameters() if p.requires_grad)
    if what == "weight":
        with torch.no_grad():
            weight.view(-1)[0] = float("nan")
        return step(trainer)
    if what == "gradient":
        handle = weight.register_hook(lambda gradient: gradient * float("nan"))
    else:
        handle = module.register_forward_hook(lambda *call: call[2] * float("nan"))
    try:
        return step(trainer)
    finally:
        handle.remove()
