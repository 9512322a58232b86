"""Faults of the machine: full disks, folders that cannot be written or vanish, dead workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from .faults import full_at_byte, obey_permissions, slow_steps
from .plan import Plan, Trial
from .process import Done, Lost, Skipped, command, start
from .runs import KINDS, begin, check_same, finish, half_run, has_lines

NATIVE = KINDS["native"]


def trials(plan: Plan) -> Iterator[Trial]:
    """List the faults."""
    shared = plan.shared
    full = [("native", 3), ("maskable-ppo", 2)] if not plan.short else [("native", 1)]
    for name, number in full:
        for i in range(number):
            # Logs are smaller, checkpoints larger.
            size = plan.rng.randrange(20_000, 150_000)
            run = partial(full_disk, shared, name, size)
            yield Trial("machine", f"no file beyond {size} bytes, {name} {i}", run)
    yield Trial("machine", "a folder that may not be written", partial(read_only, shared))
    if plan.short:
        return
    for kilobytes in (4, 200, 500, 900):
        run = partial(small_disk, shared, kilobytes)
        yield Trial("machine", f"a full disk of {kilobytes} KB", run)
    for name in ("native", "streamed parquet"):
        yield Trial("machine", f"a vanished folder, {name}", partial(vanished, shared, name))
    for i in range(3):
        name = ("streamed parquet", "streamed tar", "streamed parquet")[i]
        run = partial(dead_worker, shared, name)
        yield Trial("machine", f"a killed worker, {name} {i}", run)
    for name, make in OUTS.items():
        yield Trial("machine", f"--out {name}", partial(bad_out, shared, make))
    yield Trial("machine", "evaluations in a read-only run", partial(read_only_report, shared))
    yield Trial("machine", "metrics cut in the last line", partial(cut_metrics, shared))
    for i in range(3):
        run = partial(damaged_metrics, shared, plan.rng.randrange(4))
        yield Trial("machine", f"metrics damaged in the middle {i}", run)
    for file in ("config.json", "manifest.json"):
        for name, change in DAMAGES.items():
            run = partial(damaged_json, shared, file, change)
            yield Trial("machine", f"{file} {name}", run)


def no_partial(out: Path) -> None:
    """Check that nothing half-written is left."""
    if left := [path.name for path in out.glob("*partial*")]:
        raise Lost(f"left behind: {', '.join(left)}")


# --- disks


def full_disk(shared: Path, name: str, size: int, folder: Path) -> None:
    """Resume on a disk that is full; then on one that is not."""
    kind = KINDS[name]
    out = half_run(kind, shared, folder)
    (running,) = begin(kind, shared, folder, "--resume", faults=[full_at_byte(size)])
    running.wait().refused("too large|no space")
    no_partial(out)
    finish(kind, shared, folder)
    check_same(kind, shared, folder)


@contextmanager
def small_mount(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a small disk, if that is permitted."""
    place = folder / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if shutil.which("mount") is None:
        raise Skipped("there is no mount")
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        raise Skipped("mounting is not permitted")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def small_disk(shared: Path, kilobytes: int, folder: Path) -> None:
    """Train on a small disk; what is there when it is full can be gone on from elsewhere."""
    with small_mount(folder, kilobytes) as disk:
        (running,) = begin(NATIVE, shared, folder, "--out", disk / "run")
        done = running.wait()
        if done.code:
            done.refused("no space")
        if (disk / "run").is_dir():
            no_partial(disk / "run")
            shutil.copytree(disk / "run", folder / "run")
    finish(NATIVE, shared, folder)
    check_same(NATIVE, shared, folder)


