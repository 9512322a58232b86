"""Commands of experiments as a user types them, in a process of their own or in this one."""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch

ROOT = Path(__file__).parents[1]


def start(script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, in a process of its own: seconds of imports."""
    command = [sys.executable, "-m", f"experiments.{script}", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def call(script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script in this process, and put back what it may change for the tests after it."""
    module = f"experiments.{script}"
    command = [str(ROOT / "experiments" / f"{script}.py"), *map(str, options)]
    out, errors = io.StringIO(), io.StringIO()
    code, threads = 0, torch.get_num_threads()
    with (
        mock.patch.object(sys, "argv", command),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        warnings.simplefilter("ignore")
        # A module that ran already is run afresh, as the process's main one.
        sys.modules.pop(module, None)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            torch.set_num_threads(threads)
    return subprocess.CompletedProcess(command, code, out.getvalue(), errors.getvalue())
