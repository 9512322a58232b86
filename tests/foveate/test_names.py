"""Packages of other projects with the names of ours are called so, in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from foveate import names

ROOT = Path(__file__).parent.parent.parent


def test_our_own_packages_are_ours() -> None:
    names.check_own("envs", "agents", "experiments", "no_such_package")


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("envs", "import gymnasium; gymnasium.make('foveate.ids:foveate/CueScan-v0')"),
        ("envs", "import agents.rows"),
        ("agents", "import experiments.tables"),
    ],
)
def test_a_folder_of_the_same_name_is_named(name: str, used: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text('"""Of somebody else."""\n')
    code = f"import sys; sys.path[:0] = ['', {str(ROOT)!r}]; {used}"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    place = tmp_path / name / "__init__.py"
    assert last.startswith(f"ImportError: another package named {name} is installed: {place}; ")


def test_a_package_that_was_written_over_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "written_over"
    package.mkdir()
    (package / "__init__.py").write_text("theirs = True\n")
    monkeypatch.setattr(names, "__file__", str(tmp_path / "foveate" / "names.py"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="another package named written_over"):
        names.check_own("written_over")
    (package / "__init__.py").write_text('"""Of foveate."""\n')
    names.check_own("written_over")