def read_only(shared: Path, folder: Path) -> None:
    """Resume in a folder that may not be written: refused before the first iteration."""
    out = half_run(NATIVE, shared, folder)
    before = (out / "metrics.jsonl").read_text()
    for path in (*out.iterdir(), out):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (running,) = begin(NATIVE, shared, folder, "--resume", faults=[obey_permissions])
    running.wait().refused("written|permission")
    if (out / "metrics.jsonl").read_text() != before:
        raise Lost("metrics were changed")
    for path in (out, *out.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    finish(NATIVE, shared, folder)
    check_same(NATIVE, shared, folder)


def read_only_report(shared: Path, folder: Path) -> None:
    """Evaluate a run whose folder may not be written: refused at once, not at the end."""
    finish(NATIVE, shared, folder)
    out = folder / "run"
    out.chmod(0o555)
    for name in ("compare", "probe", "scanpaths"):
        running = start(command(name, "--run", out), folder, faults=[obey_permissions])
        running.wait(20).refused("written|permission")
    out.chmod(0o755)


def vanished(shared: Path, name: str, folder: Path) -> None:
    """Remove the run folder while the run goes on."""
    (running,) = begin(KINDS[name], shared, folder, faults=[slow_steps(0.1)])
    running.until(has_lines(folder / "run", 3))
    shutil.rmtree(folder / "run", ignore_errors=True)
    running.wait().refused("run")


def dead_worker(shared: Path, name: str, folder: Path) -> None:
    """Kill a worker of a stream."""
    kind = KINDS[name]
    (running,) = begin(kind, shared, folder, faults=[slow_steps(0.2)])
    running.until(has_lines(folder / "run", 5))
    for worker in running.members()[:1]:
        with suppress(OSError):
            os.kill(worker, signal.SIGKILL)
    done = running.wait()
    if done.code:
        done.refused("worker", "--resume")
    finish(kind, shared, folder)
    check_same(kind, shared, folder)


def _file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


OUTS: dict[str, Callable[[Path], Path]] = {
    "a file": _file,
    "below a file": lambda folder: _file(folder) / "run",
    "below /proc": lambda folder: Path("/proc/run"),
    "/dev/null": lambda folder: Path("/dev/null"),
    "a name that is too long": lambda folder: folder / ("x" * 300),
    "a link to itself": _loop,
}
"""Places where no run can be written."""


def bad_out(shared: Path, make: Callable[[Path], Path], folder: Path) -> None:
    """Train into a place that cannot be written."""
    if sys.platform != "linux":
        raise Skipped("places of Linux")
    (running,) = begin(NATIVE, shared, folder, "--out", make(folder))
    running.wait().refused()


# --- files of a run


def cut_metrics(shared: Path, folder: Path) -> None:
    """Resume after the last line of metrics was cut off."""
    out = half_run(NATIVE, shared, folder)
    path = out / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"iteration": 7, "lo')
    finish(NATIVE, shared, folder)
    check_same(NATIVE, shared, folder)


def damaged_metrics(shared: Path, line: int, folder: Path) -> None:
    """Resume with a damaged line in the middle of metrics: it is named, and nothing is dropped."""
    path = half_run(NATIVE, shared, folder) / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[line] = lines[line][: len(lines[line]) // 2]
    path.write_text("\n".join(lines) + "\n")
    before = path.read_text()
    (running,) = begin(NATIVE, shared, folder, "--resume")
    done = running.wait()
    done.refused("metrics.jsonl", f"line {line + 1}") if done.code else done.says("metrics.jsonl")
    kept = path.read_text()
    if not set(before.splitlines()) - {lines[line]} <= set(kept.splitlines()):
        raise Lost("lines of metrics were dropped")


DAMAGES: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[1, 2]",
    "deeply nested": lambda text: "[" * 100_000 + "]" * 100_000,
    "with an unknown key": lambda text: json.dumps({**json.loads(text), "unknown": 1}),
    "with NaN": lambda text: text.replace("0", "NaN", 1),
    "of no text": lambda text: "\udcff\udcfe\x00",
}
"""What is wrong with a JSON file of a run."""


def damaged_json(shared: Path, file: str, change: Callable[[str], str], folder: Path) -> None:
    """Resume with a damaged file: it is named in one line, or it does no harm."""
    path = half_run(NATIVE, shared, folder) / file
    path.write_bytes(change(path.read_text()).encode("utf-8", "surrogateescape"))
    (running,) = begin(NATIVE, shared, folder, "--resume")
    done = running.wait()
    if done.code:
        done.refused(file)
    else:
        check_same(NATIVE, shared, folder)
    evaluated: Done = start(
        command("compare", "--run", folder / "run", "--limit", "8", "--oracle-limit", "2"), folder
    ).wait()
    evaluated.refused(file) if evaluated.code else evaluated.well()
