"""The lock of a run folder: one process writes, and however it ends the next one may."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.training import lock
from experiments.training.lock import LOCK, locked

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from experiments.training.lock import locked
with locked(Path(sys.argv[1])):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


def test_only_one_process_writes_until_it_is_killed_though_its_workers_live(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
            with pytest.raises(ValueError, match=rf"written by process {holder.pid} on .* since "):
                locked(run).__enter__()
            assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before
            holder.kill()
            holder.wait()
            with locked(run):
                assert (run / LOCK).exists()
        finally:
            holder.kill()
            subprocess.run(["kill", "-9", str(worker)], check=False)
    assert list(run.iterdir()) == [], "who ends by itself leaves no lock file"
    assert holder.returncode == -signal.SIGKILL


def test_folders_that_nothing_was_written_to_are_removed_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data"), locked(tmp_path / "a" / "b"):
        raise ValueError("no data")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "config.json").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["config.json"]


def test_where_nothing_can_be_written_it_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; choose a folder"):
        locked(tmp_path / "file").__enter__()
    with pytest.raises(ValueError, match=r"cannot write to .*Not a directory"):
        locked(tmp_path / "file" / "run").__enter__()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(lock._NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with locked(tmp_path / "run"):
        pass
    assert "has no locks" in capsys.readouterr().err


def test_a_process_does_not_write_one_folder_twice_at_once(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(ValueError, match="is being written by this process"):
            with locked(tmp_path / "run"):
                pass
        assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass


def test_a_folder_that_is_a_link_to_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "run")
    with pytest.raises(ValueError, match="run"), locked(tmp_path / "run"):
        pass
