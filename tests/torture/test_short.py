"""The short form of ``make torture``: a little of each kind, and harness faults that must show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.torture", "--short", "--out", tmp_path / "tally.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "tally.json").read_text())["rows"]
    assert len(rows) == 11
    assert all(row["tried"] > 0 and row["tried"] == row["right"] for row in rows)
